"""Draws the tables: one panel of bars for each, so that who is beside whom is seen at a glance."""

from importlib import import_module
from pathlib import Path
from textwrap import fill
from typing import Any

from benchmarks.contestants import RECIPE
from benchmarks.tables import Table

# Told apart by colour-blind eyes as well: https://jfly.uni-koeln.de/color/
OURS, REFERENCE, OTHERS = "#d55e00", "#0072b2", "#8c8c8c"
FADING = 0.35  # how much lighter each further column of a row is
TITLE = 75  # characters of a line
ROW, FRAME, WIDTH = 0.26, 1.1, 10.0  # inches


def draw(tables: list[Table], file: Path) -> None:
    """Write the picture; the ending of the file's name says which kind. Needs matplotlib."""
    mpl = import_module("matplotlib")  # here, because only this needs it
    mpl.use("agg")
    # Text stays text, and the same figures make the same file.
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "lagwise", "font.size": 9})
    shown = [table for table in tables if table.rows]
    if not shown:
        return
    heights = [FRAME + ROW * len(table.rows) * max(1, len(columns(table)) * 0.7) for table in shown]
    figure = import_module("matplotlib.figure").Figure(figsize=(WIDTH, sum(heights)), layout="constrained")
    panels = figure.subplots(len(shown), 1, squeeze=False, gridspec_kw={"height_ratios": heights})
    for table, axes in zip(shown, panels[:, 0], strict=True):
        panel(axes, table)
    kind: dict[str, Any] = {"metadata": {"Date": None}} if file.suffix == ".svg" else {"dpi": 150}
    figure.savefig(file, **kind)


def columns(table: Table) -> tuple[str, ...]:
    """What is drawn of a table."""
    return table.drawn or table.columns[:1]


def panel(axes: Any, table: Table) -> None:
    """The bars of one table: a group for each row, a bar for each column, its figure at its end."""
    names, drawn = list(table.rows), columns(table)
    thick = 0.8 / len(drawn)
    for number, column in enumerate(drawn):
        places = [row + (number - (len(drawn) - 1) / 2) * thick for row in range(len(names))]
        lengths = [table.rows[name].get(column, 0.0) for name in names]
        bars = axes.barh(places, lengths, height=thick * 0.92, alpha=1 - FADING * number / max(1, len(drawn) - 1))
        for bar, name in zip(bars, names, strict=True):
            bar.set_color(colour(name, drawn, column))
        axes.bar_label(bars, labels=[f"{length:.3g}" if length < 1000 else f"{length:,.0f}" for length in lengths],
                       padding=3, fontsize=7)  # fmt: skip
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.margins(x=0.1)
    axes.set_title(fill(table.title, TITLE), loc="left", fontsize=10)
    axes.set_xlabel(" · ".join(drawn) if len(drawn) > 1 else drawn[0], fontsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def colour(row: str, drawn: tuple[str, ...], column: str) -> str:
    """Ours, the reference, or anybody else. Where the rows are sizes, the columns may be contestants."""
    if row.startswith("lagwise") or ("lagwise" in drawn and column == "lagwise"):
        return OURS
    return REFERENCE if row == RECIPE else OTHERS
