"""docs/patterns.md has a line for each example, and each example is short."""

import re
from pathlib import Path

import pytest

from .pages import ROOT

PAGE = (ROOT / "docs" / "patterns.md").read_text()
EXAMPLES = sorted((ROOT / "examples" / "patterns").glob("[!_]*.py"))


def test_every_example_has_a_line() -> None:
    """Each file is linked, and no link leads elsewhere."""
    linked = set(re.findall(r"\.\./examples/patterns/(\w+\.py)\)", PAGE))
    assert linked == {path.name for path in EXAMPLES}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_short(path: Path) -> None:
    """Under sixty lines, and it says in its first what it shows."""
    lines = path.read_text().splitlines()
    assert len(lines) < 60
    assert lines[0].startswith('"""')


def test_every_example_has_a_test() -> None:
    """Each of them is imported by a test of its folder, or of other packages, but for what others import."""
    folders = (ROOT / "tests" / "examples" / "patterns", ROOT / "tests" / "integrations")
    tests = "".join(path.read_text() for folder in folders for path in folder.glob("*.py"))
    shared = {"database", "models", "repository"}
    missing = [path.stem for path in EXAMPLES if path.stem not in shared and not _named(path.stem, tests)]
    assert missing == []


def _named(stem: str, tests: str) -> bool:
    return bool(re.search(rf"\b{stem}\b", tests)) or f'"{stem.removeprefix("tenant_")}"' in tests
