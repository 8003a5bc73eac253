"""The text of a server's error for the log: without hosts, ports, passwords and URLs."""

import re
from collections.abc import Iterable

_LONGEST = 200
_SECRET = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"\b[a-z][a-z0-9+.-]*://\S+",  # a URL
        r"\b(?:password|passwd|pwd|secret|token|key)\s*[=:]\s*\S+",
        r"\(\s*'[^']*'\s*,\s*\d+[^)]*\)",  # ('host', 5432), as the operating system's errors have it
        r"\b(?:host|hostname|host name|address|server at|port|for)\s+(?:\"[^\"]*\"|'[^']*'|(?=\S*[.:\d])\S+)"
        r"(?:\s*,?\s*port\s+\d+)?",
        r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?(?![\w.])",
        r"\[?(?<![\w:])(?:[0-9a-f]{0,4}:){2,7}[0-9a-f]{0,4}(?:%\w+)?\]?(?::\d+)?(?![\w:])",
        r"(?<!\w)/(?:[\w.-]+/)+[\w.-]*",  # a path, of a socket for instance
        r"[A-Za-z0-9+/_-]{32,}={0,2}",  # long and meaningless: a key or a token
    )
)
# https://www.postgresql.org/docs/current/auth-password.html: the server does not tell which it is.
_ADDED = {"28P01": ", or the role does not exist: the server says the same of both"}


def in_words(kind: str, sqlstate: str | None, said: str, hide: Iterable[str] = ()) -> str:
    """Class, SQLSTATE and the first line of what was said; `hide` are texts known to be secret.

    >>> in_words("InvalidCatalogNameError", "3D000", 'database "nowhere" does not exist')
    'InvalidCatalogNameError (3D000): database "nowhere" does not exist'
    >>> in_words("OSError", None, "Connect call failed ('10.0.0.7', 5432)")
    'OSError: Connect call failed ...'
    """
    line = (said.strip().splitlines() or [""])[0]
    for secret in sorted(filter(None, hide), key=len, reverse=True):
        line = line.replace(secret, "...")
    for pattern in _SECRET:
        line = pattern.sub("...", line)
    state = f" ({sqlstate})" if sqlstate else ""
    line = line[:_LONGEST] + _ADDED.get(sqlstate or "", "")
    return f"{kind}{state}: {line}" if line else f"{kind}{state}"
