"""What the text of a variable means. No error repeats it: it may be a URL with a password, or a secret."""

import re
from collections.abc import Sequence
from itertools import chain, count
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from lagwise._decide.identity import system_identifier
from lagwise._pools.urls import ASYNCPG, NAME, url_of

_LARGEST = 65_536  # bytes of a mounted file
_DRIVERS = {ASYNCPG, "sqlite+aiosqlite"}  # SQLite is for unit tests
# Between two URLs, and not inside one: a comma may be part of a password or of an option.
_BETWEEN = re.compile(rf"[,\s]+(?=(?:{NAME}=)?[A-Za-z][A-Za-z0-9+.]*://)")
_NAMED = re.compile(rf"(?:({NAME})=)?([A-Za-z][A-Za-z0-9+.]*://.*)", re.DOTALL)


def url(value: Any) -> SecretStr:
    """The URL, with asyncpg as the driver where it names none. What it says is in no message: it holds a password."""
    text = (value.get_secret_value() if isinstance(value, SecretStr) else str(value)).strip()
    scheme = url_of(text).drivername
    if scheme not in _DRIVERS:
        raise ValueError("names another driver than asyncpg: write postgresql+asyncpg://...")
    return SecretStr(f"{scheme}://{text.partition('://')[2]}")


def urls(value: Any) -> Any:
    """The URLs by name; those without one are numbered by their place."""
    if not isinstance(value, str):
        return value
    parts = _BETWEEN.split(value.strip(", \n\r\t"))
    return by_name(parts, "at place", taken=("primary",))


def by_name(texts: Sequence[str], place: str, *, taken: Sequence[str] = ()) -> dict[str, SecretStr]:
    """Nodes as `URL` or `name=URL`, by name: without one it is `primary` for the first, unless that is `taken`.

    Raises:
        ValueError: one of them is no URL of a database, or repeats a name. `place` and its number say which.
    """
    unnamed = chain([] if "primary" in taken else ["primary"], (f"replica-{number}" for number in count(1)))
    found: dict[str, SecretStr] = {}
    for number, (text, otherwise) in enumerate(zip(texts, unnamed, strict=False), 1):
        match = _NAMED.fullmatch(text.strip())
        if match is None:
            raise ValueError(f"{place} {number} is no database URL: write postgresql+asyncpg://..., or name=URL")
        name = match[1] or otherwise
        if name in found or name in taken:
            raise ValueError(f"{place} {number} repeats a name: each node has one of its own")
        try:
            found[name] = url(match[2])
        except ValueError as error:
            raise ValueError(f"{place} {number} {error}") from None
    return found


def secrets(value: Any) -> Any:
    """The secrets between the commas."""
    if not isinstance(value, str):
        return value
    parts = [part.strip() for part in value.split(",")]
    if not all(parts):
        raise ValueError("holds an empty secret: write one secret, or several with commas between them")
    return parts


def system(value: Any) -> Any:
    """The system identifier."""
    try:
        return None if value is None else str(system_identifier(value))
    except ValueError:
        raise ValueError("is no system identifier: write the 64-bit number that pg_controldata shows") from None


def content(path: str, variable: str) -> str:
    """What the file says that this variable names, without white space around it."""
    failed, raw, said = "", b"", ""
    try:
        with Path(path).open("rb") as file:
            raw = file.read(_LARGEST + 1)
        said = raw.decode().strip()
    except (OSError, ValueError) as error:
        failed = f"cannot be read ({type(error).__name__})"
    if not failed and len(raw) > _LARGEST:
        failed = f"is above {_LARGEST} bytes"
    elif not failed and not said:
        failed = "is empty"
    if failed:  # raised here, so that the path is no part of it: a secret may be in the wrong variable
        raise ValueError(f"{variable} names a file that {failed}")
    return said
