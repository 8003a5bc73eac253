"""HTTP, as the middleware, its dependencies and a client of another service know it: methods, the header, ASGI."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

# https://www.rfc-editor.org/rfc/rfc9110#name-safe-methods; QUERY is a safe method with a body:
# https://datatracker.ietf.org/doc/draft-ietf-httpbis-safe-method-w-body/
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "QUERY"})

HEADER = "Lagwise-Token"
HEADER_OF_ASGI = HEADER.lower().encode()
MOST_TEXTS = 16
"""The tokens that are read of this header, in one request or answer."""


def texts_of(value: str, most: int = MOST_TEXTS) -> list[str]:
    """The first texts of the header's value, a list with commas; no more of a long value is looked at.

    >>> texts_of("one, two,three", most=2)
    ['one', 'two']
    """
    return parted(value, most)[0]


def parted(value: str, most: int) -> tuple[list[str], str]:
    """The first texts of the header's value, and the rest of it, which is not looked at."""
    texts = value.split(",", most)
    return [text.strip() for text in texts[:most]], "".join(texts[most:])
