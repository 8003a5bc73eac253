"""The documentation as data: its pages, their code blocks and tables; and how a block is run."""

import ast
import inspect
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.kit.application import SECRET, Item

ROOT = Path(__file__).parents[2]
_FRONT = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
DOCS = (*(ROOT / name for name in _FRONT), *sorted((ROOT / "docs").glob("*.md")))
PAGES = (*DOCS, ROOT / "examples" / "README.md")
# `<!-- runs -->` before a block: it is run, after the ones before it on that page. A word says how:
# "application" defines one that a test drives, "pytest" is a test file.
_BLOCK = re.compile(
    r"^(?:<!-- runs(?:: (?P<how>\w+))? -->\n(?P<runs>))?```(?P<language>\w+)\n(?P<code>.*?)^```$", re.M | re.S
)


@dataclass(frozen=True)
class Block:
    """A fenced block: the line its code begins on, its language, and how it is run, if at all."""

    page: Path
    line: int
    language: str
    how: str
    code: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """Every fenced block of a page."""
    text = page.read_text()
    return [
        Block(
            page,
            text.count("\n", 0, match.start("code")) + 1,
            match["language"],
            "" if match["runs"] is None else match["how"] or "script",
            match["code"],
        )
        for match in _BLOCK.finditer(text)
    ]


def table(page: Path, first: str) -> list[list[str]]:
    """The rows of the table whose head begins with this cell, without the marks of code."""
    lines = iter(page.read_text().splitlines())
    assert any(line.startswith(f"| {first} |") for line in lines), f"{page.name} has no table of {first}"
    next(lines)
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip().strip("`") for cell in line.strip("|").split(" | ")])
    return rows


def compiled(block: Block) -> Any:
    """The code of a Python block, with the page's own line numbers in tracebacks."""
    tree = compile(
        "\n" * (block.line - 1) + block.code,
        str(block.page),
        "exec",
        flags=ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT,
    )
    return compile(tree, str(block.page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


async def run(found: Iterable[Block], urls: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Run blocks one after the other in one module, the names of hosts replaced by these URLs."""
    shop = ModuleType("shop")
    shop.__dict__.update(Item=Item, SECRET=SECRET)
    monkeypatch.setitem(sys.modules, "shop", shop)
    module = ModuleType("documentation")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for block in found:
        code = block.code
        for host, url in urls.items():
            code = code.replace(f"postgresql+asyncpg://app:secret@{host}/shop", url)
        assert "app:secret" not in code, f"{block} names a node that is not there"
        result = eval(compiled(Block(block.page, block.line, block.language, block.how, code)), module.__dict__)
        if inspect.iscoroutine(result):
            await result
    return module
