"""Which database of the cluster is believed to be ours, and what ends the belief.

Two mistakes are possible, as with the cluster: to write to the database that a wrong URL leads to, and to stop the
application because its database was made anew, or renamed, while the node configured as primary is away.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from lagwise._decide.identity import Identity, Terms
from lagwise._decide.node import Node


@dataclass(frozen=True, slots=True)
class Database:
    """The database that is ours, by its OID: a primary and its replicas have the same.

    Attributes:
        oid: 0 while it is not known.
        known_to: the nodes that have said so. They alone can deny it: the URL of another may be wrong.
        instead: what the primary says now, if it is one of them; else what all of them that answer say. 0 for nothing.
        since: since when, monotonic seconds.
    """

    oid: int = 0
    known_to: frozenset[str] = frozenset()
    instead: int = 0
    since: float = 0.0


NO_DATABASE = Database()


def believe_database(
    nodes: Sequence[Node],
    others: frozenset[str],
    primary: Node | None,
    identity: Identity,
    known: Database,
    terms: Terms,
) -> Database:
    """What to believe after these readings: `others` are second names, `known` is what was believed of this cluster.

    The node configured as primary has the word, whatever its role is, as long as it is on our line: a deposed primary
    has another history. Without it the belief stands, until the primary that shared it denies it: replicas may be
    behind, or have sessions in what was renamed. A primary that never shared it needs all that did to agree. The first
    belief may also be the primary's. Pure: time is that of the readings.
    """
    readings = {
        node.name: node.reading for node in nodes if node.reading is not None and node.name not in others
        and node.reading.database and (node.reading.system, node.reading.timeline) == identity.line
    }  # fmt: skip
    configured = readings.get(nodes[0].name) if nodes else None
    first = readings.get(primary.name) if primary is not None else None
    oid = configured.database if configured is not None else known.oid or (first.database if first is not None else 0)
    known_to = frozenset(name for name, reading in readings.items() if reading.database == oid)
    if oid == known.oid:
        known_to |= known.known_to
    heard = known_to & {primary.name} if primary is not None else known_to
    witnesses = [reading for name, reading in readings.items() if name in (heard or known_to)]
    said = {reading.database for reading in witnesses}
    if configured is not None or len(said) != 1 or said == {oid}:
        return Database(oid, known_to)
    (instead,) = said
    since = known.since if known.instead == instead else max(reading.at for reading in witnesses)
    if min(reading.at for reading in witnesses) < since + terms.patience:
        return Database(oid, known_to, instead, since)
    return Database(instead, frozenset(name for name, reading in readings.items() if reading.database == instead))
