"""What an error may repeat of a value it refuses: a secret may have been put where it does not belong."""

import re

_SHORT = re.compile(r"[-+]?[0-9.]{0,6}")
_MANY = 10**6


def instead(value: object) -> str:
    """What was given instead, as the end of a sentence: a number or None itself, nothing of a text, else a type.

    >>> instead(-1), instead("-1"), instead("postgresql://u:secret@h/d"), instead(["secret"])
    (', not -1', ", not '-1'", ', not what was given', ', not a list')
    """
    if isinstance(value, str):
        return f", not {value!r}" if _SHORT.fullmatch(value) else ", not what was given"
    if value is None or isinstance(value, float) or (isinstance(value, int) and abs(value) < _MANY):
        return f", not {value!r}"
    return f", not {a_kind(value)}"


def a_kind(value: object) -> str:
    """The type of a value, with its article.

    >>> a_kind({}), a_kind(7)
    ('a dict', 'an int')
    """
    name = type(value).__name__
    return f"{'an' if name[:1] in 'AEIOUaeiou' else 'a'} {name}"
