"""All verdicts on all nodes, the worst first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lagwise.cli.doctor import access, membership, replication, settings
from lagwise.cli.doctor.arithmetic import pools
from lagwise.cli.doctor.facts import Facts, Plan
from lagwise.cli.doctor.reach import reachable, unanswered
from lagwise.cli.doctor.verdict import Level, Verdict


def diagnose(nodes: Sequence[Facts], plan: Plan) -> list[Verdict]:
    """What is to be said of these nodes: the worst first, and in the order of the nodes."""
    return sorted(_all(nodes, plan), key=lambda verdict: verdict.level.order)


def healthy(verdicts: Sequence[Verdict]) -> bool:
    """Whether there is no fault; warnings are allowed."""
    return all(verdict.level is not Level.FAULT for verdict in verdicts)


def _all(nodes: Sequence[Facts], plan: Plan) -> Iterator[Verdict]:
    for facts in nodes:
        yield from reachable(facts)
    for of_all in (
        membership.roles, membership.systems, membership.timelines, membership.databases, membership.versions,
        replication.senders,
    ):  # fmt: skip
        yield from of_all(nodes)
    yield from membership.pin(nodes, plan)
    ours = {facts.name for facts, _ in membership.members(nodes)}
    for facts in nodes:
        if facts.reading is not None and facts.name not in ours:
            continue  # of another cluster, or another name of a server that was judged: its settings are not ours
        yield from _one(facts, plan)
    for facts in nodes:
        yield from unanswered(facts)


def _one(facts: Facts, plan: Plan) -> Iterator[Verdict]:
    for of_one in (
        access.privileges, access.address, access.clock, access.round_trip, replication.slots, settings.feedback,
        settings.commits, settings.wal_level, settings.read_only, settings.unlogged, settings.statements,
    ):  # fmt: skip
        yield from of_one(facts)
    for planned in (replication.streaming, replication.lags, settings.delay, access.pooler, pools):
        yield from planned(facts, plan)
