"""Draws tables as small SVG panels of bars; `python -m benchmarks.plot` redraws those of docs/performance.md.

A panel has no background, and its colours can be read on a light page and on a dark one.
"""

import re
from html import escape
from pathlib import Path

from benchmarks.tables import Table

# Told apart by colour-blind eyes as well: https://jfly.uni-koeln.de/color/
OURS, REFERENCE, OTHERS, INK = "#d55e00", "#0072b2", "#8c8c8c", "#757c85"
FADING = 0.45  # how much lighter the last column of a row is than the first
WIDTH, NAMES, FIGURES, HEAD, BAR, GAP = 720, 250, 60, 42, 11, 6  # pixels
LETTER = 6.6  # pixels, of a name
PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
# Heading on the page, file, title, and the columns that are drawn.
TIMES = ("µs", "µs at +2 ms")
PANELS = (
    ("A read", "performance-read.svg", "Time of one read, next to the database and at a distance", TIMES),
    ("A write", "performance-write.svg", "Time of one write, next to the database and at a distance", TIMES),
    ("Over HTTP", "performance-http.svg", "Requests per second",
     ("read", "write", "nine reads to one write")),
)  # fmt: skip


def draw(tables: list[Table], directory: Path) -> None:
    """Write `KEY.svg` into this directory for each table that has rows."""
    for table in tables:
        if table.rows:
            panel = drawn(table.title, table.rows, table.drawn or table.columns[:1])
            (directory / f"{table.key}.svg").write_text(panel)


def drawn(title: str, rows: dict[str, dict[str, float]], columns: tuple[str, ...]) -> str:
    """The panel as SVG: a group of bars for each row, a bar for each column, its figure at its end.

    Each column has a scale of its own: rows are compared, not columns.
    """
    longest = {column: max(figures.get(column, 0.0) for figures in rows.values()) or 1.0 for column in columns}
    shapes, top = [], HEAD
    for name, figures in rows.items():
        shown = [(place, column, figures[column]) for place, column in enumerate(columns) if column in figures]
        middle = top + BAR * len(shown) / 2
        shapes.append(_text(NAMES - 8, middle + 4, shortened(name), anchor="end", bold=name.startswith("lagwise")))
        for place, column, figure in shown:
            colour = OURS if name.startswith("lagwise") else REFERENCE if "recipe" in name else OTHERS
            faded = 1 - FADING * place / max(1, len(columns) - 1)
            length = max(1.0, figure / longest[column] * (WIDTH - NAMES - FIGURES))
            size = f'width="{length:.1f}" height="{BAR - 1}"'
            shapes.append(f'<rect x="{NAMES}" y="{top}" {size} fill="{colour}" opacity="{faded:.2f}"/>')
            shapes.append(_text(NAMES + length + 4, top + 9, _figure(figure), size=10))
            top += BAR
        top += GAP
    legend = ", then ".join(columns) + ("; each to its own scale" if len(columns) > 1 else "")
    head = [_text(0, 14, title, bold=True), _text(NAMES, 32, legend, size=10)]
    opening = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" width="{WIDTH}" height="{top}"'
    return "\n".join(
        [f'{opening} font-family="sans-serif" font-size="11" fill="{INK}" role="img">', *head, *shapes, "</svg>\n"]
    )


def shortened(name: str) -> str:
    """A name that fits to the left of its bars.

    >>> shortened("lagwise")
    'lagwise'
    """
    most = int((NAMES - 8) / LETTER)
    return name if len(name) <= most else name[: most - 1].rstrip(" ,:") + "…"


def rows_of(page: str, heading: str) -> dict[str, dict[str, float]]:
    """The figures of the first table under a heading of a page; cells without a number are left out.

    >>> rows_of("## A read\\n\\n| | us |\\n|---|---|\\n| **lagwise** | **1,234** |\\n", "A read")
    {'lagwise': {'us': 1234.0}}
    """
    section = f"\n{page}".partition(f"\n## {heading}\n")[2]
    lines = re.search(r"(?:^\|.*\n)+", section, re.M)
    assert lines is not None, f"no table under {heading}"
    table = [[cell.strip(" *`") for cell in line.split("|")[1:-1]] for line in lines[0].replace("`", "").splitlines()]
    (_, *columns), _, *rows = table
    return {
        name: {column: float(cell.replace(",", "")) for column, cell in zip(columns, cells, strict=True) if cell}
        for name, *cells in rows
    }


def panels(page: str) -> dict[str, str]:
    """The panels of the page, by file name."""
    return {file: drawn(title, rows_of(page, heading), columns) for heading, file, title, columns in PANELS}


def _text(x: float, y: float, text: str, *, size: int = 11, anchor: str = "", bold: bool = False) -> str:
    attributes = (f' text-anchor="{anchor}"' if anchor else "") + (' font-weight="bold"' if bold else "")
    attributes += f' font-size="{size}"' if size != 11 else ""
    return f'<text x="{x:g}" y="{y:g}"{attributes}>{escape(text)}</text>'


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    for file, panel in panels(PAGE.read_text()).items():
        (PAGE.parent / file).write_text(panel)
