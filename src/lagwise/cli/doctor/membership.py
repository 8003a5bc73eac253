"""Verdicts on which nodes make one cluster: roles, versions, system identifier, timeline."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from lagwise._decide.node import Reading, Role
from lagwise.cli.doctor.facts import Facts, Plan
from lagwise.cli.doctor.verdict import CLUSTER, Level, Topic, Verdict
from lagwise.cli.doctor.words import listed, version

_REBUILD = "stop it, run pg_rewind against the primary or take a new base backup, and let it follow the primary"


def system_of(nodes: Sequence[Facts]) -> int | None:
    """The system identifier that is ours: the configured primary's, or else the one that most nodes have."""
    read = [(facts, facts.reading) for facts in nodes if facts.reading is not None]
    for facts, reading in read:
        if facts.expected is Role.PRIMARY:
            return reading.system
    most = Counter(reading.system for _, reading in read).most_common(1)
    return most[0][0] if most else None


def members(nodes: Sequence[Facts]) -> list[tuple[Facts, Reading]]:
    """The nodes that answered and are of our cluster, each server once."""
    ours, seen = system_of(nodes), set[tuple[int, int, int]]()
    found = []
    for facts in nodes:
        reading = facts.reading
        if reading is None or reading.system != ours or (reading.server is not None and reading.server in seen):
            continue
        if reading.server is not None:
            seen.add(reading.server)
        found.append((facts, reading))
    return found


def leader(nodes: Sequence[Facts]) -> Facts | None:
    """The primary: of several the one on the highest timeline, if there is one alone."""
    primaries = [(facts, reading) for facts, reading in members(nodes) if reading.role is Role.PRIMARY]
    highest = max((reading.timeline for _, reading in primaries), default=0)
    leaders = [facts for facts, reading in primaries if reading.timeline == highest]
    return leaders[0] if len(leaders) == 1 else None


def roles(nodes: Sequence[Facts]) -> Iterator[Verdict]:
    """Whether each node is what it is configured as, and there is one primary."""
    ours = [facts for facts, _ in members(nodes)]
    primaries = [facts.name for facts in ours if facts.is_primary]
    for facts in ours:
        if facts.role is facts.expected:
            yield Verdict(Level.OK, Topic.ROLE, facts.name, f"It is a {facts.role}, as configured.")
        elif facts.is_replica:
            other = f"; {listed(primaries)} is the primary" if len(primaries) == 1 else ""
            remedy = f"Swap the URLs of {facts.name} and {primaries[0]}." if len(primaries) == 1 else "Check its URL."
            what = f"It is configured as the primary, and is a replica{other}."
            yield Verdict(Level.FAULT, Topic.ROLE, facts.name, what, f"{remedy} {_MEANWHILE}")
        else:
            what = "It is configured as a replica, and is a primary."
            remedy = "Swap its URL with that of the configured primary, or make it a replica again."
            yield Verdict(Level.FAULT, Topic.ROLE, facts.name, what, f"{remedy} {_MEANWHILE}")
    if len(primaries) > 1:
        lead = leader(nodes)
        others = [name for name in primaries if lead is not None and name != lead.name]
        what = f"{listed(primaries)} all say that they are the primary: what is written to one is missing on the other."
        remedy = (
            f"Stop {listed(others)}; {_REBUILD}." if others else "Stop all but one of them, and rebuild the others."
        )
        yield Verdict(Level.FAULT, Topic.ROLE, CLUSTER, what, remedy)
    elif not primaries and ours:
        yield _no_primary(nodes)
    yield from _second_names(nodes)


def _no_primary(nodes: Sequence[Facts]) -> Verdict:
    what = "No node that answers is a primary: writes fail with NoPrimary."
    silent = [facts.name for facts in nodes if facts.reading is None]
    follows = [facts.name for facts in nodes if facts.replay is not None and not facts.lacks_stream]
    if silent:
        remedy = f"Mend {listed(silent)} first, which may be the primary."
    elif follows:
        remedy = "Name the primary's URL."
    else:
        remedy = "Finish the failover (SELECT pg_promote() on one replica), or name the primary's URL."
        return Verdict(Level.FAULT, Topic.ROLE, CLUSTER, what, remedy)
    if follows:
        what += f" {listed(follows)} still {'receives' if len(follows) == 1 else 'receive'} the log of one."
    remedy += " Promote no replica while a primary may run: what is written to two of them cannot be joined again."
    return Verdict(Level.FAULT, Topic.ROLE, CLUSTER, what, remedy)


_MEANWHILE = "Until then lagwise routes by what the nodes say, and not by the configuration."


def _second_names(nodes: Sequence[Facts]) -> Iterator[Verdict]:
    names = dict[tuple[int, int, int], str]()
    for facts in nodes:
        server = facts.reading.server if facts.reading is not None else None
        if server is None:
            continue
        first = names.setdefault(server, facts.name)
        if first != facts.name:
            what = f"It leads to the same server as {first}, and is skipped."
            remedy = "Give it the URL of another server, unless this is meant, as in development."
            yield Verdict(Level.NOTE, Topic.ROLE, facts.name, what, remedy)


