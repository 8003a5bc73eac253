"""docs/reference.md has every public name, with the signature that the code has."""

import dis
import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from enum import Enum
from typing import Any

import pytest
import typer
from pydantic import BaseModel

from lagwise._decide.node import Node
from lagwise._decide.view import View
from lagwise._pools.pools import Pools
from lagwise.cli import app

from .pages import ROOT, table

PAGE = ROOT / "docs" / "reference.md"
REFERENCE = PAGE.read_text()
PUBLIC = (
    "lagwise",
    "lagwise.fastapi",
    "lagwise.asgi",
    "lagwise.health",
    "lagwise.events",
    "lagwise.settings",
    "lagwise.store",
    "lagwise.httpx",
    "lagwise.prometheus",
    "lagwise.opentelemetry",
    "lagwise.testing",
    "lagwise.testing.history",
)
# What a Router answers, by the head of its table: these classes are in private modules.
ANSWERS = {"`db.view`": View, "A node of `db.view`": Node, "`db.pools[name]`": Pools}
# Without an underscore because other modules of lagwise call them; no application needs them.
INNER = {
    "LSN": {"normalised"},
    "CausalToken": {"of", "including", "position", "floor", "crowded", "in_crowd"},
    "Causality": {
        *("changes", "request", "serve", "served", "writing", "under_way"),
        *("begin", "saw", "learn", "doubt", "carriers"),
    },
    "RedisStore": {"recall", "remember"},
    "MemoryStore": {"recall", "remember"},
    "Node": {"server", "attach", "detach", "ask", "close"},
    "Proxy": {"open", "close", "count", "counting", "frozen", "swallowing"},
}


def section(module: str) -> str:
    """The part of the page about one module."""
    return REFERENCE.partition(f"\n## `{module}`\n")[2].partition("\n## ")[0]


def shown(module: str) -> dict[str, str]:
    """Each name of a module with what follows it: a heading is one call in code style, or several with commas."""
    headings = re.findall(r"^### (.+)$", section(module), re.M)
    codes = [code for heading in headings for code in re.findall(r"`([^`]+)`", heading)]
    return {name: brace + rest for name, brace, rest in (re.split(r"(\(|$)", code, maxsplit=1) for code in codes)}


def members(module: str, name: str) -> list[str]:
    """What an application uses of a class: the first cells of the table of `Member` under its heading."""
    under = re.split(r"^### ", section(module), flags=re.M)
    text = next((part for part in under if re.match(rf"`{name}\b", part)), "")
    rows = re.findall(r"^\| Member \|.*\n\|[-| ]+\n((?:\|.*\n?)+)", text, re.M)
    firsts = [row.split(" | ")[0] for table in rows for row in table.splitlines()]
    return [cell for first in firsts for cell in re.findall(r"`([^`]+)`", first)]


def signature(of: Any, *, bound: bool = False) -> str:
    """How a call is written down: names and defaults, without types."""
    try:
        found = inspect.signature(of)
    except (TypeError, ValueError):
        return ""
    parameters = [
        one.replace(annotation=one.empty, default=_default(of, one.default)) for one in found.parameters.values()
    ]
    return str(found.replace(parameters=parameters[1:] if bound else parameters, return_annotation=found.empty))


class _Constant(str):
    """A default that has a name of its own is shown by it."""

    __repr__ = str.__str__


def _default(of: Any, value: Any) -> Any:
    if isinstance(value, str):
        return value
    module = sys.modules.get(getattr(of, "__module__", ""))
    return next((_Constant(name) for name, one in vars(module).items() if name.isupper() and one is value), value)


def public(module: str) -> dict[str, Any]:
    """The names a module offers: `__all__`, or the classes and functions that are its own."""
    found = importlib.import_module(module)
    names = getattr(found, "__all__", None)
    if names is None:
        own = [name for name, one in vars(found).items() if getattr(one, "__module__", "") == module]
        names = [name for name in own if name[0] != "_" and inspect.isroutine(found.__dict__[name])]
        names += [name for name in own if name[0] != "_" and isinstance(found.__dict__[name], type)]
    return {name: getattr(found, name) for name in names}


