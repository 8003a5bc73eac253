"""The tests are a house as well: each stands alone, and has a name of its own."""

import ast
import tomllib
from collections import Counter
from pathlib import Path

TESTS = Path(__file__).parents[1]
FILES = sorted(TESTS.rglob("*.py"))


def imported(path: Path) -> set[str]:
    """The last parts of the modules a file imports, wherever it does, and the names it takes from packages."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.rpartition(".")[2] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {(node.module or "").rpartition(".")[2]}
            if node.level or (node.module or "").startswith("tests"):
                names |= {alias.name for alias in node.names}
    return names


def test_a_test_imports_neither_a_test_nor_a_conftest() -> None:
    """What two tests need is in the kit, or in a module beside them that is no test."""
    stems = {path.stem for path in FILES if path.stem.startswith("test_")} | {"conftest"}
    assert {str(path.relative_to(TESTS)): found for path in FILES if (found := imported(path) & stems)} == {}


def test_no_two_test_files_have_one_name() -> None:
    """A name in a report is one file."""
    names = Counter(path.name for path in FILES if path.name.startswith("test_"))
    assert [name for name, files in names.items() if files > 1] == []


def test_one_conftest_is_enough() -> None:
    """The clusters and Routers are those of the one conftest; five folders bring what no other has a use for."""
    assert {str(path.parent.relative_to(TESTS)) for path in FILES if path.name == "conftest.py"} == {
        ".",
        "compose",  # containers
        "examples/patterns",  # one cluster that lags all the time, and the environment in which applications find it
        "history",  # one loop and one cluster for clients that record what they see
        "pools",  # one node and its replica, without the tables of the others
        "testing",  # the cluster itself is under test
    }


def test_every_folder_is_run() -> None:
    """`uv run pytest` leaves out other projects' packages and servers, and what needs Docker; the kit has no tests."""
    options = tomllib.loads((TESTS.parent / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    folders = {path.parent.relative_to(TESTS).parts[0] for path in FILES if path.name.startswith("test_")}
    assert set(options["testpaths"]) == {f"tests/{folder}" for folder in folders - {"compose", "integrations"}}
