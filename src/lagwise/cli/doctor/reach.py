"""Verdicts on whether a node answers, and why not."""

from __future__ import annotations

from collections.abc import Iterator

from lagwise._decide.failure import Kind
from lagwise.cli.doctor.facts import Facts
from lagwise.cli.doctor.verdict import Level, Topic, Verdict

_WHAT = {
    Kind.PASSWORD: "The server refuses the user or the password; it says the same of both.",
    Kind.LOGIN: "The server does not let this user in.",
    Kind.DATABASE: "The server has no database of this name.",
    Kind.HOST: "Its host name cannot be resolved.",
    Kind.OPTION: "The driver or the server does not know an option in its URL.",
    Kind.TLS: "An encrypted connection is asked for, and cannot be had.",
    Kind.PRIVILEGE: "Its user may not ask what the monitor asks.",
    Kind.PARAMETER: "A pooler refuses a startup parameter.",
    Kind.STATEMENTS: "A pooler in statement mode stands before it, which allows no transactions.",
    Kind.FULL: "The server takes no more connections.",
    Kind.STARTING: "The server is starting, or recovering without hot_standby.",
    Kind.STOPPING: "The server is shutting down.",
    Kind.REFUSED: "Nothing listens at its address: the connection is refused.",
    Kind.SILENT: "It does not answer in time.",
    Kind.LOST: "The connection is lost.",
}
_REMEDIES = {
    Kind.PASSWORD: "Check the user and the password in its URL, and that the role exists: roles are replicated.",
    Kind.LOGIN: "Check the user in its URL, and pg_hba.conf on that server; where it demands TLS, add ?ssl=require.",
    Kind.DATABASE: "Check the database in its URL.",
    Kind.HOST: "Check the host in its URL, and the resolver of this machine.",
    Kind.OPTION: "Check what follows the question mark in its URL: it is ssl=require, and not sslmode=require.",
    Kind.TLS: "Set ssl = on with a certificate that this machine trusts, or take the ssl option out of its URL.",
    Kind.PRIVILEGE: "See the verdict on privileges; without one: GRANT CONNECT ON DATABASE, of that in its URL, to the "
    "user in it.",
    Kind.PARAMETER: "Name it in PgBouncer's ignore_startup_parameters.",
    Kind.STATEMENTS: "Set pool_mode = transaction there, or session.",
    Kind.FULL: "See who is connected (pg_stat_activity); lower pool_size or the number of workers, or raise "
    "max_connections, on replicas first, or the CONNECTION LIMIT of its role or its database.",
    Kind.STARTING: "Wait; if it stays so on a replica, set hot_standby = on and look into the server's log.",
    Kind.STOPPING: "Start it again, or take the node out of the configuration.",
    Kind.REFUSED: "Start the server, or check the port in its URL, listen_addresses and firewalls.",
    Kind.SILENT: "Check the network, firewalls and security groups between here and there; give a slow one more "
    "time with --timeout.",
    Kind.LOST: "Look into the server's log, and at what stands between here and there.",
}


def reachable(facts: Facts) -> Iterator[Verdict]:
    """Whether it answers."""
    cause = facts.cause
    if cause is None:
        yield Verdict(Level.OK, Topic.REACHABLE, facts.name, "It answers.")
        return
    what = _WHAT.get(cause.kind, "It cannot be asked.")
    remedy = _REMEDIES.get(cause.kind, "Look into the server's log.")
    before = "It has stopped to answer. " if facts.version is not None and cause.kind is not Kind.PRIVILEGE else ""
    yield Verdict(Level.FAULT, Topic.REACHABLE, facts.name, f"{before}{what} ({cause})", remedy)


def unanswered(facts: Facts) -> Iterator[Verdict]:
    """Questions that failed alone: what they would have told is not known."""
    for question, cause in facts.unanswered:
        what = f"The question for {question} failed ({cause}), so nothing is said of it."
        yield Verdict(Level.NOTE, Topic.REACHABLE, facts.name, what)
