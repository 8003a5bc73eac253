"""A real PgBouncer before the nodes of a cluster, and Routers that reach the nodes through it."""

import asyncio
import shutil
import signal
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import asyncpg  # type: ignore[import-untyped]
import pytest
from sqlalchemy import make_url

from lagwise import Policy, Router
from lagwise.testing import Cluster, Proxy, wait_until
from lagwise.testing.account import server_account
from lagwise.testing.backend import Address

PGBOUNCER = "/usr/sbin/pgbouncer"
SERVERS = 5
"""Server connections for each node."""
_CONFIGURATION = """
[databases]
{databases}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {folder}/users
admin_users = {user}
pool_mode = {mode}
default_pool_size = {servers}
max_client_conn = 500
server_login_retry = 0.2
query_wait_timeout = 10
ignore_startup_parameters = {ignored}
logfile = {folder}/log
pidfile = {folder}/pid
"""


class Bouncer:
    """A PgBouncer that runs. `url(name)` is a node behind it, by way of a proxy that counts round trips."""

    def __init__(self, cluster: Cluster, folder: Path, port: int, mode: str, ignored: str) -> None:
        self._cluster = cluster
        self._folder = folder
        self._port = port
        self._mode = mode
        self._ignored = ignored
        self.proxy = Proxy(Address("127.0.0.1", port))
        """Between the driver and PgBouncer."""
        self.pid = 0

    def write(self, **databases: str) -> None:
        """Write the configuration: these databases lead to the nodes of these names; by default each to its own."""
        leads = {name: databases.get(name, name) for name in self._cluster.nodes}
        lines = []
        for name, node in leads.items():
            url = make_url(self._cluster[node].url)
            lines.append(
                f"{_database(name)} = host={url.host} port={url.port} dbname={url.database} "
                f"user={url.username} password={url.password}"
            )
        user = make_url(self._cluster.primary.url).username
        text = _CONFIGURATION.format(
            databases="\n".join(lines), port=self._port, folder=self._folder, user=user, mode=self._mode,
            servers=SERVERS, ignored=self._ignored,
        )  # fmt: skip
        (self._folder / "conf").write_text(text)
        (self._folder / "users").write_text(f'"{user}" ""\n')

    def url(self, name: str) -> str:
        """The node of this name, through the proxy and PgBouncer."""
        url = make_url(self._cluster[name].url).set(
            host=self.proxy.address.host, port=self.proxy.address.port, database=_database(name), password=None
        )
        return url.render_as_string()

    @property
    def urls(self) -> dict[str, str]:
        """All nodes."""
        return {name: self.url(name) for name in self._cluster.nodes}

    def router(self, policy: Policy | None = None, **options: Any) -> Router:
        """A Router on all nodes, through PgBouncer in its mode."""
        primary, *replicas = self._cluster.nodes
        options = {"pooling": "transaction" if self._mode == "transaction" else "session", **options}
        return Router(self.url(primary), {name: self.url(name) for name in replicas}, policy=policy, **options)

    async def reload(self, **databases: str) -> None:
        """Let databases lead to other nodes, as after a failover, and close the server connections that do not."""
        self.write(**databases)
        await self.ask("RELOAD")
        await self.ask("RECONNECT")

    async def switch(self, mode: str) -> None:
        """Change the pool mode while it runs."""
        self._mode = mode
        await self.reload()

    async def ask(self, command: str) -> list[Any]:
        """Run a command of PgBouncer's console."""
        driver = await self.stranger("pgbouncer")
        try:
            return await driver.fetch(command) if command.startswith("SHOW") else [await driver.execute(command)]
        finally:
            driver.terminate()

    async def stranger(self, database: str) -> Any:
        """Another client's connection, past the proxy: to the node of this name, or to the console."""
        user = make_url(self._cluster.primary.url).username
        return await asyncpg.connect(
            host="127.0.0.1", port=self._port, user=user, database=_database(database), statement_cache_size=0
        )

    async def all_servers(self, name: str) -> list[dict[str, Any]]:
        """What each of a node's server connections tells a stranger: all at once, so that each is a different one."""
        drivers = [await self.stranger(name) for _ in range(SERVERS)]
        try:
            for driver in drivers:
                await driver.execute("BEGIN")
            return [dict(await driver.fetchrow(_STATE)) for driver in drivers]
        finally:
            for driver in drivers:
                await driver.execute("ROLLBACK")
                await driver.close()


_STATE = """SELECT pg_backend_pid() AS pid, current_setting('default_transaction_read_only') AS fence,
  current_setting('default_transaction_isolation') AS isolation, current_setting('search_path') AS path,
  coalesce(current_setting('app.tenant', true), '') AS tenant,
  (SELECT count(*) FROM pg_prepared_statements) AS prepared,
  (SELECT count(*) FROM pg_listening_channels()) AS listening,
  (SELECT count(*) FROM pg_class WHERE relnamespace = pg_my_temp_schema()) AS temporary,
  (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()) AS locks,
  (SELECT coalesce(string_agg(name, ','), '') FROM pg_settings WHERE source = 'session'
   AND name NOT IN ('client_encoding', 'application_name', 'TimeZone', 'DateStyle', 'transaction_isolation',
                    'standard_conforming_strings', 'transaction_read_only', 'transaction_deferrable')) AS settings"""


@asynccontextmanager
async def bouncer(cluster: Cluster, *, mode: str = "transaction", ignored: str = "") -> AsyncIterator[Bouncer]:
    """A PgBouncer before all nodes of this cluster; `ignored`: startup parameters it passes over."""
    if not Path(PGBOUNCER).exists():
        pytest.skip("pgbouncer is not installed: apt-get install pgbouncer")
    account = server_account()
    with _folder() as folder, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
        free.close()
        account.give(folder)
        made = Bouncer(cluster, folder, port, mode, ignored)
        made.write()
        # PgBouncer refuses to run as root.
        process = account.popen([PGBOUNCER, "-q", str(folder / "conf")], cwd=folder)
        made.pid = process.pid
        try:
            await wait_until(lambda: _listens(port), what="PgBouncer")
            async with made.proxy:
                yield made
        finally:
            process.send_signal(signal.SIGTERM)
            await asyncio.to_thread(process.wait, 10)


@contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="bouncer-", dir="/tmp"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _database(name: str) -> str:
    return name.replace("-", "_")


def _listens(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0
