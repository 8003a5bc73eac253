"""The pictures of docs/performance.md show its tables."""

import xml.etree.ElementTree as ET

import pytest

from benchmarks.plot import PAGE, PANELS, panels, rows_of

FILES = panels(PAGE.read_text())


@pytest.mark.parametrize("file", FILES)
def test_panels_are_drawn_from_the_tables(file: str) -> None:
    """Each panel is what `python -m benchmarks.plot` makes of the page; it is small, and on the page."""
    assert (PAGE.parent / file).read_text() == FILES[file]
    assert len(FILES[file]) < 20_000
    assert f"]({file})" in PAGE.read_text()


@pytest.mark.parametrize(("heading", "file", "title", "columns"), PANELS)
def test_every_figure_is_in_its_panel(heading: str, file: str, title: str, columns: tuple[str, ...]) -> None:
    """A bar for each figure, longer for a greater one of its column, and the row's name beside it."""
    rows = rows_of(PAGE.read_text(), heading)
    shapes = list(ET.fromstring(FILES[file]))
    bars = iter([float(shape.attrib["width"]) for shape in shapes if shape.tag.endswith("rect")])
    lengths = [(column, row[column], next(bars)) for row in rows.values() for column in columns if column in row]
    for column in columns:
        pairs = sorted((figure, length) for of, figure, length in lengths if of == column)
        assert [length for _, length in pairs] == sorted(length for _, length in pairs)
    assert next(bars, None) is None
    shown = [shape.text for shape in shapes if shape.tag.endswith("text")]
    assert title in shown
    assert all(any(text and name.startswith(text.rstrip("…")) for text in shown) for name in rows)
