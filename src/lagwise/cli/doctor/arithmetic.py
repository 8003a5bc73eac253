"""The arithmetic of pools: how many connections an application may open, and how many each server has for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from lagwise.cli.doctor.facts import Facts, Plan
from lagwise.cli.doctor.verdict import Level, Topic, Verdict
from lagwise.cli.doctor.words import count

_RESERVE, _MONITOR = 1, 1  # a pool's connection beyond its size; one connection for the monitor in each process


def needed(plan: Plan, pools: int) -> int:
    """The connections that all processes may open to a node with this many pools: two to write and read, one to read.

    >>> needed(Plan(workers=4, pool_size=20), 2), needed(Plan(workers=4, pool_size=20), 1)
    (172, 88)
    """
    return plan.workers * (pools * (plan.pool_size + plan.max_overflow + _RESERVE) + _MONITOR)


def largest(plan: Plan, room: int, pools: int = 2) -> int:
    """The largest `pool_size` for which `needed` is no more than `room`; below 1 where there is none.

    >>> largest(Plan(workers=4), 97)
    10
    """
    return (room // plan.workers - _MONITOR) // pools - _RESERVE - plan.max_overflow


@dataclass(frozen=True, slots=True)
class Room:
    """The connections that a server has for this application, and why no more."""

    free: int
    why: str


def room(facts: Facts) -> Room | None:
    """What a server has for this application: its own connections that are open already are part of it."""
    used = facts.connections
    if used is None or "max_connections" not in facts.settings:
        return None
    most = facts.number("max_connections")
    reserved = facts.number("superuser_reserved_connections") + facts.number("reserved_connections")
    why = f"max_connections {most}, less {reserved} reserved and {used.others} in use by others"
    free = most - reserved - used.others
    for limit, of in ((used.role_limit, "its role"), (used.database_limit, "its database")):
        if 0 <= limit < free:
            free, why = limit, f"the CONNECTION LIMIT of {of}"
    return Room(max(0, free), why)


def pools(facts: Facts, plan: Plan) -> Iterator[Verdict]:
    """Whether all processes with full pools fit a node: in its role, and when it is made primary."""
    found = room(facts)
    if found is None or facts.role is None:
        return
    sizes = f"{count(plan.workers, 'worker')} with pool_size {plan.pool_size} and max_overflow {plan.max_overflow}"
    if plan.unbounded:
        what = f"{sizes} has no limit: as many connections are opened as there are sessions at a time, and it has "
        what += f"{found.free} ({found.why})."
        remedy = f"{_fitting(largest(replace(plan, max_overflow=0), found.free))} Set max_overflow to 0."
        yield Verdict(Level.FAULT, Topic.POOLS, facts.name, what, remedy)
        return
    if facts.pooler is not None:
        what = f"{sizes} open up to {needed(plan, 2)} connections to the pooler; the server has {found.free}."
        remedy = "max_client_conn of the pooler must be above the first, its default_pool_size below the second."
        yield Verdict(Level.NOTE, Topic.POOLS, facts.name, what, remedy)
        return
    now = needed(plan, 2 if facts.is_primary else 1)
    later = needed(plan, 2)
    has = f"and it has {found.free} ({found.why})"
    if now > found.free:
        what = f"{sizes} may open {now} connections to it as {facts.role}, {has}: sessions will fail."
        yield Verdict(Level.FAULT, Topic.POOLS, facts.name, what, _suggestion(facts, plan, found))
    elif later > found.free:
        what = f"{sizes} may open {now} connections to it, {has}; after a failover to it, {later}."
        yield Verdict(Level.WARNING, Topic.POOLS, facts.name, what, _suggestion(facts, plan, found))
    else:
        what = f"{sizes} may open {later} connections to it, also as primary after a failover, {has}."
        yield Verdict(Level.OK, Topic.POOLS, facts.name, what)


def _suggestion(facts: Facts, plan: Plan, found: Room) -> str:
    smaller, short = largest(plan, found.free), needed(plan, 2) - found.free
    first = _fitting(smaller)
    if found.why.startswith("max_connections"):
        most = facts.number("max_connections") + short
        return f"{first} Or set max_connections = {most}, on replicas first; or use PgBouncer."
    return f"{first} Or raise {found.why} by {short}."


def _fitting(size: int) -> str:
    if size < 1:
        return "No pool_size fits: run fewer workers."
    return f"pool_size={size} fits, also after a failover."
