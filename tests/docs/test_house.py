"""The source is a house that can be held in the head: small modules, no abstraction for one thing, clear words."""

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

import lagwise

from .pages import DOCS, ROOT

HOUSE = Path(lagwise.__file__).parent
MODULES = sorted(HOUSE.rglob("*.py"))
# Classes that fit a Protocol without naming it as a base, with the reason why it is one.
FITTING: dict[str, set[str]] = {}
# Class names that stand twice on purpose: the node of a View, and the node of a test cluster, which is public; the
# nodes of a Router, and the answer of `lagwise.health` about them, which is public.
TWICE = {"Node", "Nodes"}
# Words that name no thing. `blinds_nobody` in the name of a test is another word: an underscore is a letter here.
NAMELESS = re.compile(r"\b(nobody|somebody|someone|whoever|whomever|anybody)\b", re.I)
TEXT = {".py", ".md", ".html", ".toml", ".ini", ".yml", ".yaml", ".cfg", ".conf"}
# Files that have such a word on purpose: `nobody` is the account that a server of the test cluster runs under.
NAMED = {"src/lagwise/testing/account.py": {"nobody"}}
# The one object that is changed from outside: its docstring says why.
FLAGGED = {"PooledConnection", "WritingConnection", "FramedConnection"}
# Attributes of others' objects, which are there to be set; and the settings of a proxy, in lagwise.testing.
FOREIGN = {
    # SQLAlchemy: of the context of its event `handle_error`, and of its adapter of asyncpg's connection
    *("is_disconnect", "invalidate_pool_on_disconnect", "isolation_level", "readonly"),
    # SQLAlchemy: the class of that adapter, whose cursors are heard
    "__class__",
    # SQLAlchemy and asyncpg, in the border module
    *("_prepared_statement_cache", "_prepared_statement_name_func", "_pool_release_ctr", "_config"),
    # httpx, uvicorn, rich; and where a class is shown to be
    *("event_hooks", "should_exit", "width", "__module__"),
    *("latency", "target"),
}


def classes(path: Path) -> list[ast.ClassDef]:
    """The classes of a module, nested ones too."""
    return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ClassDef)]


def bases(node: ast.ClassDef) -> set[str]:
    """The names of its bases, without what is in brackets."""
    heads = (base.value if isinstance(base, ast.Subscript) else base for base in node.bases)
    return {ast.unparse(head).rpartition(".")[2] for head in heads}


def own_of(node: ast.ClassDef) -> set[str]:
    """The attributes that a class declares, or sets in itself."""
    targets = [target for each in node.body if isinstance(each, ast.Assign) for target in each.targets]
    targets += [each.target for each in node.body if isinstance(each, ast.AnnAssign)]
    declared = {each.id for each in targets if isinstance(each, ast.Name)}
    return declared | {each.attr for each in stores(node) if ast.unparse(each.value) in {"self", "cls"}}


def stores(tree: ast.AST, attributes: set[str] | None = None) -> list[ast.Attribute]:
    """Where an attribute is set or deleted: any, or one of these."""
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store | ast.Del)
        and (attributes is None or node.attr in attributes)
    ]


def test_no_module_is_above_250_lines() -> None:
    """A module is one subject; a second subject is a second module."""
    lines = {str(path.relative_to(HOUSE)): len(path.read_text().splitlines()) for path in MODULES}
    assert {name: count for name, count in lines.items() if count > 250} == {}


def test_a_protocol_has_two_implementations() -> None:
    """A Protocol with one is a class with two names, and hides which function is called."""
    every = [node for path in MODULES if "testing" not in path.parts for node in classes(path)]
    protocols = {node.name for node in every if "Protocol" in bases(node)}
    fitting = {
        name: {node.name for node in every if name in bases(node)} | FITTING.get(name, set()) for name in protocols
    }
    assert {name: found for name, found in fitting.items() if len(found) < 2} == {}


@pytest.mark.parametrize("private", [False, True], ids=["public", "private"])
def test_a_class_has_a_name_of_its_own(private: bool) -> None:
    """One name, one thing: whoever searches for it finds it."""
    names = Counter(node.name for path in MODULES for node in classes(path) if node.name.startswith("_") is private)
    assert {name for name, count in names.items() if count > 1} - TWICE == set()


def test_one_module_writes_to_the_log() -> None:
    """A filter of the application's that raises harms no caller: `say` guards what a logger called elsewhere would not.

    The command line only keeps lagwise's records off its own screen.
    """
    loggers = {str(path.relative_to(HOUSE)) for path in MODULES if "getLogger(" in path.read_text()}
    assert loggers == {"_say.py", "cli/opening.py"}


def test_the_subject_of_a_sentence_has_a_name() -> None:
    """A sentence about "nobody" or "whoever" leaves open which client, process or node it is about."""
    folders = (ROOT / "src", ROOT / "docs", ROOT / "examples")
    files = {path for folder in folders for path in folder.rglob("*") if path.suffix in TEXT} | {*DOCS}
    found = {
        str(path.relative_to(ROOT)): words
        for path in sorted(files)
        if (words := {word.lower() for word in NAMELESS.findall(path.read_text())})
    }
    assert found == NAMED


def test_an_object_is_changed_by_its_own_methods_alone() -> None:
    """Whoever asks why something is as it is reads one module. What is changed from outside stands in two lists."""
    every = [node for path in MODULES for node in classes(path)]
    flags = set().union(*(own_of(node) for node in every if node.name in FLAGGED))
    found = {}
    for path in MODULES:
        tree = ast.parse(path.read_text())
        inside = [(each, own_of(each)) for each in ast.walk(tree) if isinstance(each, ast.ClassDef)]
        own = {id(node) for each, attributes in inside for node in stores(each, attributes)}
        for node in stores(tree):
            if id(node) not in own and node.attr not in flags | FOREIGN:
                found[f"{path.relative_to(HOUSE)}:{node.lineno}"] = ast.unparse(node)
    assert found == {}
