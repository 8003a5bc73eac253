"""What the application's `connect` listeners say to the server: the names of settings that no view lists."""

import re
from typing import Any

_SETS = re.compile(r"\b(?:set|set_config)\b", re.IGNORECASE)
_DOTTED = re.compile(r"\b[a-z_][\w$]{0,62}(?:\.[a-z_][\w$]{0,62}){1,3}", re.IGNORECASE)
_MOST_TEXT, _MOST_NAMES = 10_000, 100  # of what a listener sends: characters a statement, names


class Heard:
    """The statements that the application's listeners send while they set a connection up; `began`: since when."""

    def __init__(self, began: float) -> None:
        self.began = began
        self.names: dict[str, None] = {}
        """Names that may be settings of the application's own."""
        self.authorises = False

    def query(self, query: Any) -> None:
        """A query that the driver has run: asyncpg's `LoggedQuery`."""
        self.text(" ".join((query.query, *(arg for arg in query.args or () if isinstance(arg, str)))))

    def text(self, sent: str) -> None:
        """Find the names in what was sent."""
        sent = sent[:_MOST_TEXT].replace('"', "")
        if _SETS.search(sent):
            self.authorises = self.authorises or "session authorization" in " ".join(sent.lower().split())
            for name in _DOTTED.findall(sent):
                if len(self.names) < _MOST_NAMES and not name.startswith("pg_catalog."):
                    self.names[name] = None
