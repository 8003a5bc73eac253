"""A store of principals in the memory of one process."""

import os
import time
from collections import OrderedDict

from lagwise._client.doubts import doubt
from lagwise._client.signature import Seal
from lagwise._client.store import MARGIN, Store, kept_for
from lagwise._decide.token import CausalToken

_NOTHING = CausalToken()


class MemoryStore(Store):
    """Keeps what principals have seen in the memory of this process: for applications that run as one process.

    It knows nothing of the time before its first use in this process, also where it was made before a fork: for a
    sticky window from then on, principals that it does not know read from the primary. It is bounded: when it is full,
    the principal that wrote longest ago is forgotten, and for as long as that one's token would have been kept, unknown
    principals read from the primary.

    Args:
        principals: the most that are kept at a time; each takes about half a kilobyte.
        keep: seconds for which a token is kept at least; the default is the sticky window and a minute.

    Raises:
        ValueError: `principals` is below 1, or `keep` is negative.
    """

    __module__ = "lagwise.store"

    def __init__(self, *, principals: int = 100_000, keep: float = 0.0) -> None:
        if principals < 1:
            raise ValueError(f"principals must be at least 1, not {principals!r}")
        if not keep >= 0:
            raise ValueError(f"keep must be a number of seconds, at least 0, not {keep!r}")
        self._most = principals
        self._keep = keep
        self._process = 0
        self._since = time.monotonic()
        self._kept: OrderedDict[str, tuple[CausalToken, float]] = OrderedDict()
        self._forgotten_until = 0.0

    async def recall(self, name: str, seal: Seal, window: float) -> CausalToken:
        """What this principal has seen; with a doubt where it may have been forgotten."""
        self._own()
        now = time.monotonic()
        token, until = self._kept.get(name, (_NOTHING, 0.0))
        if now <= until:
            return token
        if now < self._forgotten_until or now < self._since + window + MARGIN:
            return CausalToken.of([doubt()])
        return _NOTHING

    async def remember(self, name: str, token: CausalToken, seal: Seal, window: float) -> None:
        """Merge this token into what the principal has seen."""
        self._own()
        now = time.monotonic()
        before, until = self._kept.get(name, (_NOTHING, 0.0))
        if now > until and (now < self._forgotten_until or now < self._since + window + MARGIN):
            # What was forgotten of this principal is not in the new token.
            before = CausalToken.of([doubt()])
        elif now > until:
            before = _NOTHING
        self._kept[name] = before.merge(token), max(until, now + kept_for(window, self._keep))
        self._kept.move_to_end(name)
        while len(self._kept) > self._most:
            _, (_, until) = self._kept.popitem(last=False)
            self._forgotten_until = max(self._forgotten_until, until)

    async def aclose(self) -> None:
        """Nothing to let go of: what is known stays."""

    def _own(self) -> None:
        """Begin anew with the first use in a process.

        The race: a server forks its workers one after the other from a process that is hours old. What the worker
        before has stored is not in the copy that the next one gets, and the age of the copy would vouch for it.
        """
        if self._process != os.getpid():
            self._process, self._since, self._forgotten_until = os.getpid(), time.monotonic(), 0.0
            self._kept.clear()