@pytest.mark.parametrize("module", PUBLIC)
def test_every_public_name_is_in_the_reference(module: str) -> None:
    """No name is missing, and none is shown that is gone."""
    assert sorted(shown(module)) == sorted(public(module))


def _signatures() -> Iterator[Any]:
    for module in PUBLIC:
        for name, written in shown(module).items():
            if written:
                yield pytest.param(public(module).get(name), written, id=f"{module}.{name}")


@pytest.mark.parametrize(("of", "written"), [*_signatures()])
def test_signatures_are_those_of_the_code(of: Any, written: str) -> None:
    """Parameters, their order, and their defaults."""
    assert signature(of) == written


def _members() -> Iterator[Any]:
    for module in PUBLIC:
        for name in shown(module):
            for member in members(module, name):
                yield pytest.param(public(module).get(name), member, id=f"{name}.{member}")
    for head, owner in ANSWERS.items():
        for names, *_ in table(PAGE, head):
            for member in names.split("`, `"):
                yield pytest.param(owner, member, id=f"{owner.__name__}.{member}")


@pytest.mark.parametrize(("owner", "written"), [*_members()])
def test_members_are_those_of_the_code(owner: type, written: str) -> None:
    """What is shown of a class is there, with that signature."""
    name = re.match(r"\w+", written)
    assert name is not None
    methods = [one for kind in owner.__mro__ for one in vars(kind).values() if inspect.isfunction(one)]
    there = hasattr(owner, name[0]) or any(name[0] in one.__code__.co_names for one in methods)
    assert there, f"{owner.__name__} has no {name[0]}"
    if "(" in written:
        member = inspect.getattr_static(owner, name[0])
        bound = not isinstance(member, staticmethod | classmethod)
        assert signature(getattr(owner, name[0]), bound=bound) == written[name.end() :]


def _public_members(owner: type) -> set[str]:
    """The names of a class of ours that have no underscore: of its body, its fields, and what `__init__` sets."""
    names = set[str]()
    for kind in owner.__mro__:
        if kind.__module__.startswith("lagwise"):
            names |= {*vars(kind), *inspect.get_annotations(kind)}
            if inspect.isfunction(begin := vars(kind).get("__init__")):
                names |= {one.argval for one in dis.get_instructions(begin) if one.opname == "STORE_ATTR"}
    return {name for name in names if not name.startswith("_")}


def _classes() -> Iterator[Any]:
    for module in PUBLIC:
        for name, found in public(module).items():
            # Errors have no members; fields of models are in health.md and configuration.md, Reasons in concepts.md.
            if isinstance(found, type) and not issubclass(found, BaseException | BaseModel | Enum):
                yield pytest.param(module, name, found, id=f"{module}.{name}")


@pytest.mark.parametrize(("module", "name", "owner"), [*_classes()])
def test_members_of_the_code_are_in_the_reference(module: str, name: str, owner: type) -> None:
    """What an application can use of a class is named under its heading, in code style."""
    parts = [part for part in re.split(r"^### ", section(module), flags=re.M) if f"`{name}" in part.split("\n")[0]]
    named = {word for part in parts for code in re.findall(r"`([^`]+)`", part) for word in re.findall(r"\w+", code)}
    assert _public_members(owner) - named == INNER.get(name, set())


def test_commands_are_those_of_the_code() -> None:
    """Each command of the shell with all of its options, and none that is gone."""
    written = {
        re.sub(r" \[.*", "", command): {*re.findall(r"--[\w-]+", options)}
        for command, _, options, _ in table(PAGE, "Command")
    }
    found, pending = dict[str, set[str]](), [("lagwise", typer.main.get_command(app))]
    for name, command in pending:
        if below := getattr(command, "commands", None):
            pending += [(f"{name} {word}", one) for word, one in below.items()]
        else:
            options = {option for one in command.params for option in one.opts if option.startswith("--")}
            found[name] = options - {"--help"}
    assert written == found


def test_functions_are_shown_with_their_signature() -> None:
    """What can be called with arguments is not shown by its name alone; values, models and errors are."""
    bare = [
        f"{module}.{name}"
        for module in PUBLIC
        for name, written in shown(module).items()
        if not written and inspect.isfunction(public(module).get(name))
    ]
    assert bare == []
