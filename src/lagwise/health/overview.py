"""All that the status page shows, as one value: answered from memory."""

from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime, timedelta

from lagwise._decide.node import Standing
from lagwise._decide.shadow import Shadow
from lagwise.errors import NotOpen
from lagwise.health.answers import WELL, nodes, pools, ready
from lagwise.health.draining import ProcessDrain
from lagwise.health.models import Happening, HeldBackReads, NodeHealth, Overview, PoolHealth, Routes, Staleness
from lagwise.health.recording import Recording
from lagwise.health.telling import WORDS

_ONE_SERVER = {Standing.PRIMARY, Standing.SAME_SERVER}
_SOONEST, _LATEST = 0.5, 5.0  # seconds between two questions of a page


def overview(
    recording: Recording, since: int = -1, of: str | None = None, drain: ProcessDrain | None = None
) -> Overview:
    """The picture now. Samples up to number `since` are left out for those who have them of this instance (`of`)."""
    db, now, time = recording.db, recording.clock(), datetime.now(UTC)
    found, usage = nodes(db).nodes, pools(db).pools
    try:
        reads, writes, blind = db.serves(write=False), db.serves(write=True), db.blind
        timeline = db.view.timeline or None
    except NotOpen:
        reads = writes = blind = False
        timeline = None
    primary = next((name for name, node in found.items() if node.standing is Standing.PRIMARY), None)
    status = ready(db).status
    notes = [*_notes(found, usage)]
    if drain is not None and drain.begun:
        notes.append("This process drains: load balancers are to send it no more requests.")
    samples = recording.samples
    return Overview(
        status="warn" if status == "pass" and notes else status,
        summary=_summary(found, blind=blind, reads=reads, writes=writes, noted=bool(notes)),
        notes=notes,
        instance=recording.instance,
        time=time,
        refresh=min(_LATEST, max(_SOONEST, db.policy.probe_interval)),
        reads=reads,
        writes=writes,
        primary=primary,
        timeline=timeline,
        nodes=found,
        pools=usage,
        staleness=Staleness(
            interval=recording.interval,
            last=samples.last,
            seconds=samples.after(since if of == recording.instance else -1, found),
        ),
        routes=Routes(
            seconds=recording.routes.seconds,
            by_reason=recording.routes.totals(now),
            refused=recording.refusals.totals(now),
        ),
        held_back=_held_back(db.shadow),
        events=[
            Happening(
                kind=told.kind,
                node=told.node,
                text=told.text,
                count=folded.count,
                first=time - timedelta(seconds=now - folded.first),
                last=time - timedelta(seconds=now - folded.last),
            )
            for told, folded in recording.happenings.latest()
        ],
        policy=asdict(db.policy),
    )


def _held_back(shadow: Shadow) -> HeldBackReads | None:
    if not shadow.reads:
        return None
    return HeldBackReads(
        reads=shadow.reads,
        on_replicas=shadow.on_replicas,
        would_wait=shadow.would_wait,
        naively_stale=round(shadow.naively_stale, 1),
    )


def _summary(nodes: dict[str, NodeHealth], *, blind: bool, reads: bool, writes: bool, noted: bool) -> str:
    if not nodes:
        return "The Router is not open: nothing is served."
    if blind:
        return "The monitor has ended: nothing is learned of the nodes any more. Restart the process."
    if not writes:
        served = "reads are served by replicas, which may be stale" if reads else "reads are refused, too"
        return f"No primary is in sight: writes are refused, {served}."
    if not reads:
        return "Writes are served. Reads are refused: no node may serve them."
    if all(node.standing in _ONE_SERVER for node in nodes.values()):
        return "Reads and writes are served by the primary: there is no replica."
    if not any(node.in_rotation for node in nodes.values()):
        return "Reads and writes are served, both by the primary: no replica is in rotation."
    return "Reads and writes are served" + (", and something needs a look." if noted else ".")


def _notes(nodes: dict[str, NodeHealth], pools: dict[str, dict[str, PoolHealth]]) -> Iterator[str]:
    for name, node in nodes.items():
        if node.standing not in WELL:
            yield f"{name} {WORDS[node.standing]}" + (f" ({node.error})." if node.error else ".")
    for name, roles in pools.items():
        for role, pool in roles.items():
            if pool.utilisation is not None and pool.utilisation >= 1:
                yield f"The {role} pool of {name} is full: {pool.checked_out} of {pool.capacity} connections in use."
