"""What a request brought: the tokens in its headers and cookies that are this application's."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from lagwise._client.cookies import MOST_BYTES, MOST_HEADERS, Jar
from lagwise._client.doubts import doubt
from lagwise._client.http import HEADER_OF_ASGI, MOST_TEXTS, parted
from lagwise._client.signature import SHORTEST, Seal, plausible
from lagwise._decide.events import Event, TokenBrought, TokenIgnored
from lagwise._decide.token import CausalToken, merged
from lagwise._say import say
from lagwise.errors import InvalidToken

_COOKIE = b"cookie"
_OURS = frozenset({HEADER_OF_ASGI, _COOKIE})
# What is verified of one request: an HMAC each, a few microseconds.
_COOKIE_TEXTS = 64
# Of all cookies that have our names, in all headers, so many are looked at.
_MOST_COOKIES = 1024
# A client brings the same headers until it writes again: 256 requests are remembered, in less than 1 MB.
_REMEMBERED, _MOST_REMEMBERED = 256, 2048  # bytes of header


@dataclass(frozen=True, slots=True)
class Brought:
    """What a request brought.

    Attributes:
        token: everything that was verified, merged; None for nothing.
        names: the cookies that `token` covers.
        slots: how many of them are slots.
        client: a number for the tokens brought: requests that were sent together share it.
        untold: that a token was brought, and why texts that look like tokens are none, each reason once.
    """

    token: CausalToken | None = None
    names: tuple[str, ...] = ()
    slots: int = 0
    client: int = 0
    untold: tuple[Event, ...] = ()


NOTHING = Brought()


class Reader:
    """Reads tokens from a request's headers; text that no secret of this application signed is ignored."""

    def __init__(self, seal: Seal, jar: Jar) -> None:
        self._seal = seal
        self._jar = jar
        self._remembered = lru_cache(_REMEMBERED)(self._read)

    def read(self, headers: Iterable[tuple[bytes, bytes]]) -> Brought:
        """What these headers bring.

        Bounded: the first 16 texts of `Lagwise-Token`, and the first 64 cookies that are named and shaped like tokens,
        in the first 1,024 headers of these two names and the first 128 KB of cookies. Where sixteen texts are tokens of
        this application and more are left over, a doubt stands for those.
        """
        found: list[bytes] = []
        for name, value in headers:
            if name in _OURS:
                found += (name, value)
                if len(found) >= 2 * MOST_HEADERS:
                    break
        if not found:
            return NOTHING
        return self._remembered(*found) if sum(map(len, found)) <= _MOST_REMEMBERED else self._read(*found)

    def _read(self, *found: bytes) -> Brought:
        texts: list[str] = []
        left_over = False
        cookies: dict[tuple[str, str], None] = {}
        room, looks, left = MOST_TEXTS, _MOST_COOKIES, MOST_BYTES
        for name, value in zip(found[::2], found[1::2], strict=True):
            if name == HEADER_OF_ASGI:
                listed, rest = parted(value.decode("latin-1"), room)
                room -= len(listed)
                texts += listed
                left_over |= len(rest) >= SHORTEST
            else:
                named = self._jar.brought(value[:left].decode("latin-1"), looks)
                looks, left = looks - len(named), max(0, left - len(value))
                for cookie in named:
                    if len(cookies) < _COOKIE_TEXTS and self._jar.holds(*cookie):
                        cookies[cookie] = None
        ignored: dict[str, None] = {}
        every = dict.fromkeys([*filter(plausible, texts), *(text for _, text in cookies)])
        tokens = {text: self._verified(text, ignored) for text in every}
        names = tuple(dict.fromkeys(name for name, text in cookies if tokens[text]))
        untold = tuple(TokenIgnored(why=why) for why in ignored)
        if not any(tokens.values()):
            return Brought(untold=untold) if untold else NOTHING
        token = merged(token for token in tokens.values() if token)
        # A client that writes in parallel sends all tokens that it got, and the greatest may be any of them. Texts that
        # are no tokens send no reads to the primary.
        if left_over and all(map(tokens.get, texts)):
            token = token.including([doubt()])
        return Brought(
            token=token,
            names=names,
            slots=sum(map(self._jar.is_slot, names)),
            client=hash((*tokens,)),
            untold=(TokenBrought(), *untold),
        )

    def _verified(self, text: str, ignored: dict[str, None]) -> CausalToken:
        try:
            return self._seal.opened(text)
        except InvalidToken as error:
            ignored[str(error)] = None
            say(logging.DEBUG, "token-ignored", reason=str(error))
            return CausalToken()
