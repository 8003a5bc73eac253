"""What the demo shows: live tables for people, plain lines for pipes, one JSON object for scripts; the verdict."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from rich.box import SIMPLE
from rich.console import Group
from rich.table import Table
from rich.text import Text

from lagwise.cli.demo.stage import DELAYS
from lagwise.cli.demo.traffic import THINK, Score, quantile
from lagwise.health import Nodes

NOTE = (
    "Half of the clients create an item, read it back and look around; the others only look. Before each request\n"
    f"they think for {THINK:g} s on average (exponential). Stale: 404 for an item that the same client has created.\n"
    "Others' items may be as old as the policy allows (max_lag, 5 s). What a node is, its server says.\n"
    "lagwise's p95 has the waits in it: a read that follows a write closely gives the replicas 50 ms (catch_up)."
)


class Ruling(NamedTuple):
    """Whether the demo showed what it claims, and the sentence that says so."""

    passed: bool
    words: str


def verdict(naive: Score, lagwise: Score) -> Ruling:
    """Passed when lagwise missed nothing where the naive split did; failed requests prove nothing."""
    if lagwise.stale:
        return Ruling(False, f"lagwise missed {lagwise.stale} of {lagwise.own_reads} own items. It promises 0: a bug.")
    if lagwise.errors:
        return Ruling(False, f"{lagwise.errors} requests failed through lagwise, so nothing is shown.")
    if not naive.stale:
        return Ruling(False, "The naive split missed nothing, so nothing is shown. Give it longer: --seconds.")
    if not lagwise.own_reads:
        return Ruling(False, "No client read back its own item through lagwise. Give it longer: --seconds.")
    return Ruling(
        True,
        f"The naive split missed {naive.stale} of {naive.own_reads} own items; "
        f"lagwise missed none of {lagwise.own_reads}, with {_share(lagwise.on_replica, lagwise.reads)} "
        "of all reads on replicas.",
    )


def tables(naive: Score, lagwise: Score, nodes: Nodes, title: str) -> Group:
    """Both phases side by side, and where each node is."""
    # As Text: "lagwise[embedded]" is no markup.
    counts = Table(title=Text(title), title_justify="left", title_style="bold", box=SIMPLE, pad_edge=False)
    counts.add_column("")
    for name in ("naive split", "lagwise"):
        counts.add_column(name, justify="right", min_width=16)
    for label, cell in _ROWS:
        counts.add_row(label, *(cell(tally) if tally.requests else "" for tally in (naive, lagwise)))
    return Group(counts, _nodes(naive, lagwise, nodes))


def line(name: str, tally: Score, seconds: float) -> str:
    """One line on the progress of a phase, for output without a terminal."""
    return (
        f"{name:<12} {seconds:4.1f} s  {tally.requests} requests, "
        f"{tally.stale} stale of {tally.own_reads} reads of own items, "
        f"{_share(tally.on_replica, tally.reads)} of reads on replicas, p50 {_ms(quantile(tally.read_times, 0.5))}"
    )


def as_json(naive: Score, lagwise: Score, nodes: Nodes) -> dict[str, Any]:
    """Everything, for scripts; times in milliseconds, shares between 0 and 1."""
    ruling = verdict(naive, lagwise)
    kept = {"standing", "role", "lsn", "staleness", "lag_bytes"}
    return {
        "passed": ruling.passed,
        "verdict": ruling.words,
        "naive": _tally_json(naive),
        "lagwise": _tally_json(lagwise),
        "nodes": {
            name: {**node.model_dump(mode="json", include=kept), "apply_delay": DELAYS.get(name)}
            for name, node in nodes.nodes.items()
        },
    }


def _tally_json(tally: Score) -> dict[str, Any]:
    return {
        "requests": tally.requests,
        "writes": tally.writes,
        "reads": tally.reads,
        "own_reads": tally.own_reads,
        "stale": tally.stale,
        "others_missing": tally.other_missing,
        "errors": tally.errors,
        "replica_share": round(tally.on_replica / tally.reads, 4) if tally.reads else 0.0,
        "reads_by_node": dict(sorted(tally.by_node.items())),
        "read_p50_ms": round(quantile(tally.read_times, 0.5) * 1000, 3),
        "read_p95_ms": round(quantile(tally.read_times, 0.95) * 1000, 3),
        "write_p50_ms": round(quantile(tally.write_times, 0.5) * 1000, 3),
    }


def _nodes(naive: Score, lagwise: Score, nodes: Nodes) -> Table:
    title = "Nodes, and the share of reads they served"
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE, pad_edge=False)
    for column in ("node", "standing", "LSN"):
        table.add_column(column, no_wrap=True)
    for column in ("delay", "staleness", "naive", "lagwise"):
        table.add_column(column, justify="right", no_wrap=True)
    for name, node in nodes.nodes.items():
        table.add_row(
            name,
            node.standing,
            node.lsn or "",
            f"{DELAYS[name]:g} s" if name in DELAYS else "",
            f"{node.staleness:.2f} s" if node.staleness is not None and node.role == "replica" else "",
            *(_share(tally.by_node[name], tally.reads) for tally in (naive, lagwise)),
        )
    return table


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.0%}" if whole else "-"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"


def _of(part: int, whole: int) -> str:
    return f"{part} of {whole}"


_ROWS: tuple[tuple[str, Callable[[Score], str]], ...] = (
    ("requests", lambda tally: str(tally.requests)),
    ("stale reads of own items", lambda tally: _of(tally.stale, tally.own_reads)),
    ("others' items not there yet", lambda tally: _of(tally.other_missing, tally.other_reads)),
    ("reads on replicas", lambda tally: _share(tally.on_replica, tally.reads)),
    ("read p50", lambda tally: _ms(quantile(tally.read_times, 0.5))),
    ("read p95", lambda tally: _ms(quantile(tally.read_times, 0.95))),
    ("write p50", lambda tally: _ms(quantile(tally.write_times, 0.5))),
    ("failed requests", lambda tally: str(tally.errors)),
)
