"""The nodes to look at: URLs of the command line or of the environment, each with a name and the role meant for it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from lagwise._decide.node import Role
from lagwise._pools.targets import PRIMARY
from lagwise.settings import Settings

MOST = 64
"""The most nodes: each is asked over four connections at a time."""
_NAMED = re.compile(r"([A-Za-z0-9_.-]{1,63})=(.+)", re.DOTALL)
_WITHOUT_DRIVER = re.compile(r"^postgres(ql)?://")
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


def configured(settings: Settings) -> list[str]:
    """The URLs that the environment names, the primary's first."""
    if settings.primary is None:
        return []
    replicas = (f"{name}={url.get_secret_value()}" for name, url in settings.replicas.items())
    return [settings.primary.get_secret_value(), *replicas]


def named(urls: Sequence[str]) -> tuple[Named, ...]:
    """The nodes of these URLs: the first is the primary, `name=url` gives a name; the driver is asyncpg.

    Raises:
        ValueError: there is none, or one cannot be read. The message never has the URL in it.

    >>> [one.name for one in named(["postgresql+asyncpg://a/b", "east=postgresql+asyncpg://c/b"])]
    ['primary', 'east']
    """
    if not urls:
        raise ValueError("no node to look at: give URLs, the primary's first, or set LAGWISE_PRIMARY")
    if len(urls) > MOST:
        raise ValueError(f"{len(urls)} nodes are more than {MOST}")
    found = tuple(_each(urls))
    names = [one.name for one in found]
    if len(set(names)) < len(names):
        raise ValueError("two nodes have the same name")
    return found


def _each(urls: Sequence[str]) -> Iterator[Named]:
    for number, text in enumerate(urls):
        given = _NAMED.fullmatch(text)
        name = given[1] if given else PRIMARY if number == 0 else f"replica-{number}"
        place = f"URL {number + 1}, of {name},"
        try:
            url = make_url(_WITHOUT_DRIVER.sub("postgresql+asyncpg://", given[2] if given else text))
        except (ArgumentError, ValueError):
            raise ValueError(
                f"{place} cannot be read; write postgresql+asyncpg://user:password@host/database"
            ) from None
        if url.get_backend_name() != "postgresql" or url.drivername != "postgresql+asyncpg":
            raise ValueError(f"{place} names another driver than asyncpg: write postgresql+asyncpg://...")
        yield Named(name, Role.PRIMARY if number == 0 else Role.REPLICA, url)
