"""What a server answers when it is asked where it stands, for tests that decide when it does."""

from typing import Any


def stands_at(lsn: int) -> dict[str, Any]:
    """The one row of a primary that has no replicas."""
    return {
        "in_recovery": False,
        "system": 7,
        "timeline": 1,
        "lsn": lsn,
        "flushed": None,
        "page": 8192,
        "segment": 16 << 20,
        "started": None,
        "port": 0,
        "database": 0,
        "processes": 0,
    }