def versions(nodes: Sequence[Facts]) -> Iterator[Verdict]:
    """Whether the servers run the same PostgreSQL."""
    found = {facts.name: facts.version for facts, _ in members(nodes) if facts.version is not None}
    if not found:
        return
    shown = ", ".join(f"{name} {version(number)}" for name, number in found.items())
    if len({number // 10000 for number in found.values()}) > 1:
        remedy = "Streaming replication needs one major version: check the URLs, or finish the upgrade."
        yield Verdict(Level.FAULT, Topic.VERSION, CLUSTER, f"The major versions differ: {shown}.", remedy)
    elif len(set(found.values())) > 1:
        remedy = "Bring all servers to the same minor version, replicas first."
        yield Verdict(Level.WARNING, Topic.VERSION, CLUSTER, f"The minor versions differ: {shown}.", remedy)
    else:
        yield Verdict(Level.OK, Topic.VERSION, CLUSTER, f"All run PostgreSQL {version(next(iter(found.values())))}.")


def systems(nodes: Sequence[Facts]) -> Iterator[Verdict]:
    """Whether the nodes are one database cluster."""
    ours = system_of(nodes)
    for facts in nodes:
        if facts.reading is None:
            continue
        if facts.reading.system == ours:
            yield Verdict(Level.OK, Topic.SYSTEM, facts.name, f"Its system identifier is {ours}.")
            continue
        what = "It belongs to another database cluster: its system identifier is "
        what += f"{facts.reading.system}, and that of this cluster is {ours}."
        remedy = f'Check its URL, or build it anew from the primary. Router(system="{ours}") keeps strangers out.'
        yield Verdict(Level.FAULT, Topic.SYSTEM, facts.name, what, remedy)


def pin(nodes: Sequence[Facts], plan: Plan) -> Iterator[Verdict]:
    """Whether the system identifier that the application pins is that of the nodes."""
    ours = system_of(nodes)
    if not plan.system or ours is None:
        return
    if plan.system == ours:
        yield Verdict(Level.OK, Topic.SYSTEM, CLUSTER, "Its system identifier is the one that is pinned.")
        return
    what = f"system={plan.system} names another database cluster than that of the nodes, {ours}: every read and every "
    what += "write is refused."
    yield Verdict(Level.FAULT, Topic.SYSTEM, CLUSTER, what, "Correct system= (LAGWISE_SYSTEM), or the URLs.")


def databases(nodes: Sequence[Facts]) -> Iterator[Verdict]:
    """Whether every URL leads to the same database of the cluster. Names are left out: a URL has them."""
    found = [facts for facts, _ in members(nodes) if facts.database is not None]
    first = leader(nodes) or next(iter(found), None)
    for facts in found:
        if first is None or facts.database == first.database:
            yield Verdict(Level.OK, Topic.DATABASE, facts.name, "Its URL leads to the database that all have.")
            continue
        what = f"Its URL leads to another database than that of {first.name}: nothing is read from it."
        yield Verdict(Level.FAULT, Topic.DATABASE, facts.name, what, "Check the database in its URL, or at its pooler.")


def timelines(nodes: Sequence[Facts]) -> Iterator[Verdict]:
    """Whether every node is on the primary's line of history."""
    lead = leader(nodes)
    if lead is None or lead.reading is None:
        return
    timeline = lead.reading.timeline
    for facts, reading in members(nodes):
        if reading.timeline == timeline:
            yield Verdict(Level.OK, Topic.TIMELINE, facts.name, f"It is on timeline {timeline}.")
        elif reading.timeline > timeline:
            what = f"It is on timeline {reading.timeline}, and {lead.name} writes on {timeline}: there was a promotion."
            remedy = f"Find the primary of timeline {reading.timeline} and name its URL; {lead.name}: {_REBUILD}."
            yield Verdict(Level.FAULT, Topic.TIMELINE, facts.name, what, remedy)
        elif facts.is_replica and facts.access is not None and not facts.access.stats:
            what = f"Its control file says timeline {reading.timeline}, and the primary is on {timeline}."
            remedy = f"It may be late by a restartpoint: GRANT pg_monitor TO {facts.access.role}; and ask again."
            yield Verdict(Level.WARNING, Topic.TIMELINE, facts.name, what, remedy)
        else:
            what = f"It is on timeline {reading.timeline}, and the primary on {timeline}: it was left behind by a "
            what += "promotion."
            remedy = f"{_REBUILD[0].upper()}{_REBUILD[1:]}. Until then nothing is read from it."
            yield Verdict(Level.FAULT, Topic.TIMELINE, facts.name, what, remedy)
