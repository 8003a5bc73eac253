"""Commits as a causality hears of them, without a database."""

from lagwise import Causality
from lagwise._client.causality import Commit


def announced(seen: Causality, system: int, window: float) -> Commit:
    """A transaction that began, and whose COMMIT is on its way."""
    commit = seen.begin(system, window)
    commit.announce()
    commit.ended()
    return commit
