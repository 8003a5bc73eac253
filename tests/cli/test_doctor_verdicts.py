"""What the doctor makes of facts: pure functions, without a database."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from lagwise._decide.failure import Cause, Kind
from lagwise._decide.lsn import LSN
from lagwise._decide.node import Reading, Role
from lagwise.cli.doctor.arithmetic import largest, needed, room
from lagwise.cli.doctor.diagnose import diagnose, healthy
from lagwise.cli.doctor.facts import (
    Access,
    Connections,
    Facts,
    Lag,
    Plan,
    Receiver,
    Replay,
    Senders,
    Slot,
    Statements,
    censored,
)
from lagwise.cli.doctor.named import MOST, configured, named
from lagwise.cli.doctor.reach import reachable
from lagwise.cli.doctor.report import summary
from lagwise.cli.doctor.verdict import CLUSTER, Level, Topic, Verdict
from lagwise.settings import Settings

PLAN = Plan()
URL = "postgresql+asyncpg://app:planted-secret@planted-host:5432/shop"
SETTINGS = {
    "server_version_num": "150018", "max_connections": "100", "superuser_reserved_connections": "3",
    "wal_level": "replica", "synchronous_commit": "on", "synchronous_standby_names": "", "hot_standby_feedback": "on",
    "max_standby_streaming_delay": "5000", "max_slot_wal_keep_size": "-1", "wal_keep_size": "0",
    "recovery_min_apply_delay": "0", "wal_receiver_timeout": "60000", "default_transaction_read_only": "off",
}  # fmt: skip
STREAMS = Replay(receiver=Receiver(status="streaming", slot="one", silent=0.1))


def reading(role: Role, started: int, **changed: Any) -> Reading:
    at = {"system": 7, "timeline": 1, "lsn": LSN(1000), "flushed": LSN(1000), "at": 0.0, "port": 5432, **changed}
    return Reading(role=role, started=started, **at)


def node(name: str, role: Role, expected: Role, started: int, **read: Any) -> Facts:
    found = reading(role, started, **read)
    return Facts(
        name=name, expected=expected, reading=found, version=150018, settings=SETTINGS, database=5,
        round_trip=0.001, clock=0.0, access=Access(role="app", stats=True), slots=(),
        connections=Connections(own=2, others=0),
        servers=frozenset({(found.system, started, found.port)}), connected=4,
    )  # fmt: skip


PRIMARY = replace(
    node("primary", Role.PRIMARY, Role.PRIMARY, 1),
    senders=Senders(all=1, streaming=1),
    unlogged_count=0,
    statements=Statements(locking=0, sequences=0),
)
REPLICA = replace(
    node("replica-1", Role.REPLICA, Role.REPLICA, 2), replay=STREAMS, lag=Lag(bytes=0, seconds=0.0, caught_up=True)
)


def settings(**changed: str) -> dict[str, str]:
    return {**SETTINGS, **changed}


def worst(verdicts: Iterable[Verdict]) -> dict[tuple[Topic, str], Level]:
    """The worst level of each topic and node that is not in order."""
    found = dict[tuple[Topic, str], Level]()
    for verdict in verdicts:
        if verdict.level is not Level.OK:
            found.setdefault((verdict.topic, verdict.subject), verdict.level)
    return found


def found(*nodes: Facts, plan: Plan = PLAN) -> dict[tuple[Topic, str], Level]:
    return worst(diagnose(nodes, plan))


def test_a_healthy_cluster_is_in_order_in_every_topic() -> None:
    """Every topic has a verdict, and each of them is that it is in order."""
    verdicts = diagnose((PRIMARY, REPLICA), PLAN)
    assert worst(verdicts) == {}
    assert {verdict.topic for verdict in verdicts} == set(Topic)
    assert healthy(verdicts)
    assert summary(verdicts) == f"Healthy: nothing to report; {len(verdicts)} in order."


ONE_NODE = [
    (PRIMARY, {"reading": None, "cause": Cause(Kind.REFUSED, "ConnectionRefusedError")}, Topic.REACHABLE, Level.FAULT),
    (PRIMARY, {"unanswered": (("slots", Cause(Kind.OTHER, "Error")),)}, Topic.REACHABLE, Level.NOTE),
    (REPLICA, {"version": 160001}, Topic.VERSION, Level.FAULT),
    (REPLICA, {"version": 150017}, Topic.VERSION, Level.WARNING),
    (REPLICA, {"reading": reading(Role.REPLICA, 2, system=8)}, Topic.SYSTEM, Level.FAULT),
    (REPLICA, {"reading": reading(Role.REPLICA, 2, timeline=2)}, Topic.TIMELINE, Level.FAULT),
    (REPLICA, {"reading": reading(Role.REPLICA, 1)}, Topic.ROLE, Level.NOTE),
    (REPLICA, {"replay": Replay()}, Topic.STREAMING, Level.FAULT),
    (REPLICA, {"replay": replace(STREAMS, paused=True)}, Topic.STREAMING, Level.FAULT),
    (REPLICA, {"replay": Replay(receiver=Receiver(status="waiting", slot="one"))}, Topic.STREAMING, Level.FAULT),
    (REPLICA, {"replay": Replay(receiver=Receiver())}, Topic.STREAMING, Level.NOTE),
    (REPLICA, {"settings": settings(recovery_min_apply_delay="1000")}, Topic.STREAMING, Level.WARNING),
    (REPLICA, {"settings": settings(recovery_min_apply_delay="5000")}, Topic.STREAMING, Level.FAULT),
    (PRIMARY, {"senders": Senders(all=1, streaming=0)}, Topic.STREAMING, Level.NOTE),
    (PRIMARY, {"senders": Senders(all=1, hidden=1)}, Topic.STREAMING, Level.NOTE),
    (REPLICA, {"lag": Lag(bytes=10, seconds=2.0, caught_up=False)}, Topic.LAG, Level.WARNING),
    (REPLICA, {"lag": Lag(bytes=10, seconds=None, caught_up=False)}, Topic.LAG, Level.WARNING),
    (REPLICA, {"lag": Lag(bytes=10, seconds=5.1, caught_up=False)}, Topic.LAG, Level.FAULT),
    (PRIMARY, {"slots": (Slot(name="one", active=False, status="reserved", kept=9),)}, Topic.SLOTS, Level.WARNING),
    (PRIMARY, {"slots": (Slot(name="one", active=False, status="lost"),)}, Topic.SLOTS, Level.FAULT),
    (PRIMARY, {"slots": (Slot(name="one", active=True, status="unreserved"),)}, Topic.SLOTS, Level.FAULT),
    (REPLICA, {"replay": Replay(receiver=Receiver(status="streaming"))}, Topic.SLOTS, Level.WARNING),
    (REPLICA, {"settings": settings(hot_standby_feedback="off")}, Topic.FEEDBACK, Level.NOTE),
    (REPLICA, {"settings": settings(max_standby_streaming_delay="-1")}, Topic.DELAY, Level.WARNING),
    (REPLICA, {"settings": settings(max_standby_streaming_delay="5001")}, Topic.DELAY, Level.NOTE),
    (PRIMARY, {"settings": settings(synchronous_commit="off")}, Topic.COMMIT, Level.WARNING),
    (
        PRIMARY,
        {"settings": settings(synchronous_commit="remote_apply", synchronous_standby_names="*")},
        Topic.COMMIT,
        Level.NOTE,
    ),
    (PRIMARY, {"settings": settings(wal_level="minimal")}, Topic.WAL_LEVEL, Level.FAULT),
    (PRIMARY, {"settings": settings(default_transaction_read_only="on")}, Topic.READ_ONLY, Level.FAULT),
    (REPLICA, {"settings": settings(default_transaction_read_only="on")}, Topic.READ_ONLY, Level.NOTE),
    (REPLICA, {"database": 6}, Topic.DATABASE, Level.FAULT),
    (REPLICA, {"replay": Replay(receiver=Receiver(status="restarting", slot="one"))}, Topic.STREAMING, Level.FAULT),
    (REPLICA, {"slots": (Slot(name="one", active=False, kept=9),)}, Topic.SLOTS, Level.NOTE),
    (REPLICA, {"access": Access(role="app", stats=True, views=("v",))}, Topic.PRIVILEGES, Level.FAULT),
    (REPLICA, {"access": Access(role="app", stats=False)}, Topic.PRIVILEGES, Level.FAULT),
    (REPLICA, {"access": Access(role="app", stats=True, functions=("f()",))}, Topic.PRIVILEGES, Level.FAULT),
    (PRIMARY, {"access": Access(role="app", stats=True, language=False)}, Topic.PRIVILEGES, Level.WARNING),
    (PRIMARY, {"pooler": "transaction"}, Topic.POOLER, Level.FAULT),
    (REPLICA, {"servers": frozenset({(7, 2, 1), (7, 3, 1)})}, Topic.ADDRESS, Level.FAULT),
    (REPLICA, {"connected": 1}, Topic.ADDRESS, Level.NOTE),
    (
        REPLICA,
        {"replay": Replay(receiver=Receiver(status="streaming", slot="o", silent=61.0))},
        Topic.STREAMING,
        Level.FAULT,
    ),
    (REPLICA, {"clock": 1.1, "clock_error": 0.001}, Topic.CLOCK, Level.WARNING),
    (REPLICA, {"clock": -61.0}, Topic.CLOCK, Level.FAULT),
    (REPLICA, {"round_trip": 0.051}, Topic.ROUND_TRIP, Level.WARNING),
    (PRIMARY, {"unlogged": ("public.a",), "unlogged_count": 1}, Topic.UNLOGGED, Level.WARNING),
    (PRIMARY, {"statements": Statements(locking=1, sequences=0)}, Topic.STATEMENTS, Level.NOTE),
    (PRIMARY, {"connections": Connections(own=0, others=55)}, Topic.POOLS, Level.FAULT),
    (REPLICA, {"connections": Connections(own=0, others=55)}, Topic.POOLS, Level.WARNING),
    (PRIMARY, {"connections": Connections(own=0, others=0, role_limit=42)}, Topic.POOLS, Level.FAULT),
]


@pytest.mark.parametrize(("of", "changed", "topic", "level"), ONE_NODE)
def test_one_change_is_one_verdict(of: Facts, changed: dict[str, Any], topic: Topic, level: Level) -> None:
    """Of a healthy cluster with one thing changed, that thing is told, with its level; a fault has a remedy."""
    nodes = tuple(replace(one, **changed) if one is of else one for one in (PRIMARY, REPLICA))
    verdicts = [one for one in diagnose(nodes, PLAN) if one.topic is topic and one.level is not Level.OK]
    assert verdicts[0].level is level
    assert healthy(diagnose(nodes, PLAN)) is (level is not Level.FAULT)
    assert all(one.remedy for one in verdicts if one.level in {Level.FAULT, Level.WARNING})


@pytest.mark.parametrize(
    ("facts", "topic"),
    [
        (replace(REPLICA, clock=1.0), Topic.CLOCK),
        (replace(REPLICA, clock=1.5, clock_error=0.5), Topic.CLOCK),
        (replace(REPLICA, round_trip=0.05), Topic.ROUND_TRIP),
        (replace(REPLICA, lag=Lag(bytes=10, seconds=0.5, caught_up=True)), Topic.LAG),
        (
            replace(REPLICA, replay=Replay(receiver=Receiver(status="streaming", slot="o", silent=60.0))),
            Topic.STREAMING,
        ),
        (
            replace(
                REPLICA,
                settings=settings(wal_receiver_timeout="0"),
                replay=Replay(receiver=Receiver(status="streaming", slot="o", silent=999.0)),
            ),
            Topic.STREAMING,
        ),
        (replace(PRIMARY, slots=(Slot(name="one", active=True, status="extended"),)), Topic.SLOTS),
        (replace(PRIMARY, connections=Connections(own=60, others=54)), Topic.POOLS),
        (replace(PRIMARY, connections=Connections(own=0, others=0, role_limit=43)), Topic.POOLS),
    ],
)
def test_what_is_at_the_limit_is_in_order(facts: Facts, topic: Topic) -> None:
    """Each threshold is the last value that is fine; connections of the application itself are not counted twice."""
    nodes = (facts, REPLICA) if facts.is_primary else (PRIMARY, facts)
    assert (topic, facts.name) not in found(*nodes)


@pytest.mark.parametrize("kind", list(Kind))
def test_every_kind_of_failure_has_words_and_a_remedy(kind: Kind) -> None:
    """Refused, full, wrong password, unknown database, silence, TLS: each is told, and what to do."""
    facts = Facts(name="replica-1", expected=Role.REPLICA, cause=Cause(kind, "SomeError", "XX000"))
    (verdict,) = reachable(facts)
    assert verdict.level is Level.FAULT
    assert f"({kind}, SomeError XX000)" in verdict.what
    assert verdict.remedy


def test_failures_that_differ_read_differently() -> None:
    """No two of those that an operator must tell apart have the same words."""
    kinds = [Kind.REFUSED, Kind.FULL, Kind.PASSWORD, Kind.DATABASE, Kind.SILENT, Kind.TLS, Kind.HOST, Kind.LOGIN]
    facts = [Facts(name="one", expected=Role.REPLICA, cause=Cause(kind, "Error")) for kind in kinds]
    said = {(verdict.what, verdict.remedy) for one in facts for verdict in reachable(one)}
    assert len(said) == len(kinds)


@pytest.mark.parametrize("plan", [Plan(pool_size=0), Plan(max_overflow=-1)], ids=["pool_size", "max_overflow"])
def test_pools_without_a_limit_fit_no_server(plan: Plan) -> None:
    """SQLAlchemy takes 0 and -1 for no limit: that is said, with a size that fits, before a pooler too."""
    for facts in (PRIMARY, replace(PRIMARY, pooler="session")):
        verdict = next(one for one in diagnose((facts, REPLICA), plan) if one.topic is Topic.POOLS)
        assert verdict.level is Level.FAULT
        assert "no limit" in verdict.what
        assert verdict.remedy == "pool_size=47 fits, also after a failover. Set max_overflow to 0."


AWAY = replace(PRIMARY, reading=None, cause=Cause(Kind.PASSWORD, "InvalidPasswordError", "28P01"))


def test_a_replica_is_promoted_only_when_no_primary_can_run() -> None:
    """The remedy for a primary that cannot be reached, or whose replicas stream, is no promotion."""
    alone = replace(REPLICA, replay=Replay())
    for nodes, wanted in (
        ((AWAY, REPLICA), "Mend primary first"),
        ((AWAY, alone), "Mend primary first"),
        ((REPLICA,), "Name the primary's URL."),
    ):
        verdict = next(one for one in diagnose(nodes, PLAN) if (one.topic, one.subject) == (Topic.ROLE, CLUSTER))
        assert verdict.remedy.startswith(wanted)
        assert "Promote no replica while a primary may run" in verdict.remedy
        assert "pg_promote" not in verdict.remedy
    (verdict,) = [one for one in diagnose((alone,), PLAN) if (one.topic, one.subject) == (Topic.ROLE, CLUSTER)]
    assert "pg_promote" in verdict.remedy


def test_a_role_that_is_called_like_a_secret_is_left_out_of_its_grant() -> None:
    """The remedy is a statement still, to be completed by hand."""
    facts = replace(REPLICA, access=Access(role="planted", stats=False))
    said = next(one.remedy for one in diagnose((PRIMARY, censored(facts, ["planted"])), PLAN) if "GRANT" in one.remedy)
    assert said == "On the primary: GRANT pg_monitor TO <the user in its URL>;"


def test_swapped_roles_are_two_faults() -> None:
    """Each of the two is named, and with which it is to be swapped."""
    nodes = (replace(REPLICA, expected=Role.PRIMARY), replace(PRIMARY, expected=Role.REPLICA))
    assert found(*nodes) == {(Topic.ROLE, "replica-1"): Level.FAULT, (Topic.ROLE, "primary"): Level.FAULT}
    assert "Swap the URLs of replica-1 and primary." in diagnose(nodes, PLAN)[0].remedy


def test_two_primaries_are_a_fault_of_the_cluster() -> None:
    """On two timelines the lower one is to be stopped; on one, it is not known which."""
    other = replace(PRIMARY, name="replica-1", expected=Role.REPLICA, reading=reading(Role.PRIMARY, 2, timeline=2))
    (split,) = [one for one in diagnose((PRIMARY, other), PLAN) if one.subject == "cluster" and one.topic == "role"]
    assert (split.level, split.remedy.startswith("Stop primary;")) == (Level.FAULT, True)
    other = replace(other, reading=reading(Role.PRIMARY, 2))
    (split,) = [one for one in diagnose((PRIMARY, other), PLAN) if one.subject == "cluster" and one.topic == "role"]
    assert split.remedy.startswith("Stop all but one")


def test_no_primary_is_a_fault_of_the_cluster() -> None:
    """Replicas alone: writes have nowhere to go."""
    assert found(REPLICA)[Topic.ROLE, "cluster"] is Level.FAULT


def test_a_replica_left_behind_by_a_promotion_is_named() -> None:
    """With the privilege to see its timeline a fault; without, perhaps only late, and that is said."""
    ahead = replace(PRIMARY, reading=reading(Role.PRIMARY, 1, timeline=2))
    assert found(ahead, REPLICA) == {(Topic.TIMELINE, "replica-1"): Level.FAULT}
    blind = replace(REPLICA, access=Access(role="app", stats=False))
    assert found(ahead, blind)[Topic.TIMELINE, "replica-1"] is Level.WARNING


def test_a_stranger_is_named_once() -> None:
    """Nothing is said of the settings of another cluster's server: they are none of ours."""
    stranger = replace(REPLICA, reading=reading(Role.REPLICA, 2, system=8), replay=Replay(), round_trip=9.0)
    assert found(PRIMARY, stranger) == {
        (Topic.SYSTEM, "replica-1"): Level.FAULT,
    }


