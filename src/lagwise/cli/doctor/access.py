"""Verdicts on the way to a node, and what is allowed there: privileges, poolers, addresses, clocks, round trips."""

from __future__ import annotations

from collections.abc import Iterator

from lagwise.cli.doctor.facts import Facts, Plan
from lagwise.cli.doctor.verdict import Level, Topic, Verdict
from lagwise.cli.doctor.words import seconds

_APART = 1.0  # seconds: NTP keeps machines within milliseconds
_FAR_APART = 60.0  # seconds: a commit in doubt is remembered a minute longer, because clocks differ
_SLOW = 0.05  # seconds


def privileges(facts: Facts) -> Iterator[Verdict]:
    """What the role in the URL lacks, and the GRANT."""
    access = facts.access
    if access is None:
        return
    found = list[Verdict]()
    if access.functions:
        what = f"The monitor cannot read this node: {access.role} may not execute {', '.join(access.functions)}."
        grants = " ".join(f"GRANT EXECUTE ON FUNCTION {one} TO {access.role};" for one in access.functions)
        found.append(Verdict(Level.FAULT, Topic.PRIVILEGES, facts.name, what, f"On the primary: {grants}"))
    if access.views:
        what = f"The monitor cannot read this node: {access.role} may not read {', '.join(access.views)}."
        grants = " ".join(f"GRANT SELECT ON {one} TO {access.role};" for one in access.views)
        found.append(Verdict(Level.FAULT, Topic.PRIVILEGES, facts.name, what, f"On the primary: {grants}"))
    if not access.stats:
        what = f"{access.role} may not see which timeline a replica follows: after a failover replicas stay out of "
        what += "rotation until their next restartpoint, five minutes by default."
        remedy = f"On the primary: GRANT pg_monitor TO {access.role};"
        found.append(Verdict(Level.FAULT, Topic.PRIVILEGES, facts.name, what, remedy))
    if facts.is_primary and not access.language:
        what = f"{access.role} may not use plpgsql: each write costs one round trip more, for its position."
        remedy = f"GRANT USAGE ON LANGUAGE plpgsql TO {access.role};"
        found.append(Verdict(Level.WARNING, Topic.PRIVILEGES, facts.name, what, remedy))
    yield from found
    if not found:
        what = f"{access.role} has what the monitor needs."
        yield Verdict(Level.OK, Topic.PRIVILEGES, facts.name, what)


def pooler(facts: Facts, plan: Plan) -> Iterator[Verdict]:
    """Whether a pooler is in between, and the application knows."""
    if facts.version is None:
        return
    if facts.pooler == "transaction":
        if plan.framed:
            what = 'A pooler in transaction mode stands before it, and pooling="transaction" suits it.'
            yield Verdict(Level.OK, Topic.POOLER, facts.name, what)
            return
        what = "A pooler in transaction mode stands before it: settings and prepared statements reach other clients."
        remedy = 'Say Router(..., pooling="transaction"), and --pooling transaction here; or name the server itself.'
        yield Verdict(Level.FAULT, Topic.POOLER, facts.name, what, remedy)
    elif plan.framed:
        what = 'No pooler in transaction mode stands before it, and pooling="transaction" costs round trips.'
        yield Verdict(Level.NOTE, Topic.POOLER, facts.name, what, 'Leave pooling="transaction" out, if this is so.')
    elif facts.pooler == "session":
        yield Verdict(Level.OK, Topic.POOLER, facts.name, "A pooler in session mode stands before it.")
    else:
        yield Verdict(Level.OK, Topic.POOLER, facts.name, "No pooler is in between.")


def address(facts: Facts) -> Iterator[Verdict]:
    """Whether one address is one server."""
    if not facts.servers:
        return
    if facts.connected < 2:
        what = "One connection alone could be had, so it is not known whether its address leads to one server."
        yield Verdict(Level.NOTE, Topic.ADDRESS, facts.name, what, "Ask again when the server is less full.")
        return
    if len(facts.servers) == 1:
        yield Verdict(Level.OK, Topic.ADDRESS, facts.name, f"{facts.connected} connections led to the same server.")
        return
    what = f"Its address leads to several servers: {len(facts.servers)} were seen. What one has replayed says nothing "
    what += "of another."
    remedy = "Give every server a name and a URL of its own, past the load balancer. (A restart just now looks alike: "
    remedy += "ask again.)"
    yield Verdict(Level.FAULT, Topic.ADDRESS, facts.name, what, remedy)


def clock(facts: Facts) -> Iterator[Verdict]:
    """Whether the node's clock and this machine's agree."""
    if facts.clock is None:
        return
    off = max(0.0, abs(facts.clock) - facts.clock_error)
    if off <= _APART:
        what = f"Its clock and this machine's agree within {seconds(abs(facts.clock) + facts.clock_error)}."
        yield Verdict(Level.OK, Topic.CLOCK, facts.name, what)
        return
    what = f"Its clock is {seconds(abs(facts.clock))} {'ahead of' if facts.clock > 0 else 'behind'} this machine's."
    remedy = (
        "Synchronise both by NTP (chrony, systemd-timesyncd). Positions do not depend on clocks; how long a client "
    )
    remedy += "remembers a commit in doubt does, between the application's machines: they may differ by a minute."
    level = Level.FAULT if off > _FAR_APART else Level.WARNING
    yield Verdict(level, Topic.CLOCK, facts.name, what, remedy)


def round_trip(facts: Facts) -> Iterator[Verdict]:
    """What each statement pays for the way."""
    if facts.round_trip is None:
        return
    what = f"A round trip takes {seconds(facts.round_trip)}."
    if facts.round_trip <= _SLOW:
        yield Verdict(Level.OK, Topic.ROUND_TRIP, facts.name, what)
        return
    remedy = "Each statement pays it: run the application near its replicas, and the doctor where the application runs."
    yield Verdict(Level.WARNING, Topic.ROUND_TRIP, facts.name, what, remedy)
