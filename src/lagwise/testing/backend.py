"""What a cluster needs of the place its servers run in, and the choice of that place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol


class Address(NamedTuple):
    """The host and port at which something listens."""

    host: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """What a standby follows: an address that answers for the upstream, and the slot kept for it there."""

    address: Address
    slot: str
    user: str
    password: str
    application_name: str

    @property
    def conninfo(self) -> str:
        """The libpq connection string; without TLS and GSS, so that servers built without them agree."""
        return (
            f"host={self.address.host} port={self.address.port} user={self.user} password={self.password} "
            f"application_name={self.application_name} sslmode=disable gssencmode=disable connect_timeout=5"
        )


class Server(Protocol):
    """One PostgreSQL server. Every method blocks, is bounded in time, raises ClusterError, needs no loop."""

    @property
    def address(self) -> Address:
        """The server's address, seen from this process; may change when the server is started again."""
        ...

    @property
    def running(self) -> bool:
        """Whether the server's process is there."""
        ...

    def start(self) -> None:
        """Start the server, and return when it answers queries. Nothing happens when it is running."""
        ...

    def stop(self) -> None:
        """Shut the server down in order (PostgreSQL's fast mode). Nothing happens when it is not running."""
        ...

    def kill(self) -> None:
        """Kill the server outright, children too, as a crash would."""
        ...

    def rejoin(self, upstream: Upstream) -> None:
        """Make this stopped server a standby of ``upstream``: rewound if possible, else cloned again."""
        ...


class Backend(Protocol):
    """A place to run servers in. The methods block and may be called from several threads."""

    @property
    def version(self) -> str:
        """PostgreSQL's version, such as ``15.18``."""
        ...

    @property
    def origin(self) -> str:
        """Where the servers come from, for people."""
        ...

    @property
    def gateway(self) -> str:
        """The address at which servers reach a socket of this process, and on which it can listen."""
        ...

    def create_primary(self, name: str, *, user: str, password: str, settings: Mapping[str, str]) -> Server:
        """A new, empty, running server with ``user`` as superuser and ``settings`` in its configuration."""
        ...

    def create_replica(self, name: str, upstream: Upstream) -> Server:
        """A running clone of ``upstream`` that follows it. The slot exists already."""
        ...

    def close(self) -> None:
        """Stop every server, whatever its state, and delete the data. Never raises for a server's sake."""
        ...


def setting(value: str | float) -> str:
    """A PostgreSQL setting as text: ``on`` and ``off`` for booleans."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)