def test_the_primary_says_which_cluster_is_ours() -> None:
    """As for a Router: also against a majority. While it does not answer, the majority says it."""
    strangers = [replace(REPLICA, name=f"replica-{n}", reading=reading(Role.REPLICA, n, system=8)) for n in (2, 3)]
    assert (Topic.SYSTEM, "replica-2") in found(PRIMARY, *strangers)
    silent = replace(PRIMARY, reading=None, cause=Cause(Kind.SILENT, "TimeoutError"))
    assert (Topic.SYSTEM, "replica-1") in found(silent, REPLICA, *strangers)


def test_transaction_mode_is_no_fault_where_the_application_says_so() -> None:
    """With pooling="transaction" the pooler is in order; without a pooler, the setting is noted."""
    plan = Plan(framed=True)
    behind = [replace(one, pooler="transaction") for one in (PRIMARY, REPLICA)]
    assert set(found(*behind, plan=plan).values()) == {Level.NOTE}  # the arithmetic is the pooler's
    assert found(PRIMARY, REPLICA, plan=plan) == {
        (Topic.POOLER, "primary"): Level.NOTE,
        (Topic.POOLER, "replica-1"): Level.NOTE,
    }


@pytest.mark.parametrize("workers", [1, 2, 3, 7])
@pytest.mark.parametrize("overflow", [0, 3])
@pytest.mark.parametrize("free", [10, 43, 97, 400])
def test_the_size_that_is_suggested_fits_and_one_more_does_not(workers: int, overflow: int, free: int) -> None:
    """What `largest` answers is the largest."""
    plan = Plan(workers=workers, max_overflow=overflow)
    size = largest(plan, free)
    if size >= 1:
        assert needed(replace(plan, pool_size=size), 2) <= free
    assert needed(replace(plan, pool_size=max(1, size + 1)), 2) > free


