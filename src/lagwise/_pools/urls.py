"""What a node is given as: a URL or an engine. No error repeats a URL, or chains one that does: it has a password."""

from sqlalchemy import URL, Engine, make_url
from sqlalchemy.ext.asyncio import AsyncEngine

from lagwise._given import a_kind

POSTGRESQL, ASYNCPG = "postgresql", "postgresql+asyncpg"
_MEANT = {"postgres": ASYNCPG, POSTGRESQL: ASYNCPG}  # a URL without a driver: SQLAlchemy would take psycopg
NAME = r"[^=:/?#@,\s]+"
"""What a node may be called: logs, headers and `name=URL` have it, and a URL is none."""
_HIGHEST_PORT = 65_535


def target_of(given: object, of: str) -> URL | AsyncEngine:
    """The URL or the engine that was given; `of` is the setting.

    A DSN of pydantic is refused: it is no `str`, and what its text is depends on its kind.

    Raises:
        ValueError: it is neither, is a URL that makes no sense, or has a driver that cannot be used.
    """
    if isinstance(given, Engine):
        raise ValueError(f"{of} is an Engine, which is not asynchronous: make it by create_async_engine()")
    if isinstance(given, AsyncEngine):
        url = given.url
        if url.get_backend_name() == POSTGRESQL and url.get_driver_name() != "asyncpg":
            raise ValueError(f"{of} is an engine of another driver than asyncpg: make it of postgresql+asyncpg://...")
        return given
    if not isinstance(given, str | URL):
        raise ValueError(
            f"{of} must be a URL (a str or a sqlalchemy.URL) or an AsyncEngine, not {a_kind(given)}; "
            "of a DSN of pydantic give str(dsn)"
        )
    try:
        url = url_of(given)
    except ValueError as error:
        raise ValueError(f"{of} {error}") from None
    if not _is_async(url):
        raise ValueError(f"{of} names a database or a driver that SQLAlchemy does not have, or not for asyncio")
    return url


def url_of(given: str | URL) -> URL:
    """This URL, with asyncpg where it names no driver. Raises `ValueError`: its words follow the name of a setting."""
    url = _parsed(given)
    if url is None:
        raise ValueError("is no database URL: write postgresql+asyncpg://user:password@host/database")
    if url.get_backend_name() == POSTGRESQL and url.get_driver_name() != "asyncpg":
        raise ValueError("names another driver than asyncpg: write postgresql+asyncpg://...")
    if "://" in (url.database or ""):
        raise ValueError("is more than one URL: give one, and each replica's among the replicas")
    if url.port is not None and not 0 < url.port <= _HIGHEST_PORT:
        raise ValueError(f"has a port that is not between 1 and {_HIGHEST_PORT}")
    return url


def _parsed(given: str | URL) -> URL | None:
    """The URL, or None; its error would be the context of any that is raised while it is handled."""
    try:
        url = make_url(given.strip() if isinstance(given, str) else given)
    except Exception:
        return None
    scheme = url.drivername.lower()  # https://www.rfc-editor.org/rfc/rfc3986#section-3.1
    return url.set(drivername=_MEANT.get(scheme, scheme))


def _is_async(url: URL) -> bool:
    try:
        return url.get_dialect().get_async_dialect_cls(url).is_async
    except Exception:  # no such dialect, or its package fails when it is imported
        return False
