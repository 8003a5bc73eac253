"""A platform for which PostgreSQL's parser has no wheel."""

import pytest

from lagwise._decide import parse
from lagwise._decide.catalog import BUILT_IN, UNREAD


def take_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """No text can be parsed for the rest of the test; what was judged meanwhile is forgotten after it."""
    for catalog in (BUILT_IN, UNREAD):
        for generation in ("young", "_old"):
            monkeypatch.setattr(catalog.judged, generation, {})
    monkeypatch.setattr(parse, "pgparse", None)