def test_the_suggestion_is_in_the_remedy() -> None:
    """Four workers of the default size on a server of a hundred connections: a pool_size, and a max_connections."""
    verdicts = diagnose((PRIMARY, REPLICA), Plan(workers=4))
    (fault,) = [one for one in verdicts if one.level is Level.FAULT]
    assert fault.remedy.startswith("pool_size=10 fits, also after a failover. Or set max_connections = 175,")
    assert healthy(diagnose((PRIMARY, REPLICA), Plan(workers=4, pool_size=10)))
    mended = [replace(one, settings=settings(max_connections="175")) for one in (PRIMARY, REPLICA)]
    assert healthy(diagnose(mended, Plan(workers=4)))


def test_reserved_connections_are_not_for_the_application() -> None:
    """Those for superusers, and those of PostgreSQL 16 for roles."""
    there = room(replace(PRIMARY, settings=settings(reserved_connections="5")))
    assert there is not None
    assert there.free == 100 - 3 - 5


def test_names_of_the_server_are_censored() -> None:
    """A slot, a table or a role that is named after a host or a password is shown without."""
    facts = replace(
        PRIMARY,
        slots=(Slot(name="planted_host_slot", active=False),),
        unlogged=("public.planted_host",),
        unlogged_count=1,
        access=Access(role="planted_host", stats=False),
    )
    said = repr(diagnose((censored(facts, ["planted_host"]),), PLAN))
    assert "..._slot" in said
    assert "planted" not in said


