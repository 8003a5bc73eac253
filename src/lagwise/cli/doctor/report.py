"""The verdicts as tables for people, and as one JSON object for scripts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from rich.box import SIMPLE
from rich.console import Console, Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from lagwise.cli.doctor.diagnose import healthy
from lagwise.cli.doctor.facts import Facts
from lagwise.cli.doctor.verdict import Level, Verdict
from lagwise.cli.doctor.words import count, seconds, size, version

FORMAT = 1
"""The number of the JSON's layout: it grows when a name in it goes, or changes its meaning."""
_STYLES = {Level.FAULT: "bold red", Level.WARNING: "yellow", Level.NOTE: "cyan", Level.OK: "green"}
_NARROWEST, _WIDEST = 80, 110  # columns: the table of nodes is no narrower, and no longer line is read with ease


def show(nodes: Sequence[Facts], verdicts: Sequence[Verdict], *, everything: bool) -> None:
    """Print the nodes, the verdicts and the sum of them; what is in order only with `everything`."""
    console = Console(highlight=False, markup=False, emoji=False)
    console.width = min(max(console.width, _NARROWEST), _WIDEST)
    console.print(_nodes(nodes))
    for verdict in together(verdicts):
        if everything or verdict.level is not Level.OK:
            console.print(_verdict(verdict))
            console.print()
    console.print(Text(summary(verdicts), style=_STYLES[Level.OK if healthy(verdicts) else Level.FAULT]))


def together(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Verdicts that say the same of several nodes as one, with all their names."""
    found = dict[Verdict, list[str]]()
    for verdict in verdicts:
        found.setdefault(replace(verdict, subject=""), []).append(verdict.subject)
    return [replace(verdict, subject=", ".join(names)) for verdict, names in found.items()]


def summary(verdicts: Sequence[Verdict]) -> str:
    """The last line."""
    found = Counter(verdict.level for verdict in verdicts)
    counts = [count(found[level], str(level)) for level in (Level.FAULT, Level.WARNING, Level.NOTE) if found[level]]
    end = f"{', '.join(counts) or 'nothing to report'}; {found[Level.OK]} in order"
    return f"{'Healthy' if healthy(verdicts) else 'Not healthy'}: {end}."


def as_json(nodes: Sequence[Facts], verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Everything, for scripts: seconds and bytes; what is not known is null."""
    found = Counter(verdict.level for verdict in verdicts)
    return {
        "format": FORMAT,
        "healthy": healthy(verdicts),
        "counts": {str(level): found[level] for level in Level},
        "nodes": [_node(facts) for facts in nodes],
        "verdicts": [
            {
                "level": str(verdict.level),
                "topic": str(verdict.topic),
                "subject": verdict.subject,
                "what": verdict.what,
                "remedy": verdict.remedy or None,
            }
            for verdict in verdicts
        ],
    }


def _node(facts: Facts) -> dict[str, Any]:
    reading, used, lag = facts.reading, facts.connections, facts.lag
    return {
        "name": facts.name,
        "configured": str(facts.expected),
        "reachable": facts.cause is None,
        "cause": None if facts.cause is None else str(facts.cause.kind),
        "role": None if reading is None else str(reading.role),
        "version": None if facts.version is None else version(facts.version),
        "system": None if reading is None else str(reading.system),
        "timeline": None if reading is None else reading.timeline,
        "lsn": None if reading is None else str(reading.lsn),
        "lag_bytes": None if lag is None else lag.bytes,
        "lag_seconds": None if lag is None or lag.seconds is None else round(lag.seconds, 3),
        "round_trip": None if facts.round_trip is None else round(facts.round_trip, 6),
        "clock_difference": None if facts.clock is None else round(facts.clock, 6),
        "max_connections": facts.number("max_connections") if "max_connections" in facts.settings else None,
        "connections": None if used is None else {"own": used.own, "others": used.others},
    }


def _nodes(nodes: Sequence[Facts]) -> Table:
    table = Table(box=SIMPLE, pad_edge=False)
    for column in ("node", "role", "version", "timeline"):
        table.add_column(column, no_wrap=True)
    for column in ("lag", "round trip", "clients"):
        table.add_column(column, justify="right", no_wrap=True)
    for facts in nodes:
        table.add_row(Text(facts.name), *(Text(cell) for cell in _cells(facts)))
    return table


def _cells(facts: Facts) -> list[str]:
    reading, used, lag = facts.reading, facts.connections, facts.lag
    behind = "" if lag is None else "none" if not lag.bytes else size(lag.bytes)
    return [
        str(facts.role or "?"),
        version(facts.version) if facts.version is not None else "",
        str(reading.timeline) if reading is not None else "",
        behind,
        seconds(facts.round_trip) if facts.round_trip is not None else "",
        f"{used.own + used.others} of {facts.settings['max_connections']}" if used is not None else "",
    ]


def _verdict(verdict: Verdict) -> Group:
    head = Text.assemble(
        (f"{verdict.level:<8} ", _STYLES[verdict.level]), (verdict.subject, "bold"), f"  {verdict.topic}"
    )
    said = [verdict.what, f"-> {verdict.remedy}"] if verdict.remedy else [verdict.what]
    return Group(head, *(Padding(Text(words), (0, 0, 0, 2)) for words in said))
