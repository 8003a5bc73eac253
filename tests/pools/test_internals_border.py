"""One module alone knows what SQLAlchemy and asyncpg keep to themselves: `lagwise._pools.internals`."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import lagwise

HOUSE = Path(lagwise.__file__).parent
BORDER = HOUSE / "_pools" / "internals.py"
# Private names, and undocumented ones that do not look it: wherever they stand, in a string or a comment as well.
FOREIGN = {
    # SQLAlchemy: engines, their options and events
    "OptionEngine", "_execution_options", "_has_events", "_proxied", "connection_characteristics",
    # SQLAlchemy: pools and their records
    "_ConnectionFairy", "_ConnectionRecord", "_connection_record", "_max_overflow", "_overflow", "finalize_callback",
    # SQLAlchemy: listeners
    "_builtin_onconnect", "_collection_to_key", "_key_to_collection",
    # SQLAlchemy: the driver's connection
    "_prepared_statement_cache", "_prepared_statement_name_func",
    # SQLAlchemy: sessions
    "_AsyncSessionContextManager", "_deleted", "_new",
    # asyncpg: its connection
    "_aborted", "_con", "_config", "_get_statement", "_introspect_types", "_pool_release_ctr", "_protocol",
    "_stmt_cache_enabled", "_top_xact", "_transport",
}  # fmt: skip


def modules() -> list[Path]:
    """The modules outside the border, without the test cluster."""
    return [path for path in sorted(HOUSE.rglob("*.py")) if path != BORDER and "testing" not in path.parts]


def private(name: str) -> bool:
    """Whether a name says that it is private, and is not one of Python's own."""
    return name.startswith("_") and not name.endswith("__")


def foreign(tree: ast.AST, own: set[str]) -> Iterator[tuple[int, str]]:
    """Private names that lagwise does not define, with their lines: attributes, and what is imported."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and private(node.attr) and node.attr not in own:
            yield node.lineno, node.attr
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in {"sqlalchemy", "asyncpg"}:
            names = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
            yield from ((node.lineno, name) for name in names if private(name))


def defined(tree: ast.AST) -> Iterator[str]:
    """The names that a module defines: functions, classes, variables, slots, and attributes of `self`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            if isinstance(node.value, ast.Name) and node.value.id in {"self", "cls"}:
                yield node.attr
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value  # in __slots__


def test_no_name_of_the_list_is_outside_the_border() -> None:
    """Each of the names that were needed once, or could be, is looked for by name."""
    words = re.compile(r"(?<!\w)(?:" + "|".join(sorted(FOREIGN)) + r")(?!\w)")
    found = [
        f"{path.relative_to(HOUSE)}:{number}: {word}"
        for path in modules()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        for word in words.findall(line)
    ]
    assert found == []


def test_no_other_private_name_is_outside_the_border() -> None:
    """A private name that lagwise does not define, or takes from their packages, is one of theirs."""
    trees = {path: ast.parse(path.read_text()) for path in modules()}
    own = {name for tree in trees.values() for name in defined(tree)} - FOREIGN
    found = [
        f"{path.relative_to(HOUSE)}:{line}: {name}" for path, tree in trees.items() for line, name in foreign(tree, own)
    ]
    assert found == []


def test_a_trespass_would_be_found() -> None:
    """An attribute, a private import and a private module, and no name of lagwise's own."""
    tree = ast.parse("from sqlalchemy._x import y\nfrom asyncpg.z import _w\npool._q\nself._mine\npool._mine\n")
    assert list(foreign(tree, {"_mine"})) == [(1, "_x"), (2, "_w"), (3, "_q")]
