"""One PostgreSQL server in a container of the official postgres image: start, stop, kill, clone, rewind."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, cast

from testcontainers.core.container import DockerContainer

from lagwise.testing.backend import Address, Upstream
from lagwise.testing.errors import ClusterError
from lagwise.testing.ports import HeldPort

LOOPBACK = "127.0.0.1"
_PORT = 5432
# The container outlives its server: a stopped one can then be rewound, and a killed one keeps its data.
# Docker's init is process 1, or a killed postmaster would stay a zombie and pass for alive.
_KEEPER = ["sleep", "infinity"]
_DATA = "/var/lib/postgresql/lagwise"  # outside the volume that 17 declares, inside that of 18: right for both
_SCRIPTS = {
    "initdb": """
        initdb -D "$DATA" -U "$OWNER" --pwfile=<(printf "%s\\n" "$SECRET") \\
            --auth=scram-sha-256 --locale=C --encoding=UTF8 --no-sync --no-instructions || exit 1
        printf "host %s all all scram-sha-256\\n" all replication >>"$DATA/pg_hba.conf"
        printf "%s" "$CONF" >>"$DATA/postgresql.conf"
    """,
    # Asked again: since 18, pg_ctl takes a standby that was shut down and cannot start for one that has
    # reached its recovery target, and reports success.
    "start": """
        pg_ctl -D "$DATA" -l "$DATA.log" -w -t 30 -o "$OPTIONS" start && pg_ctl -D "$DATA" status && exit 0
        tail -n 12 "$DATA.log"
        exit 1
    """,
    "stop": 'pg_ctl -D "$DATA" -m fast -w -t 30 stop',
    "status": 'pg_ctl -D "$DATA" status',
    # -1: every process of this user. Their shared memory is free when none of them is left.
    "kill": """
        kill -KILL -1
        for _ in {1..500}; do
            grep -qs "^postgres$" /proc/[0-9]*/comm || { rm -f "$DATA/postmaster.pid"; exit 0; }
            sleep 0.02
        done
        exit 1
    """,
    "clone": 'rm -rf "$DATA" && pg_basebackup -D "$DATA" -d "$CONNINFO" -S "$SLOT" '
    "-X stream -c fast --no-sync --no-manifest --no-verify-checksums",
    "rewind": 'pg_rewind -D "$DATA" --source-server="$CONNINFO dbname=postgres" --no-sync',
    "kept": 'cat "$DATA/postgresql.auto.conf"',
    "follow": 'touch "$DATA/standby.signal" && printf "%s" "$CONF" >"$DATA/postgresql.auto.conf"',
}


@dataclass(frozen=True, slots=True)
class Reach:
    """How this process and the servers reach each other.

    Attributes:
        host_network: The servers share this machine's network, as processes would.
        listen: Where this process listens for them.
        name: What they call that address.
    """

    host_network: bool
    listen: str = LOOPBACK
    name: str = LOOPBACK


HOST = Reach(host_network=True)
# Docker Desktop runs containers in a virtual machine; this name leads out of it, to loopback.
DESKTOP = Reach(host_network=False, name="host.docker.internal")


class DockerServer:
    """A container, and the ``postgres`` in it, when it runs."""

    def __init__(self, name: str, image: str, reach: Reach) -> None:
        self.name = name
        self._reach = reach
        self._held = HeldPort(LOOPBACK) if reach.host_network else None
        self._address = Address(LOOPBACK, self._held.number if self._held else 0)
        container = DockerContainer(image).with_command(_KEEPER)
        options: dict[str, Any] = {"entrypoint": [], "init": True, "shm_size": "256m", "user": "root"}
        if self._held is not None:
            options["network_mode"] = "host"
        else:
            options["extra_hosts"] = {DESKTOP.name: "host-gateway"}
            # testcontainers publishes on every interface; the engine takes an address too.
            cast("dict[str, Any]", container.ports)[f"{_PORT}/tcp"] = (LOOPBACK, None)
        self._container = container.with_kwargs(**options)

    def launch(self) -> None:
        """Start the container, without a server in it yet."""
        try:
            self._container.start()
            if self._held is None:
                self._address = Address(LOOPBACK, int(self._container.get_exposed_port(_PORT)))
        except Exception as failed:
            message = f"The container for {self.name} did not start: {failed}"
            raise ClusterError(message) from failed

    @property
    def address(self) -> Address:
        """The server's address, seen from this process; the same as long as the container lives."""
        return self._address

    @property
    def running(self) -> bool:
        """Whether the postmaster is alive."""
        return self._try("status")[0] == 0

    def start(self) -> None:
        """Start, and return when it takes connections.

        Raises:
            ClusterError: It did not within 30 s; the message has the end of its log.
        """
        if not self.running:
            listen, port = self._address if self._held is not None else ("*", _PORT)
            self.run("start", OPTIONS=f"-p {port} -c listen_addresses='{listen}' -c cluster_name={self.name}")

    def stop(self) -> None:
        """Shut down in PostgreSQL's fast mode."""
        if self.running:
            self.run("stop")

    def kill(self) -> None:
        """SIGKILL for the postmaster and every child, and return when they are gone."""
        self.run("kill")

    def rejoin(self, upstream: Upstream) -> None:
        """Become a standby of ``upstream``: rewound if pg_rewind agrees, else cloned again."""
        kept = self._try("kept")[1]
        if self._try("rewind", CONNINFO=self._conninfo(upstream))[0] != 0:
            self.clone(upstream)
        self.point_at(upstream, kept)  # both brought the source's delay and upstream

    def clone(self, upstream: Upstream) -> None:
        """Replace the data by a copy of the upstream's, taken over the address it will stream from."""
        self.run("clone", CONNINFO=self._conninfo(upstream), SLOT=upstream.slot)

    def point_at(self, upstream: Upstream, settings: str = "") -> None:
        """Follow ``upstream`` from the next start on."""
        lines = f"primary_conninfo = '{self._conninfo(upstream)}'\nprimary_slot_name = '{upstream.slot}'\n"
        self.run("follow", CONF=settings + lines)

    def run(self, script: str, **environment: str) -> None:
        """Run one of the scripts above in the container.

        Raises:
            ClusterError: It failed; the message has what it said last.
        """
        status, said = self._try(script, **environment)
        if status != 0:
            tail = "\n".join(f"    {line}" for line in said.splitlines()[-12:])
            message = f"{script} for {self.name} failed with exit status {status}.\n{tail}"
            raise ClusterError(message)

    def close(self) -> None:
        """Remove the container with its data. Does not raise."""
        with suppress(Exception):  # it may never have started, and the engine may be gone
            self._container.stop()
        if self._held is not None:
            self._held.release()

    def _conninfo(self, upstream: Upstream) -> str:
        return replace(upstream, address=Address(self._reach.name, upstream.address.port)).conninfo

    def _try(self, script: str, **environment: str) -> tuple[int, str]:
        try:
            # Any: docker-py declares the results of all the ways to call exec_run at once.
            wrapped: Any = self._container.get_wrapped_container()
            done = wrapped.exec_run(
                ["bash", "-c", _SCRIPTS[script]],
                user="postgres",
                environment={"DATA": _DATA, "LC_ALL": "C", **environment},
            )
        except Exception as failed:  # the container is gone, or the engine is
            return -1, str(failed)
        return int(done.exit_code), bytes(done.output).decode(errors="replace")
