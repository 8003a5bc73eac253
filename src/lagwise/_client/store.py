"""What a store of principals is: it keeps what each principal has seen, for clients that bring no token."""

import asyncio
import hashlib
from typing import Protocol

from lagwise._client.signature import Seal
from lagwise._decide.token import SKEW, CausalToken, Position
from lagwise.errors import RoutingError

# A request acts for one principal, or for a user and an organisation; a gateway's WebSocket for a few.
_MOST_KEYS = 16
# What was acknowledged a whole window ago needs no token: this much later no replica in rotation misses it, also where
# a clock's last digit was cut off. Seconds.
MARGIN = 1.0


class Store(Protocol):
    """Keeps one causal token for each name, merged, and never replaces it by an older one.

    Neither method raises because of the store, and each ends within the bound that the store states.
    """

    async def recall(self, name: str, seal: Seal, window: float) -> CausalToken:
        """What was remembered under this name; with a doubt where it cannot be known whether that is everything.

        `window` is the sticky window of the caller, seconds: what is older need not be known.
        """
        ...

    async def remember(self, name: str, token: CausalToken, seal: Seal, window: float) -> None:
        """Merge this token into what is known under this name, for the window and a minute more.

        When this returns, each later `recall` of the name, in any process, covers the token or contains a doubt.
        """

    async def aclose(self) -> None:
        """Let go of what is held; the next use begins anew."""


class Principals:
    """The principals that one request acts for: what it learns of them, and what it leaves for their other clients."""

    __slots__ = ("_names", "_saved", "_seal", "_store")

    def __init__(self, store: Store, seal: Seal) -> None:
        self._store = store
        self._seal = seal
        self._names: dict[str, None] = {}
        self._saved = -1

    async def recall(self, key: str, window: float) -> CausalToken:
        """Act for this principal from now on; answers what it has seen.

        Raises:
            TypeError: the key is no string.
            ValueError: the key is empty, and would be everyone's.
            RoutingError: the request acts for sixteen others already.
        """
        name = name_of(key)
        if name not in self._names:
            if len(self._names) >= _MOST_KEYS:
                raise RoutingError(
                    f"one request or WebSocket has named {_MOST_KEYS} principals: identify() takes no more"
                )
            self._names[name] = None
            self._saved = -1
        return await self._store.recall(name, self._seal, window)

    @property
    def first(self) -> str | None:
        """The name of the first principal, None before there is one."""
        return next(iter(self._names), None)

    def lack(self, changes: int) -> bool:
        """Whether the store may lack something, after so many changes of the causality."""
        return bool(self._names) and changes != self._saved

    async def remember(self, token: CausalToken, changes: int, window: float) -> None:
        """Give this token to the store, for each of the principals. `changes` is the causality's count with it."""
        if token.crowded_until:
            # What a crowd's other answers have told is known to none of the principal's other clients.
            token = token.including([Position(system=0, in_doubt_at=token.crowded_until)])
        names = tuple(self._names)
        await asyncio.gather(*(self._store.remember(name, token, self._seal, window) for name in names))
        if len(names) == len(self._names):  # one that was named meanwhile lacks it
            self._saved = changes


def name_of(key: str) -> str:
    """A name of 64 characters for a key of any length and content; two keys have two names.

    No secret is part of the name: while secrets rotate, processes sign with different ones.
    """
    if not isinstance(key, str):
        raise TypeError(f"the key of a principal must be a string, not {type(key).__name__}")
    if not key:
        raise ValueError("the key of a principal must not be empty: every client without one would share it")
    return hashlib.sha256(b"lagwise.principal\0" + key.encode("utf-8", "surrogatepass")).hexdigest()


def kept_for(window: float, keep: float) -> float:
    """How long a token is kept, seconds: as long as a doubt binds a client, or as the store was told."""
    return max(window + SKEW, keep)
