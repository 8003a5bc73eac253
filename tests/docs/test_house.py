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


def classes(path: Path) -> list[ast.ClassDef]:
    """The classes of a module, nested ones too."""
    return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ClassDef)]


def bases(node: ast.ClassDef) -> set[str]:
    """The names of its bases, without what is in brackets."""
    heads = (base.value if isinstance(base, ast.Subscript) else base for base in node.bases)
    return {ast.unparse(head).rpartition(".")[2] for head in heads}


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


def test_a_lease_is_changed_by_its_own_methods_alone() -> None:
    """Whoever asks why a session stays, or moves, reads one module."""
    writers = set()
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            for target in targets:
                if isinstance(target, ast.Attribute) and ast.unparse(target.value).rpartition(".")[2] == "lease":
                    writers.add(str(path.relative_to(HOUSE)))
    assert writers == set()
