"""The nodes to look at: URLs of the command line or of the environment, each with a name and the role meant for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import SecretStr
from sqlalchemy import URL, make_url

from lagwise._decide.node import Role
from lagwise._pools.targets import PRIMARY
from lagwise.settings import Settings
from lagwise.settings.text import by_name

MOST = 64
"""The most nodes: each is asked over four connections at a time."""
_NONE = "no node to look at: give URLs, the primary's first, or set LAGWISE_PRIMARY"
# What SQLAlchemy's dialect keeps for itself of the options in a URL.
_NOT_THE_DRIVERS = {"prepared_statement_cache_size", "prepared_statement_name_func", "async_creator_fn"}
_SECRET_OPTIONS = {"host", "password"}


@dataclass(frozen=True, slots=True)
class Named:
    """A node as configured."""

    name: str
    expected: Role
    url: URL = field(repr=False)  # it may hold a password

    @property
    def hidden(self) -> tuple[str, ...]:
        """Texts that no output may contain: hosts and passwords."""
        found = [self.url.host, self.url.password]
        for key in _SECRET_OPTIONS & set(self.url.query):
            values = self.url.query[key]
            for value in (values,) if isinstance(values, str) else values:
                found += [value, value.partition(":")[0]]
        return tuple(str(each) for each in found if each)

    def arguments(self) -> dict[str, Any]:
        """What asyncpg is called with, as SQLAlchemy reads the URL. Raises what SQLAlchemy raises."""
        _, options = self.url.get_dialect()().create_connect_args(self.url)
        return {key: value for key, value in options.items() if key not in _NOT_THE_DRIVERS}


def configured(settings: Settings) -> tuple[Named, ...]:
    """The nodes that the environment names, the primary first. Raises as `named()`."""
    if settings.primary is None:
        raise ValueError(_NONE)
    return _meant({PRIMARY: settings.primary, **settings.replicas})


def named(urls: Sequence[str]) -> tuple[Named, ...]:
    """The nodes of these URLs: the first is the primary, `name=url` gives a name; the driver is asyncpg.

    Raises:
        ValueError: there is none, or one cannot be read. The message never has the URL in it.

    >>> [one.name for one in named(["postgresql+asyncpg://a/b", "east=postgresql+asyncpg://c/b"])]
    ['primary', 'east']
    """
    if not urls:
        raise ValueError(_NONE)
    return _meant(by_name(urls, "URL number"))


def _meant(urls: Mapping[str, SecretStr]) -> tuple[Named, ...]:
    if len(urls) > MOST:
        raise ValueError(f"{len(urls)} nodes are more than {MOST}")
    found = tuple(
        Named(name, Role.REPLICA if number else Role.PRIMARY, make_url(url.get_secret_value()))
        for number, (name, url) in enumerate(urls.items())
    )
    for one in found:
        if one.url.get_backend_name() != "postgresql":
            raise ValueError(f"{one.name} is no PostgreSQL server: write postgresql+asyncpg://... as its URL")
    return found
