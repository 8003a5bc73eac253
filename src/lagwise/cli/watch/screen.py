"""A snapshot as tables: fewer columns in a narrow terminal, and nothing of a server's that a terminal would obey."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.box import SIMPLE
from rich.console import Group
from rich.table import Table
from rich.text import Text

from lagwise.cli.opening import clean
from lagwise.cli.watch.source import Snapshot
from lagwise.health.models import NodeHealth, PoolHealth

_STYLES = {"pass": "green", "warn": "yellow", "fail": "bold red"}
_NARROW, _WIDE = 66, 96  # columns of the terminal
_NODES, _POOLS, _NOTES, _REASONS = 64, 32, 8, 16  # the most that are shown
_BAR = 12

_T = TypeVar("_T")


def screen(found: Snapshot | None, trouble: str, age: float, width: int) -> Group:
    """What a terminal of this width shows. `trouble`: why there is nothing newer; `age` of `found` is in seconds."""
    lines: list[Text | Table] = []
    if trouble:
        since = f", the data is {_seconds(age)} old" if found is not None else ""
        lines.append(Text(f"{clean(trouble, 200)}{since}", style="bold red"))
    if found is None:
        return Group(*lines)
    lines.append(Text(f"{found.status}  {clean(found.summary, 200)}".rstrip(), style=_STYLES[found.status]))
    lines += [Text(f"- {clean(note, 200)}") for note in found.notes[:_NOTES]]
    lines.append(_nodes(found, width))
    if found.pools:
        lines.append(_pools(found, width))
    if found.routes is not None and found.routes.by_reason:
        lines.append(Text(_routes(found)))
    return Group(*lines)


def plain(found: Snapshot | None, trouble: str, age: float) -> Iterator[str]:
    """The same as lines, for a pipe: one for each node and each pool."""
    if trouble:
        yield clean(trouble, 200) + (f", the data is {_seconds(age)} old" if found is not None else "")
    if found is None:
        return
    yield f"{found.status} {clean(found.summary, 200)}".rstrip()
    yield from (f"- {clean(note, 200)}" for note in found.notes[:_NOTES])
    for name, node in _first(found.nodes.items(), _NODES):
        words = (node.standing, _behind(node) and f"{_behind(node)} behind", _place(node), clean(node.error or "", 40))
        yield f"{clean(name)}: {', '.join(filter(None, words))}"
    for name, roles in _first(found.pools.items(), _POOLS):
        for role, pool in _first(roles.items(), 2):
            waits = f"{pool.waits} waits, {pool.timeouts} timeouts"
            yield f"{clean(name)} {clean(role)}: {_used(pool)} connections, {waits}"
    if found.routes is not None and found.routes.by_reason:
        yield _routes(found)


def _nodes(found: Snapshot, width: int) -> Table:
    names = ["node", "standing", "behind"]
    if width >= _NARROW:
        names += ["bytes"]
    if width >= _WIDE:
        names += ["position", "timeline", "read"]
    if width >= _NARROW:
        names += ["error"]
    table = _table(names)
    for name, node in _first(found.nodes.items(), _NODES):
        cells = {
            "node": Text(clean(name, 24 if width >= _NARROW else 12)),
            "standing": Text(node.standing, style=_STYLES[node.status]),
            "behind": Text(_behind(node)),
            "bytes": Text("" if node.lag_bytes is None else str(node.lag_bytes)),
            "position": Text(clean(node.lsn or "", 20)),
            "timeline": Text("" if node.timeline is None else str(node.timeline)),
            "read": Text("" if node.reading_age is None else f"{_seconds(node.reading_age)} ago"),
            "error": Text(clean(node.error or "", 24)),
        }
        table.add_row(*(cells[name] for name in names))
    if len(found.nodes) > _NODES:
        table.add_row(Text(f"and {len(found.nodes) - _NODES} more"))
    return table


def _pools(found: Snapshot, width: int) -> Table:
    names = ["pool", "role", "in use"]
    if width >= _NARROW:
        names += ["", "waits", "timeouts"]
    if width >= _WIDE:
        names += ["opened", "longest held"]
    table = _table(names)
    for name, roles in _first(found.pools.items(), _POOLS):
        for role, pool in _first(roles.items(), 2):
            cells = [
                Text(clean(name, 24 if width >= _NARROW else 12)),
                Text(clean(role, 10)),
                Text(_used(pool), style="bold red" if (pool.utilisation or 0) >= 1 else ""),
                Text(_bar(pool)),
                Text(str(pool.waits)),
                Text(str(pool.timeouts)),
                Text(str(pool.opened)),
                Text(_seconds(max(pool.longest_held)) if pool.longest_held else ""),
            ]
            table.add_row(*cells[: len(names)])
    return table


def _table(names: list[str]) -> Table:
    table = Table(box=SIMPLE, pad_edge=False, show_edge=False)
    for name in names:
        table.add_column(name, no_wrap=name != "error", overflow="ellipsis")  # what may wrap gives way first
    return table


def _first(items: Iterable[tuple[str, _T]], most: int) -> Iterator[tuple[str, _T]]:
    return (each for each, _ in zip(items, range(most), strict=False))


def _behind(node: NodeHealth) -> str:
    """Seconds by which a replica is behind at most; nothing for the primary, and where that is not known."""
    return "" if node.standing == "primary" or node.staleness is None else _seconds(node.staleness)


def _place(node: NodeHealth) -> str:
    return "" if node.lsn is None else f"at {clean(node.lsn, 20)} on timeline {node.timeline}"


def _used(pool: PoolHealth) -> str:
    return str(pool.checked_out) if pool.capacity is None else f"{pool.checked_out} of {pool.capacity}"


def _bar(pool: PoolHealth) -> str:
    full = round(_BAR * min(1.0, max(0.0, pool.utilisation or 0.0)))
    return "#" * full + "." * (_BAR - full)


def _routes(found: Snapshot) -> str:
    assert found.routes is not None
    counts = sorted(found.routes.by_reason.items(), key=lambda each: -each[1])[:_REASONS]
    return f"the last {found.routes.seconds} s: " + ", ".join(f"{count} {clean(word)}" for word, count in counts)


def _seconds(value: float) -> str:
    return f"{value:.1f} s" if value < 100 else f"{value:.0f} s"
