"""Verdicts on the servers' settings that decide what reads and commits may rely on."""

from __future__ import annotations

from collections.abc import Iterator

from lagwise.cli.doctor.facts import Facts, Plan
from lagwise.cli.doctor.verdict import Level, Topic, Verdict
from lagwise.cli.doctor.words import seconds


def feedback(facts: Facts) -> Iterator[Verdict]:
    """Whether the primary's vacuum spares what a replica's queries still see."""
    if not facts.is_replica or (value := facts.settings.get("hot_standby_feedback")) is None:
        return
    if value == "on":
        yield Verdict(Level.OK, Topic.FEEDBACK, facts.name, "hot_standby_feedback is on.")
        return
    what = "hot_standby_feedback is off: vacuum on the primary may cancel reads here (lagwise runs them elsewhere)."
    remedy = "ALTER SYSTEM SET hot_standby_feedback = on; where reads are long. The price is bloat on the primary."
    yield Verdict(Level.NOTE, Topic.FEEDBACK, facts.name, what, remedy)


def delay(facts: Facts, plan: Plan) -> Iterator[Verdict]:
    """How long a read may hold replay back."""
    if not facts.is_replica or "max_standby_streaming_delay" not in facts.settings:
        return
    milliseconds = facts.number("max_standby_streaming_delay")
    name, bound = facts.name, seconds(milliseconds / 1000)
    if milliseconds < 0:
        what = "max_standby_streaming_delay is -1: one long read holds replay back for as long as it runs."
        remedy = "ALTER SYSTEM SET max_standby_streaming_delay = '30s'; or less, and SELECT pg_reload_conf();"
        yield Verdict(Level.WARNING, Topic.DELAY, name, what, remedy)
    elif milliseconds / 1000 > plan.max_lag:
        what = f"max_standby_streaming_delay is {bound}, above max_lag ({seconds(plan.max_lag)}): while a long read "
        what += "holds replay back, other reads go elsewhere."
        remedy = "Set it to max_lag or less, if long reads may be cancelled; or switch hot_standby_feedback on."
        yield Verdict(Level.NOTE, Topic.DELAY, name, what, remedy)
    else:
        yield Verdict(Level.OK, Topic.DELAY, name, f"max_standby_streaming_delay is {bound}.")


def commits(facts: Facts) -> Iterator[Verdict]:
    """What a commit on the primary waits for."""
    if not facts.is_primary or (value := facts.settings.get("synchronous_commit")) is None:
        return
    waits = bool(facts.settings.get("synchronous_standby_names"))
    if value == "off":
        what = "synchronous_commit is off: a crash loses commits that were acknowledged, and tokens with them."
        remedy = "Switch it on; SET LOCAL synchronous_commit = off is for the transactions that may be lost."
        yield Verdict(Level.WARNING, Topic.COMMIT, facts.name, what, remedy)
    elif value == "remote_apply" and waits:
        what = "synchronous_commit is remote_apply: each commit waits until the synchronous replicas show it, and "
        what += "for as long as they are away."
        remedy = "lagwise does not need it: reads that follow a write wait for their replica by themselves."
        yield Verdict(Level.NOTE, Topic.COMMIT, facts.name, what, remedy)
    else:
        extra = "" if waits else ", and no replica is synchronous: a failover may lose the last commits"
        yield Verdict(Level.OK, Topic.COMMIT, facts.name, f"synchronous_commit is {value}{extra}.")


def wal_level(facts: Facts) -> Iterator[Verdict]:
    """Whether the log has what replicas need."""
    if not facts.is_primary or (value := facts.settings.get("wal_level")) is None:
        return
    if value == "minimal":
        what = "wal_level is minimal: no replica can follow."
        remedy = "ALTER SYSTEM SET wal_level = replica; restart, and build the replicas from a new base backup."
        yield Verdict(Level.FAULT, Topic.WAL_LEVEL, facts.name, what, remedy)
    else:
        yield Verdict(Level.OK, Topic.WAL_LEVEL, facts.name, f"wal_level is {value}.")


def read_only(facts: Facts) -> Iterator[Verdict]:
    """Whether transactions may write, unless they say otherwise."""
    if (value := facts.settings.get("default_transaction_read_only")) is None or facts.role is None:
        return
    if value == "off":
        what = "default_transaction_read_only is off."
        yield Verdict(Level.OK, Topic.READ_ONLY, facts.name, what)
    elif facts.is_primary:
        what = "default_transaction_read_only is on: every write fails."
        remedy = "Name a role that may write in the primary's URL; or ALTER ROLE, or ALTER DATABASE, or ALTER SYSTEM "
        remedy += "... RESET default_transaction_read_only; wherever it was set."
        yield Verdict(Level.FAULT, Topic.READ_ONLY, facts.name, what, remedy)
    else:
        what = "default_transaction_read_only is on: where this replica is promoted, every write fails there."
        remedy = "Fine for a role that only reads, if the URL is changed when the replica is promoted."
        yield Verdict(Level.NOTE, Topic.READ_ONLY, facts.name, what, remedy)


def unlogged(facts: Facts) -> Iterator[Verdict]:
    """Tables that replicas do not have."""
    if not facts.is_primary or facts.unlogged_count is None:
        return
    if not facts.unlogged_count:
        yield Verdict(Level.OK, Topic.UNLOGGED, facts.name, "There are no unlogged tables.")
        return
    more = facts.unlogged_count - len(facts.unlogged)
    names = ", ".join(facts.unlogged) + (f" and {more} more" if more else "")
    what = f"Unlogged tables are empty and unreadable on replicas: {names}."
    remedy = "Read them with db.read(primary=True), or ALTER TABLE ... SET LOGGED."
    yield Verdict(Level.WARNING, Topic.UNLOGGED, facts.name, what, remedy)


def statements(facts: Facts) -> Iterator[Verdict]:
    """Statements that look like reads and are none, as pg_stat_statements has them."""
    found = facts.statements
    if not facts.is_primary or found is None:
        return
    if not (found.locking or found.sequences):
        what = "pg_stat_statements has no SELECT that locks rows or draws from a sequence."
        yield Verdict(Level.OK, Topic.STATEMENTS, facts.name, what)
        return
    what = f"pg_stat_statements has SELECTs that a read session refuses: {found.locking} with FOR UPDATE or FOR SHARE, "
    what += f"{found.sequences} with nextval or setval."
    yield Verdict(Level.NOTE, Topic.STATEMENTS, facts.name, what, "They belong into db.write(), not db.read().")
