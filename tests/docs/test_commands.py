"""What the documentation says to type is understood."""

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest
import typer

from lagwise.cli import app as command_line

from .pages import PAGES, ROOT, blocks

SCRIPTS = sorted(path for path in (ROOT / ".ci").iterdir() if path.suffix == "")


def _typed(path: Path) -> str:
    """What a page says to type, or what a script types."""
    if path in SCRIPTS:
        return path.read_text()
    return "".join(block.code for block in blocks(path) if block.language == "sh")


def _shown_commands() -> list[str]:
    """Every `lagwise ...` command line in the documentation."""
    found = []
    for page in PAGES:
        inline = re.findall(r"`((?:uv run )?lagwise [a-z][^`\n]*)`", page.read_text())
        indented = re.findall(r"^ {4}(lagwise .*)", page.read_text(), re.M)
        lines = re.findall(r"^(?:uv run )?lagwise .*", _typed(page), re.M)
        found += [line.removeprefix("uv run ") for line in (*inline, *indented, *lines)]
    return sorted(set(found))


@pytest.mark.parametrize("line", _shown_commands())
def test_every_command_is_understood(line: str) -> None:
    """Each command with its options parses; it is not run."""
    command: click.Command | Any = typer.main.get_command(command_line)
    words = shlex.split(line, comments=True)[1:]
    context = None
    while hasattr(command, "commands") and words:
        context = command.make_context(command.name, [], resilient_parsing=True, parent=context)
        command = command.commands[words.pop(0)]
    command.make_context(command.name, words, parent=context)


def test_the_readme_installs_from_a_clone() -> None:
    """While the version is a development one, PyPI has another author's package of this name."""
    assert "dev" in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    shown = re.findall(r"pip install ([^\s`]+)", (ROOT / "README.md").read_text())
    assert shown
    assert [each for each in shown if not each.startswith('"./lagwise[')] == []


def test_contributing_names_what_is_checked() -> None:
    """Each command of `.ci/run` is in CONTRIBUTING, word for word."""
    checked = re.findall(r"(uv run [a-z][^>|\n]*?)(?: >.*| \|\|.*)?$", (ROOT / ".ci" / "run").read_text(), re.M)
    assert checked
    shown = (ROOT / "CONTRIBUTING.md").read_text()
    assert [command for command in checked if not re.search(rf"^{re.escape(command)}( |$)", shown, re.M)] == []


@pytest.mark.parametrize("path", [*PAGES, *SCRIPTS], ids=lambda path: path.name)
def test_what_a_command_names_exists(path: Path) -> None:
    """Groups of dependencies, extras, modules that are run, and paths of tests, benchmarks and examples."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    typed = _typed(path)
    groups = set(re.findall(r"--group[ =]([\w-]+)", typed))
    assert groups <= project["dependency-groups"].keys()
    extras = {name for names in re.findall(r"lagwise\[([\w,-]+)\]", typed) for name in names.split(",")}
    assert extras <= project["project"]["optional-dependencies"].keys()
    parts = re.findall(r" -k (\w+)", typed)
    assert [part for part in parts if not _is_tested(part)] == []
    modules = [name.replace(".", "/") for name in re.findall(r"python -m ((?:tests|benchmarks)[\w.]*)", typed)]
    assert [name for name in modules if not _is_run(ROOT / name)] == []
    paths = re.findall(r"(?<![\w./])((?:tests|examples|docs)/[\w./*{},]+)", typed)
    assert [name for name in paths if not _found(name)] == []


def test_the_workflow_sets_what_the_scripts_read() -> None:
    """Each variable that a job has is one of its scripts'."""
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    given = [
        line for part in re.findall(r"^ +env:\n((?: {10}\w+:.*\n)+)", workflow, re.M) for line in part.splitlines()
    ]
    assert given
    read = "".join(path.read_text() for path in SCRIPTS)
    assert [name for name in (line.strip().partition(":")[0] for line in given) if f"${{{name}:-" not in read] == []


def _is_tested(part: str) -> bool:
    """Whether the name of a test has this part."""
    files = (ROOT / "tests").rglob("test_*.py")
    return any(re.search(rf"def test_\w*{part}", path.read_text()) for path in files)


def _is_run(module: Path) -> bool:
    return module.with_suffix(".py").exists() or (module / "__main__.py").exists()


def _found(pattern: str) -> bool:
    """Whether each path exists that a shell makes of it, with one pair of braces at most."""
    before, brace, rest = pattern.partition("{")
    names, _, after = rest.partition("}")
    spelt = [before + name + after for name in names.split(",")] if brace else [pattern]
    return all(any(ROOT.glob(name.rstrip("/"))) for name in spelt)
