"""What a text that was not parsed may do, judged by the words that begin its statements.

It is too long, or no wheel of the parser is there, or the parser does not know its syntax: all that a call in it may
do counts as unseen code. But what ends a transaction, or sets what outlives one, is a statement of its own.
"""

import re

from lagwise._decide.effect import UNSEEN, Effect

# In a name, $ begins no dollar quote. To PostgreSQL every character beyond ASCII may be part of a name.
_TOKEN = re.compile(
    r"""'[^']*'?|"[^"]*"?|--[^\n\r]*|/\*|(?<![\w$\x80-\U0010ffff])\$(?:[A-Za-z_\x80-\U0010ffff][\w\x80-\U0010ffff]*)?\$"""
)
_COMMENT = re.compile(r"/\*|\*/")
# Each is looked for behind a semicolon. Where a comment may hide a word, a statement counts as the worst it may be.
_MEANINGS = [
    (re.compile(rf";\s*(?:{words})", re.ASCII), effect)
    for words, effect in (
        (
            r"(?:commit|end|abort)\b|--|/\*|rollback\b(?!(?:\s+(?:work|transaction))?\s+to\b)"
            r'|prepare\b(?!\s+(?!transaction\b)[\w"])',
            Effect.ENDS,
        ),
        (r"(?:begin|start)\b", Effect.BEGINS),
        (
            r"set\b(?!\s+(?:local|transaction|constraints)\b)|(?:reset|prepare|listen|unlisten)\b"
            r"|declare\b[^;]*\bwith\s+hold\b"
            r"|create\b(?:\s+(?:or|replace|local|global))*\s+temp(?![^;]*\bon\s+commit\s+drop\b)",
            Effect.TOUCHES,
        ),
        (r"(?:discard|deallocate)\b", Effect.TOUCHES | Effect.SPOILS),
        (
            r"discard\b|(?:set|reset|begin|start)\b[^;]*"
            r"(?:transaction_read_only|standard_conforming_strings|\bread\s+write\b)",
            Effect.LIFTS,
        ),
    )
]


def unparsed(sql: str) -> Effect:
    """Unseen code, with whatever a statement in the text may be known by; rather too much than too little.

    >>> unparsed("SELECT CASE WHEN x = 'a; COMMIT' THEN 1 END FROM t; SELECT 1")
    <Effect.OPAQUE: 4>
    >>> Effect.ENDS in unparsed("INSERT INTO t VALUES (1); COMMIT AND CHAIN")
    True
    """
    sql = sql.partition("\0")[0]  # no server reads on
    # What a backslash does to a quote is the server's setting: each semicolon, also a quoted one, may end a statement.
    unclear = ";" in sql and "\\" in sql
    if not unclear and (";" in sql or sql.lstrip().startswith(("--", "/*"))):
        sql = _bare(sql)
    text, effect = f";{sql.lower()}", UNSEEN
    for pattern, means in _MEANINGS:
        if pattern.search(text):
            effect |= means
    return effect


def _bare(sql: str) -> str:
    """The text without comments and quoted strings, and without the semicolons of quoted names."""
    parts: list[str] = []
    end = 0
    while (token := _TOKEN.search(sql, end)) is not None:
        parts.append(sql[end : token.start()])
        end = token.end()
        match sql[token.start()]:
            case "/":
                end = _after_comment(sql, end)
            case "$":
                closing = sql.find(token[0], end)
                end = len(sql) if closing < 0 else closing + len(token[0])
            case '"':
                parts.append(token[0].replace(";", " "))
        parts.append(" ")
    return "".join((*parts, sql[end:]))


def _after_comment(sql: str, start: int) -> int:
    """Where a comment has ended whose inside begins at `start`; comments nest."""
    depth = 1
    for mark in _COMMENT.finditer(sql, start):
        depth += 1 if mark[0] == "/*" else -1
        if depth == 0:
            return mark.end()
    return len(sql)
