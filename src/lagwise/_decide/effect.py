"""What a statement does to the session that runs it."""

from enum import Flag, auto


class Effect(Flag):
    """What a statement may do, beyond answering: several at once, or NOTHING.

    An effect that cannot be ruled out is included: one too many costs a round trip, one too few a wrong answer.
    """

    NOTHING = 0
    """A query that leaves its connection as it was."""
    TOUCHES = auto()
    """Leaves something in the connection: a setting, a role, a lock, a prepared statement, a temporary table."""
    TRANSACTION = auto()
    """Means something only inside a transaction: SET LOCAL, `set_config(..., true)`, LOCK, DECLARE, SAVEPOINT."""
    OPAQUE = auto()
    """Runs code that cannot be seen, or could not be read: it may do what TOUCHES says, and more."""
    LIFTS = auto()
    """Would lift the read-only fence, or change how the server reads later statements."""
    RESETS = auto()
    """RESET ALL, DISCARD ALL: undo settings, the fence among them."""
    BEGINS = auto()
    """BEGIN or START TRANSACTION in text."""
    ENDS = auto()
    """COMMIT, ROLLBACK, PREPARE TRANSACTION and their like in text."""
    SPOILS = auto()
    """Leaves what no reset undoes: a seed of `random()`, or a wrong cache of prepared statements in the driver
    (DEALLOCATE, DISCARD ALL or PLANS). The connection is closed."""
    WRITES = auto()
    """Changes data or the schema, locks rows, or notifies; for information, a fenced server refuses most of it."""
    UNKNOWN = auto()
    """Names something the catalog does not hold: made since it was read, perhaps. Comes with OPAQUE."""


UNSEEN = Effect.OPAQUE
"""Code that cannot be seen."""
STRANGE = UNSEEN | Effect.UNKNOWN
"""A name that is not in the catalog."""
