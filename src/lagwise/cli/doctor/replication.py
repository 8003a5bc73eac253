"""Verdicts on streaming: receivers, replay, lag, slots and the log they keep."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import inf

from lagwise.cli.doctor.facts import Facts, Plan, Receiver, Slot
from lagwise.cli.doctor.membership import leader, members
from lagwise.cli.doctor.verdict import Level, Topic, Verdict
from lagwise.cli.doctor.words import count, seconds, size

_QUIET = 60.0  # seconds: PostgreSQL's default for wal_receiver_timeout, after which a receiver gives up


def streaming(facts: Facts, plan: Plan) -> Iterator[Verdict]:
    """Whether a replica receives the log, and applies it."""
    if not facts.is_replica or facts.replay is None:
        return
    name, replay = facts.name, facts.replay
    if replay.receiver is None:
        what = "It does not stream: it has no WAL receiver, so it shows an ever older state."
        yield Verdict(Level.FAULT, Topic.STREAMING, name, what, _REMEDY)
    else:
        yield _receiver(facts, replay.receiver)
    if replay.paused:
        what = "Replay is paused: it receives the log, and shows nothing new."
        yield Verdict(Level.FAULT, Topic.STREAMING, name, what, "SELECT pg_wal_replay_resume(); on this node.")
    delay = facts.number("recovery_min_apply_delay") / 1000
    if delay > 0:
        late = delay >= plan.max_lag
        what = f"recovery_min_apply_delay holds each commit back for {seconds(delay)}"
        what += f": it never is within max_lag ({seconds(plan.max_lag)}), and serves no reads." if late else "."
        remedy = "ALTER SYSTEM RESET recovery_min_apply_delay; on this node, or do not configure it for reads."
        yield Verdict(Level.FAULT if late else Level.WARNING, Topic.STREAMING, name, what, remedy)


_REMEDY = (
    "Look into its log; check primary_conninfo and primary_slot_name there, the network to its upstream, "
    "max_wal_senders, and that the upstream still has the log it needs; otherwise take a new base backup."
)


def _receiver(facts: Facts, receiver: Receiver) -> Verdict:
    name = facts.name
    limit = facts.number("wal_receiver_timeout") / 1000
    quiet = max(_QUIET, limit) if limit else inf  # without a limit, an upstream may have nothing to say
    if receiver.status is None:
        what = "It has a WAL receiver, whose state this role may not see."
        return Verdict(Level.NOTE, Topic.STREAMING, name, what, "See the verdict on privileges.")
    if receiver.status != "streaming":
        what = f'Its WAL receiver is "{receiver.status}", and did not stream while the doctor waited.'
        return Verdict(Level.FAULT, Topic.STREAMING, name, what, _REMEDY)
    if receiver.silent is not None and receiver.silent > quiet:
        what = f"Its WAL receiver has heard nothing from its upstream for {seconds(receiver.silent)}."
        return Verdict(Level.FAULT, Topic.STREAMING, name, what, _REMEDY)
    return Verdict(Level.OK, Topic.STREAMING, name, "It streams.")


def senders(nodes: Sequence[Facts]) -> Iterator[Verdict]:
    """Whether the primary sends to as many as say that they receive."""
    lead = leader(nodes)
    if lead is None or lead.senders is None:
        return
    receiving = [facts for facts, _ in members(nodes) if facts.replay is not None and facts.replay.receiver is not None]
    found = lead.senders
    if found.hidden:
        what = f"It sends to {count(found.all, 'replica')}, whose state this role may not see."
        yield Verdict(Level.NOTE, Topic.STREAMING, lead.name, what, "See the verdict on privileges.")
    elif found.streaming < len(receiving):
        what = f"It streams to {count(found.streaming, 'replica')}, and of those named here {len(receiving)} receive."
        remedy = "Fine where replicas follow other replicas; otherwise ask again, and see pg_stat_replication."
        yield Verdict(Level.NOTE, Topic.STREAMING, lead.name, what, remedy)
    else:
        yield Verdict(Level.OK, Topic.STREAMING, lead.name, f"It streams to {count(found.streaming, 'replica')}.")


def lags(facts: Facts, plan: Plan) -> Iterator[Verdict]:
    """How far a replica is behind."""
    lag = facts.lag
    if lag is None:
        return
    if lag.caught_up:
        behind = f"{size(lag.bytes)} behind, and caught up after {seconds(lag.seconds or 0)}" if lag.bytes else ""
        what = f"It was {behind}." if behind else "It has replayed all that the primary had."
        yield Verdict(Level.OK, Topic.LAG, facts.name, what)
        return
    late = lag.seconds is not None and lag.seconds > plan.max_lag
    time = f", {seconds(lag.seconds)} at most" if lag.seconds is not None else ""
    what = f"It is {size(lag.bytes)} behind the primary{time}, and did not catch up while the doctor waited."
    what += f" Beyond max_lag ({seconds(plan.max_lag)}) no reads go there." if late else ""
    remedy = "See the verdicts on streaming; else look for long queries on the replica that hold replay back, for a "
    remedy += "disk or a network that is too slow, and for bulk writes on the primary."
    yield Verdict(Level.FAULT if late else Level.WARNING, Topic.LAG, facts.name, what, remedy)


def slots(facts: Facts) -> Iterator[Verdict]:
    """Whether slots keep what replicas need, and no more than the disk holds."""
    if facts.slots is None:
        return
    found = [verdict for slot in facts.slots if (verdict := _slot(facts, slot)) is not None]
    yield from found
    if not found:
        what = f"Its slots ({len(facts.slots)}) are in use." if facts.slots else "It has no slots."
        yield Verdict(Level.OK, Topic.SLOTS, facts.name, what)
    receiver = facts.replay.receiver if facts.replay is not None else None
    if receiver is not None and receiver.status is not None and not receiver.slot and not facts.number("wal_keep_size"):
        what = "It streams without a slot, and wal_keep_size is 0: a pause may cost it the log it needs."
        remedy = "Give it a slot (primary_slot_name), or set wal_keep_size on every node."
        yield Verdict(Level.WARNING, Topic.SLOTS, facts.name, what, remedy)


def _slot(facts: Facts, slot: Slot) -> Verdict | None:
    drop = f"SELECT pg_drop_replication_slot('{slot.name}');"
    if slot.status == "lost":
        what = f"Slot {slot.name} has lost log that its replica needs: that replica cannot go on."
        return Verdict(Level.FAULT, Topic.SLOTS, facts.name, what, f"{drop} then take a new base backup.")
    if slot.status == "unreserved":
        what = f"Slot {slot.name} is beyond max_slot_wal_keep_size: the next checkpoint removes log that it needs."
        remedy = "Let its replica catch up at once, or raise max_slot_wal_keep_size and reload."
        return Verdict(Level.FAULT, Topic.SLOTS, facts.name, what, remedy)
    if slot.active:
        return None
    kept = f" It keeps {size(slot.kept)} of log." if slot.kept is not None and slot.kept > 0 else ""
    protects = " A max_slot_wal_keep_size protects the primary's disk."
    if facts.number("max_slot_wal_keep_size", -1) < 0:
        bound = " max_slot_wal_keep_size is -1, so it keeps log until the disk is full."
    else:
        left = f" Up to {size(slot.safe)} more may be written." if slot.safe is not None else ""
        bound = f" max_slot_wal_keep_size bounds what it keeps.{left}"
        protects = ""
    what = f"Slot {slot.name} is used by nothing.{kept}{bound}"
    if not facts.is_primary:
        remedy = f"Fine where a failover tool keeps it up to date; otherwise, on this node: {drop}"
        return Verdict(Level.NOTE, Topic.SLOTS, facts.name, what, remedy)
    remedy = f"Start the replica that it belongs to, or: {drop}{protects}"
    return Verdict(Level.WARNING, Topic.SLOTS, facts.name, what, remedy)
