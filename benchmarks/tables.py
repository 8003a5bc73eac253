"""What a scenario hands back: tables of figures, which are printed, written as JSON and drawn."""

from dataclasses import asdict, dataclass, field
from typing import Any

_NARROWEST = 8  # characters of a column


@dataclass(frozen=True, slots=True)
class Table:
    """One table. `key` names it for the plot and the JSON; each row is a name and a figure for each column."""

    key: str
    title: str
    columns: tuple[str, ...]
    rows: dict[str, dict[str, float]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    drawn: tuple[str, ...] = ()
    """The columns that the plot shows, of one unit; without any, the first."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        wide = max([len(name) for name in self.rows] + [20])
        widths = {column: max(len(column), _NARROWEST) for column in self.columns}
        lines = [self.title, f"  {'':{wide}}  " + "  ".join(f"{column:>{widths[column]}}" for column in self.columns)]
        for name, figures in self.rows.items():
            cells = (f"{_figure(figures.get(column)):>{widths[column]}}" for column in self.columns)
            lines.append(f"  {name:{wide}}  " + "  ".join(cells))
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])


def _figure(value: float | None) -> str:
    """Four digits, and never an exponent where people compare columns.

    >>> _figure(12345.6), _figure(0.98765), _figure(None)
    ('12346', '0.9877', '-')
    """
    if value is None:
        return "-"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"
