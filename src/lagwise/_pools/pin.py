"""A Router that is pinned to one cluster asks each new connection for writes which cluster it leads to.

The monitor finds out too, at its next probe. Until then a name may lead to a server of another cluster, and a write
over a new connection would be done there.
"""

from typing import Any

from sqlalchemy.engine import Connection

from lagwise._pools.driver import abandon
from lagwise.errors import NoPrimary

_SYSTEM = "lagwise.system"
_ASK = "SELECT system_identifier FROM pg_catalog.pg_control_system()"


def check_cluster(connection: Connection, pinned: int, name: str) -> None:
    """Raise `NoPrimary`, and close the connection, unless its server is of the pinned cluster. Asked once for each."""
    info = connection.info
    try:
        if _SYSTEM not in info:
            adapter: Any = connection.connection.dbapi_connection
            info[_SYSTEM] = adapter.run_async(lambda driver: driver.fetchval(_ASK)) % (1 << 64)
        if info[_SYSTEM] != pinned:
            raise NoPrimary(
                f"{name} leads to a server of another cluster than the one that system= names; nothing was sent"
            )
    except BaseException:
        abandon(connection)
        connection.invalidate()
        connection.close()
        raise