@pytest.mark.parametrize(
    "urls",
    [
        [],
        ["planted-host"],
        ["postgresql+asyncpg://app:planted-secret@planted-host:port/shop"],
        ["postgresql+psycopg://app:planted-secret@planted-host/shop"],
        ["mysql+aiomysql://app:planted-secret@planted-host/shop"],
        [URL, f"primary={URL}"],
        [URL] * (MOST + 1),
    ],
)
def test_urls_that_make_no_sense_are_told_without_them(urls: list[str]) -> None:
    """The message says which one, and has nothing of it."""
    with pytest.raises(ValueError, match=r"URL|node") as caught:
        named(urls)
    assert "planted" not in str(caught.value)


def test_nodes_are_named_as_a_router_names_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """From arguments or from the environment: primary, replica-1, and names that are given; the most are fine."""
    expected = [("primary", Role.PRIMARY), ("east", Role.REPLICA), ("replica-2", Role.REPLICA)]
    urls = [URL, f"east={URL}?ssl=require", URL.replace("+asyncpg", "")]
    assert [(one.name, one.expected) for one in named(urls)] == expected
    monkeypatch.setenv("LAGWISE_PRIMARY", urls[0])
    monkeypatch.setenv("LAGWISE_REPLICAS", f"{urls[1]}, {urls[2]},")
    assert [(one.name, one.expected) for one in configured(Settings())] == expected
    monkeypatch.setenv("LAGWISE_REPLICAS", f"zürich={URL}")
    assert [one.name for one in configured(Settings())] == ["primary", "zürich"]
    assert len(named([URL] * MOST)) == MOST
    assert "planted" not in repr(named(urls))
    assert named(urls)[1].arguments() == {
        "host": "planted-host", "port": 5432, "user": "app", "password": "planted-secret", "database": "shop",
        "ssl": "require",
    }  # fmt: skip


def test_hosts_of_a_url_with_several_are_hidden() -> None:
    """Also those that are options of the URL, with and without their port."""
    (one,) = named(["postgresql+asyncpg://app:secret-1@/shop?host=host-a:5432&host=host-b:5433"])
    assert {"secret-1", "host-a", "host-b", "host-a:5432"} <= set(one.hidden)
