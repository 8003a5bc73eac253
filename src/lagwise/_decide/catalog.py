"""The catalog: what is known of the functions, operators, types and tables that statements name."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from sys import getsizeof

from lagwise._decide.built_in import COMMON, CONVERTING, EFFECTS, HARMLESS, OPERATORS, TYPES
from lagwise._decide.effect import STRANGE, UNSEEN, Effect

BUILT_IN_SCHEMA = "pg_catalog"
KEPT = 1 << 20
"""Bytes of statements whose judgement a catalog keeps."""


class Names:
    """Names with their schemas, as the server spells them. A name without a schema may mean any of its namesakes.

    >>> known = Names([("app", "near")])
    >>> known.hold(["near"]), known.hold(["app", "near"]), known.hold(["other", "near"])
    (True, True, False)
    """

    __slots__ = ("_bare", "_pairs")

    def __init__(self, pairs: Iterable[tuple[str, str]] = ()) -> None:
        self._pairs = frozenset(pairs)
        self._bare = frozenset(name for _, name in self._pairs)

    def __bool__(self) -> bool:
        return bool(self._pairs)

    def __len__(self) -> int:
        return len(self._pairs)

    def __repr__(self) -> str:
        return f"<{len(self)} names>"

    def hold(self, path: list[str]) -> bool:
        """Whether this name, qualified or not, may be one of them."""
        return (path[-2], path[-1]) in self._pairs if len(path) > 1 else path[-1] in self._bare


class Judged:
    """The judgements of one catalog, in two generations: what was not asked for during a whole generation is dropped.

    Bounded by the bytes of the statements held, half of them in either generation.
    """

    __slots__ = ("_old", "_size", "young")

    def __init__(self) -> None:
        self.young: dict[str, Effect] = {}
        self._old: dict[str, Effect] = {}
        self._size = 0

    def recall(self, sql: str) -> Effect | None:
        """What an older generation knows of a statement that the young one does not."""
        found = self._old.get(sql)
        if found is not None:
            self.keep(sql, found)
        return found

    def keep(self, sql: str, effect: Effect) -> None:
        """Keep a judgement."""
        size = getsizeof(sql)
        if self._size + size > KEPT // 2:
            self._old, self.young, self._size = self.young, {}, 0
        self.young[sql] = effect
        self._size += size

    def held(self) -> int:
        """Bytes of all statements held."""
        return sum(map(getsizeof, (*self.young, *self._old)))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Catalog:
    """What one database says of its names. The claims IMMUTABLE and STABLE are believed.

    Equal only to itself: a catalog keeps its own judgements, and they are dropped with it.
    """

    volatile: Names = field(default_factory=Names)
    """Functions, aggregates among them, that are VOLATILE or make values of a type of `types`."""
    known: Names = field(default_factory=Names)
    """All other functions: they leave nothing behind."""
    attributes: Collection[str] = frozenset()
    """The volatile ones that may be called as `row.name`."""
    volatile_operators: Names = field(default_factory=Names)
    known_operators: Names = field(default_factory=Names)
    types: Names = field(default_factory=Names)
    """Types whose values cannot be made without volatile code: domains with such a CHECK, and what contains them."""
    known_types: Names = field(default_factory=Names)
    relations: Names = field(default_factory=Names)
    """Views and tables (row security) that run volatile functions when they are read."""
    written: Names = field(default_factory=Names)
    """Tables and views that run volatile code when they are written: triggers, rules, defaults, cascades."""
    unseen: bool = False
    """Whether volatile code runs where no name tells: comparisons, implicit casts, or too many names to hold."""
    standard_strings: bool = True
    """`standard_conforming_strings`: whether a backslash in a plain literal is just that."""
    judged: Judged = field(default_factory=Judged, init=False, repr=False)

    def function(self, path: list[str]) -> Effect:
        """The effect of calling what this name, qualified or not, may reach; by the worst of them."""
        if self.volatile.hold(path) or self.types.hold(path):
            return UNSEEN
        name = path[-1]
        if len(path) == 1 or path[-2] == BUILT_IN_SCHEMA:
            if name in EFFECTS:
                return EFFECTS[name]
            if name in CONVERTING and self.types:
                return UNSEEN
        return Effect.NOTHING if self.known.hold(path) else STRANGE

    def grammar(self, names: Collection[str]) -> Effect:
        """The effect of what newer servers read as syntax, and older ones as a call of one of these."""
        return UNSEEN if any(self.volatile.hold([name]) for name in names) else Effect.NOTHING

    def attribute(self, name: str) -> Effect:
        """The effect of `row.name`: a column, or a call with the row for its argument."""
        return UNSEEN if name in self.attributes else Effect.NOTHING

    def operator(self, path: list[str]) -> Effect:
        """The effect of an operator."""
        if self.volatile_operators.hold(path):
            return UNSEEN
        return Effect.NOTHING if self.known_operators.hold(path) else STRANGE

    def type(self, path: list[str]) -> Effect:
        """The effect of making a value of a type."""
        if self.types.hold(path):
            return UNSEEN
        return Effect.NOTHING if self.known_types.hold(path) else STRANGE

    def read(self, path: list[str]) -> Effect:
        """The effect of reading a table or view."""
        return UNSEEN if self.unseen or self.relations.hold(path) else Effect.NOTHING

    def write(self, path: list[str]) -> Effect:
        """The effect of writing to a table or view."""
        if path[-1] == "pg_settings":  # its rule calls set_config()
            return UNSEEN | Effect.LIFTS | Effect.WRITES
        return UNSEEN | Effect.WRITES if self.unseen or self.written.hold(path) else Effect.WRITES


def _built_in(names: Collection[str]) -> Names:
    return Names((BUILT_IN_SCHEMA, name) for name in names)


BUILT_IN = Catalog(
    known=_built_in(COMMON | HARMLESS),
    known_operators=_built_in(OPERATORS),
    known_types=_built_in(TYPES),
)
"""What holds for every PostgreSQL server. It says nothing of the views, policies and triggers of a database."""
UNREAD = Catalog(unseen=True)
"""Until a catalog has been read. Any relation may be a view that runs volatile code, and any name the application's."""
