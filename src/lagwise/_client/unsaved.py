"""What a process could not store for one principal."""

import asyncio
from dataclasses import dataclass, field

from lagwise._client.signature import Seal
from lagwise._decide.token import CausalToken


@dataclass(slots=True)
class Unsaved:
    """What could not be stored for one principal. `until` is monotonic, seconds; after it no client needs the token."""

    token: CausalToken
    seal: Seal
    window: float
    until: float
    saved: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, token: CausalToken, window: float, until: float) -> None:
        """Keep this token as well, for as long as either may be needed."""
        self.token, self.until = self.token.merge(token), until
        self.window = max(self.window, window)
