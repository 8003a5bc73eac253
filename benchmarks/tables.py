"""What a scenario hands back: tables of figures, which are printed, written as JSON and drawn."""

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Table:
    """One table. `key` names it for the plot and the JSON; each row is a name and a figure for each column."""

    key: str
    title: str
    columns: tuple[str, ...]
    rows: dict[str, dict[str, float]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        wide = max([len(name) for name in self.rows] + [20])
        lines = [self.title, f"  {'':{wide}} " + " ".join(f"{column:>12}" for column in self.columns)]
        for name, figures in self.rows.items():
            cells = (f"{figures[c]:12.4g}" if c in figures else f"{'-':>12}" for c in self.columns)
            lines.append(f"  {name:{wide}} " + " ".join(cells))
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])
