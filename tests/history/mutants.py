"""Known-bad routers: each breaks lagwise in one place, as somebody, somewhere, has done it."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import replace
from typing import Any

import pytest

from lagwise import LSN, Router
from lagwise._client.brought import Brought, Reader
from lagwise._client.causality import Causality, Commit
from lagwise._decide.route import Demand
from lagwise._decide.token import Position
from lagwise._decide.view import Reading, Role, View
from lagwise._nodes import positions, probe, prober
from lagwise._nodes.intent import Intent
from lagwise._nodes.ledger import Ledger
from lagwise._nodes.positions import Positions
from lagwise._nodes.prober import Prober
from lagwise._nodes.waiting import Queue
from lagwise._pools.connection import PooledConnection
from lagwise._pools.setup import Setup
from lagwise._sessions.lease import Lease

Mutant = Callable[[pytest.MonkeyPatch], None]
_HIGHEST = LSN(2**63 - 1)


def token_before_commit(patch: pytest.MonkeyPatch) -> None:
    """The position is taken inside the transaction: the COMMIT record lies beyond it."""
    begin, taken = Ledger.begin, dict[Commit, Reading | None]()

    def early(ledger: Ledger, node: str, seen: Causality) -> Commit:
        commit = begin(ledger, node, seen)
        taken[commit] = ledger._nodes.view.node(node).reading
        return commit

    async def settle(_: Ledger, __: str, commit: Commit, ___: Any) -> None:
        reading = taken.pop(commit)
        assert reading is not None
        commit.at(Position(system=reading.system, timeline=reading.timeline, lsn=reading.lsn, issued_at=2**31))

    patch.setattr(Ledger, "begin", early)
    patch.setattr(Ledger, "committed", settle)


def write_position(patch: pytest.MonkeyPatch) -> None:
    """pg_current_wal_lsn(), which with synchronous_commit=off is behind what was committed."""
    for name in ("_READ", "_READ_ALONE"):
        sql: str = getattr(probe, name)
        patch.setattr(probe, name, sql.replace("pg_current_wal_insert_lsn()", "pg_current_wal_lsn()"))


def earlier_answer(patch: pytest.MonkeyPatch) -> None:
    """Whoever finds a question under way takes its answer, though it was sent before their COMMIT."""

    async def after_commit(shared: Positions, driver: Any) -> Reading | None:
        if shared._under_way is None:
            return await shared._ask(driver)
        await shared._under_way.wait()
        return shared._reading

    patch.setattr(Positions, "after_commit", after_commit)


def timeline_blind(patch: pytest.MonkeyPatch) -> None:
    """Positions are compared as numbers, whatever timeline they are of."""
    _reading(patch, lambda reading: replace(reading, timeline=1))


def writes_ignore_the_token(patch: pytest.MonkeyPatch) -> None:
    """A write goes to the primary this process knows, though its client has been on a later timeline."""
    demand = Intent.demand

    def forgetful(intent: Any, seen: Causality | None, *rest: Any) -> Demand:
        return demand(intent, None if intent.write else seen, *rest)

    patch.setattr(Intent, "demand", forgetful)


def received_is_fresh(patch: pytest.MonkeyPatch) -> None:
    """Lag 0 when everything received is replayed: also when nothing has been received for an hour."""
    lag = "CASE WHEN pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() THEN '7FFFFFFF/0'::pg_lsn ELSE "
    replayed = "pg_catalog.pg_last_wal_replay_lsn()"
    patch.setattr(probe, "_READ", probe._READ.replace(replayed, f"{lag}{replayed} END", 1))
    _new_connections_are_believed(patch)


def error_counts_as_fresh(patch: pytest.MonkeyPatch) -> None:
    """A replica whose lag cannot be read has none."""
    read, last = Prober.read, dict[Prober, Reading]()

    async def trusting(prober: Prober) -> Reading:
        try:
            last[prober] = await read(prober)
        except Exception:
            if prober not in last or last[prober].role is Role.PRIMARY:
                raise
            return replace(last[prober], lsn=_HIGHEST, at=prober._clock())
        return last[prober]

    patch.setattr(Prober, "read", trusting)
    _new_connections_are_believed(patch)


def _new_connections_are_believed(patch: pytest.MonkeyPatch) -> None:
    # A connection that shows less than its node has shown is refused: that alone would catch such a mutant.
    patch.setattr(Setup, "_compare", lambda *_: None)


def floor_of_another(patch: pytest.MonkeyPatch) -> None:
    """Some replica has caught up, so any of them is read from."""
    caught_up = View.caught_up
    patch.setattr(View, "caught_up", lambda view, floor: len(view.rotation) if caught_up(view, floor) else 0)


def check_then_subscribe(patch: pytest.MonkeyPatch) -> None:
    """The answer that comes between looking and waiting wakes nobody."""
    wait = Queue.wait

    async def late(queue: Queue, least: float, seconds: float) -> bool:
        await asyncio.sleep(0.5)  # any await will do, a short one only rarely
        return await wait(queue, least, seconds)

    patch.setattr(Queue, "wait", late)


def window_shorter_than_lag(patch: pytest.MonkeyPatch) -> None:
    """The token is forgotten after 50 ms, while replicas may be a minute behind."""
    init = Router.__init__

    def hasty(db: Router, *args: Any, **options: Any) -> None:
        init(db, *args, **options)
        db._nodes.policy = replace(db.policy, max_lag=60, sticky_window=60)
        object.__setattr__(db.policy, "sticky_window", 0.05)

    patch.setattr(Router, "__init__", hasty)


def reads_leave_no_trace(patch: pytest.MonkeyPatch) -> None:
    """What a client has read is forgotten: its next read may be older."""
    patch.setattr(Causality, "saw", lambda _seen, _position, _window: None)


def local_without_a_transaction(patch: pytest.MonkeyPatch) -> None:
    """What means something only inside a transaction runs by itself, and means nothing."""
    patch.setattr(PooledConnection, "ask_for_transaction", lambda _connection, *_isolation: None)


def rested_goes_on_unconfirmed(patch: pytest.MonkeyPatch) -> None:
    """A session that has given its connection back goes on with another one, whatever its client wrote meanwhile."""
    patch.setattr(Lease, "may_be_overtaken", False)


def settings_move_silently(patch: pytest.MonkeyPatch) -> None:
    """A session with a setting of its own goes on where the setting is not."""
    patch.setattr(Lease, "pinned", False)


def inner_grows_alone(patch: pytest.MonkeyPatch) -> None:
    """What an inner causality grows by ends with it."""
    patch.setattr(Causality, "carriers", lambda seen: (seen,))


def removes_unverified_slots(patch: pytest.MonkeyPatch) -> None:
    """An answer removes every cookie of the name, also those it could not verify, and so did not merge."""
    read = Reader._read

    def trusting(reader: Reader, *found: bytes) -> Brought:
        cookies = [value for name, value in zip(found[::2], found[1::2], strict=True) if name == b"cookie"]
        names = [name for value in cookies for name, _ in reader._jar.brought(value.decode(), 1024)]
        return replace(read(reader, *found), names=tuple(names))

    patch.setattr(Reader, "_read", trusting)


def one_cookie(app: Any) -> Any:
    """One cookie for all answers: the one that arrives last overwrites the others."""

    async def wrapped(scope: Any, receive: Any, send: Callable[[Any], Awaitable[None]]) -> None:
        async def sending(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    (name, value) for name, value in message["headers"] if not value.startswith(b"lagwise-")
                ]
            await send(message)

        await app(scope, receive, sending)

    return wrapped


def _reading(patch: pytest.MonkeyPatch, change: Callable[[Reading], Reading]) -> None:
    asked = probe.ask

    async def changed(driver: Any, **how: Any) -> Reading:
        return change(await asked(driver, **how))

    for module in (positions, prober):
        patch.setattr(module, "ask", changed)
