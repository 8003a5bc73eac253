"""Servers as child processes of this one, on loopback, in one temporary directory."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from lagwise.testing.account import data_directory, reachable, server_account
from lagwise.testing.backend import Upstream
from lagwise.testing.binaries import Binaries
from lagwise.testing.errors import ClusterError
from lagwise.testing.server import HOST, LocalServer
from lagwise.testing.watchdog import Watchdog

# Settings for quick starts and crashes; none of them changes what a replica shows. fsync=off loses data when the
# machine dies, not when a server does. pg_rewind needs full_page_writes and wal_log_hints. The short
# intervals make a broken link show and mend within seconds instead of a minute.
SETTINGS: Mapping[str, str] = {
    "unix_socket_directories": "",
    "fsync": "off",
    "full_page_writes": "on",
    "wal_log_hints": "on",
    "wal_level": "replica",
    "wal_keep_size": "128MB",
    "hot_standby": "on",
    "shared_buffers": "32MB",
    "huge_pages": "off",
    # A killed server leaves its POSIX segments in /dev/shm for good; as files they go with the data.
    "dynamic_shared_memory_type": "mmap",
    "max_connections": "300",
    "max_wal_senders": "32",
    "max_replication_slots": "32",
    "wal_receiver_status_interval": "1s",
    "wal_retrieve_retry_interval": "100ms",
    "wal_sender_timeout": "5s",
    "wal_receiver_timeout": "5s",
    "log_line_prefix": "%m [%p] %q%a ",
}


class LocalBackend:
    """Runs the servers of one cluster from ``binaries``.

    Raises:
        ClusterError: On Windows, or as root without an account to lend.
    """

    gateway = HOST

    def __init__(self, binaries: Binaries) -> None:
        self.version = binaries.version
        self.origin = f"{binaries.origin}: {binaries.path}"
        self._account = server_account()
        self._binaries = reachable(binaries, self._account)
        self._root = data_directory(self._account)
        self._watchdog = Watchdog(self._root, self._account)
        self._servers: list[LocalServer] = []
        self._lock = threading.Lock()
        self._closed = False

    def create_primary(self, name: str, *, user: str, password: str, settings: Mapping[str, str]) -> LocalServer:
        """``initdb`` and start."""
        server = self._server(name)
        secret = self._root / "password"
        secret.write_text(password)
        secret.chmod(0o600)
        self._account.give(secret)
        server.run(
            "initdb", "--pgdata", str(server.data), "--username", user, "--pwfile", str(secret),
            "--auth=scram-sha-256", "--locale=C", "--encoding=UTF8", "--no-sync", "--no-instructions",
        )  # fmt: skip
        secret.unlink()
        with (server.data / "postgresql.conf").open("a") as conf:
            conf.writelines(f"{key} = {_quoted(value)}\n" for key, value in {**SETTINGS, **settings}.items())
        server.start()
        return server

    def create_replica(self, name: str, upstream: Upstream) -> LocalServer:
        """``pg_basebackup`` and start."""
        server = self._server(name)
        server.clone(upstream)
        server.point_at(upstream)
        server.start()
        return server

    def close(self) -> None:
        """End every server and delete the directory. Safe to call twice."""
        with self._lock:
            self._closed = True
            servers = list(self._servers)
        # Standbys first: a primary that ends sends them what is left.
        for server in reversed(servers):
            server.close()
        self._watchdog.close()

    def _server(self, name: str) -> LocalServer:
        with self._lock:
            if self._closed:
                message = "This cluster is closed."
                raise ClusterError(message)
            server = LocalServer(name, self._root, self._binaries, self._account)
            self._servers.append(server)
        return server


def _quoted(value: str) -> str:
    """A value for postgresql.conf: https://www.postgresql.org/docs/current/config-setting.html."""
    escaped = value.replace("\\", "\\\\").replace("'", "''")
    return f"'{escaped}'"
