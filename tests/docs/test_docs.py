"""What the documentation says is what the code does."""

import ast
import asyncio
import doctest
import importlib
import inspect
import json
import logging
import re
import sys
from collections.abc import AsyncIterator
from dataclasses import fields
from pathlib import Path
from subprocess import PIPE, STDOUT
from types import ModuleType
from typing import Any

import pytest
from pydantic import BaseModel

from lagwise import Policy, Reason, errors, health
from lagwise._decide.view import Standing
from lagwise._decide.words import in_words
from lagwise._pools.options import DEFAULTS
from lagwise._say import say
from lagwise.asgi import CausalityMiddleware
from lagwise.errors import RoutingError
from lagwise.testing import Cluster
from tests.kit.serving import client, served

from .pages import DOCS, PAGES, ROOT, Block, blocks, compiled, run, table

README = ROOT / "README.md"
CONCEPTS, HEALTH, DESIGN, REFERENCE = (
    ROOT / "docs" / f"{name}.md" for name in ("concepts", "health", "design", "reference")
)
PYTHON = [block for page in PAGES for block in blocks(page) if block.language == "python"]
FOLDERS = ("_decide", "_client", "_pools", "_nodes", "_sessions")
MODULES = sorted(
    ".".join(path.relative_to(ROOT / "src").with_suffix("").parts).removesuffix(".__init__")
    for path in (ROOT / "src").rglob("*.py")
    if path.name != "__main__.py"
)


def nodes(cluster: Cluster) -> dict[str, str]:
    """The URLs that stand for the hosts of the documentation."""
    return {"primary": cluster.primary.url, "replica-1": cluster.replicas[0].url}


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_every_python_block_compiles(block: Block) -> None:
    """Nothing that is shown has a syntax error."""
    assert compiled(block) is not None


@pytest.mark.parametrize("block", [block for block in PYTHON if block.how != "pytest"], ids=str)
def test_routes_belong_to_api(block: Block) -> None:
    """`app` is the middleware around `api`, on every page: it has none of FastAPI's methods."""
    assert re.findall(r"^@?app\.\w+", block.code, re.M) == []


@pytest.mark.parametrize("page", [page for page in PAGES if any(b.how == "script" for b in blocks(page))], ids=str)
async def test_scripts_run(page: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of a page that are meant to run do, on a real cluster, one after the other."""
    await run([block for block in blocks(page) if block.how == "script"], nodes(cluster), monkeypatch)


@pytest.mark.parametrize("page", [page for page in PAGES if "\nfrom shop import" in page.read_text()], ids=str)
def test_a_page_says_whose_module_shop_is(page: Path) -> None:
    """What an example imports comes with lagwise, or the page says that it is the reader's own."""
    assert "`shop` is your own module" in page.read_text()


async def test_the_application_of_the_configuration_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its block has all of its imports, and takes all that it needs from the environment."""
    monkeypatch.setenv("LAGWISE_PRIMARY", "postgresql+asyncpg://app:secret@primary/shop")
    monkeypatch.setenv("LAGWISE_SECRET", "a secret for tests")
    module = await run(blocks(ROOT / "docs" / "configuration.md")[:1], {}, monkeypatch)
    assert isinstance(module.app, CausalityMiddleware)


@pytest.fixture
async def without_items(cluster: Cluster) -> AsyncIterator[None]:
    """The tables of the README's application, and of the examples, go with them."""
    yield
    await cluster.primary.execute("DROP TABLE IF EXISTS shop_items, items")


async def readme(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The README's application, on a primary and one replica."""
    monkeypatch.setenv("LAGWISE_PRIMARY", cluster.primary.url)
    monkeypatch.setenv("LAGWISE_REPLICAS", cluster.replicas[0].url)
    monkeypatch.setenv("LAGWISE_SECRET", "a secret for tests")
    return await run([block for block in blocks(README) if block.how], nodes(cluster), monkeypatch)


@pytest.mark.usefixtures("without_items")
async def test_the_readme_fixes_the_bug(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its application answers a GET after a POST although the replica stands still; another client misses the item."""
    module = await readme(cluster, monkeypatch)
    async with served(module.app) as url, client(url) as http, client(url) as another:
        await cluster.caught_up()  # the replica has the table
        await cluster.pause_replay("replica-1")
        created = await http.post("/items/milk")
        path = f"/items/{created.json()['id']}"
        statuses = [created.status_code, (await http.get(path)).status_code, (await another.get(path)).status_code]
        assert statuses == [201, 200, 404]
        assert (await http.get("/health/ready?for=writes")).status_code == 200


@pytest.mark.usefixtures("without_items")
async def test_the_readme_and_then_the_examples(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other on one cluster, as a newcomer tries them: no table of one is in the way of the other."""
    module = await readme(cluster, monkeypatch)
    async with served(module.app) as url, client(url) as http:
        assert (await http.post("/items/milk")).status_code == 201
    monkeypatch.delitem(sys.modules, "examples.app", raising=False)
    async with served(importlib.import_module("examples.app").app) as url, client(url) as http:
        assert (await http.post("/items", json={"text": "milk"})).status_code == 201


@pytest.mark.parametrize("page", [README, ROOT / "docs" / "rollout.md"], ids=lambda page: page.name)
@pytest.mark.parametrize("replicas", [None, ""], ids=["unset", "empty"])
async def test_the_applications_start_without_replicas(
    page: Path, replicas: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A variable that is empty or not set means that there is none, and is no URL."""
    monkeypatch.setenv("LAGWISE_PRIMARY", "postgresql+asyncpg://app:secret@primary/shop")
    monkeypatch.delenv("LAGWISE_REPLICAS", raising=False)
    if replicas is not None:
        monkeypatch.setenv("LAGWISE_REPLICAS", replicas)
    monkeypatch.setenv("LAGWISE_SECRET", "a secret for tests")
    monkeypatch.setenv("OFFLOAD", str(tmp_path / "offload"))
    module = await run([block for block in blocks(page) if block.how == "application"], {}, monkeypatch)
    assert list(module.db.pools) == ["primary"]


async def test_test_files_pass(tmp_path: Path) -> None:
    """The test files of the documentation pass with the configuration the documentation asks for."""
    shown = [block for block in PYTHON if block.how == "pytest"]
    asked = {b.code for block in shown for b in blocks(block.page) if b.language == "toml"}
    assert len(asked) == 1
    (tmp_path / "pyproject.toml").write_text(asked.pop())
    for number, block in enumerate(shown):
        (tmp_path / f"test_shown_{number}.py").write_text(block.code)
    process = await _python("-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=tmp_path)
    said = process[1].splitlines()[-1].partition(" in ")[0]
    assert (process[0], said) == (0, f"{len(shown)} passed"), process[1]


def test_the_policy_table_is_the_policy() -> None:
    """Every setting is in the reference, in order, with the default that the code has."""
    shown = [(row[0], ast.literal_eval(row[1])) for row in table(REFERENCE, "`Policy`")]
    assert [(field.name, field.default) for field in fields(Policy)] == shown


def test_the_middleware_table_is_the_middleware() -> None:
    """Likewise for the options of the middleware."""
    options = list(inspect.signature(CausalityMiddleware).parameters.values())[1:]
    shown = [(row[0], row[1] if row[1] == "required" else ast.literal_eval(row[1])) for row in _middleware()]
    assert [(o.name, "required" if o.default is o.empty else o.default) for o in options] == shown


def _middleware() -> list[list[str]]:
    return table(REFERENCE, "`CausalityMiddleware`")


def test_the_engine_table_is_what_engines_get() -> None:
    """Likewise for the engines that are made from URLs."""
    assert dict(DEFAULTS) == {row[0]: ast.literal_eval(row[1]) for row in table(REFERENCE, "Engines made from URLs")}


@pytest.mark.parametrize(("words", "head"), [(Reason, "Reason"), (Standing, "Standing")])
def test_every_word_is_explained(words: type[Reason] | type[Standing], head: str) -> None:
    """Every word of a route, a log line or /nodes is in the table, and no other is."""
    assert [word.value for word in words] == [row[0] for row in table(CONCEPTS, head)]


def test_every_error_is_explained() -> None:
    """Every error that a caller may meet is in the table."""
    leaves = {name for name, one in vars(errors).items() if isinstance(one, type) and issubclass(one, RoutingError)}
    assert leaves - {"RoutingError"} == {row[0] for row in table(CONCEPTS, "Error")}


@pytest.mark.parametrize(
    ("head", "model"),
    [
        ("/ready", health.Health),
        ("/nodes", health.Nodes),
        ("/pools", health.PoolsHealth),
        ("The status page", health.Overview),
    ],
)
def test_examples_of_health_have_the_fields_of_the_models(head: str, model: type[BaseModel]) -> None:
    """What is shown is what the endpoint answers, field by field."""
    text = HEALTH.read_text()
    example = json.loads(text.partition(f"\n## {head}\n")[2].partition("```json\n")[2].partition("```")[0])
    answered = model.model_validate(example).model_dump(mode="json")
    assert _shape(answered) == _shape(example)


def _shape(value: Any) -> Any:
    """The names in a JSON value, without its times."""
    if isinstance(value, dict):
        return {key: _shape(one) for key, one in value.items() if key != "time"}
    return [_shape(one) for one in value] if isinstance(value, list) else value


def test_the_line_of_the_log_is_what_is_printed(caplog: pytest.LogCaptureFixture) -> None:
    """With the formatter of `logging.basicConfig()`; and the template that is shown is that of the record."""
    error = in_words("InvalidCatalogNameError", "3D000", 'database "nowhere" does not exist')
    say(logging.WARNING, "node-unreachable", node="replica-1", error=error)
    (record,) = caplog.records
    page = HEALTH.read_text()
    assert f"```text\n{logging.Formatter(logging.BASIC_FORMAT).format(record)}\n```" in page
    assert f"`{record.msg}`" in page


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_resolves(page: Path) -> None:
    """Relative links lead to files that exist, and to headings that are there."""
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        name, _, anchor = link.partition("#")
        if name.startswith(("http://", "https://")):
            continue
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in _anchors(target)):
            broken.append(link)
    assert not broken


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_words_are_those_of_the_glossary(page: Path) -> None:
    """The primary and its replicas go by no other name."""
    assert not re.findall(r"\b(?:masters?|slaves?|writers?|readers?)\b", page.read_text(), re.I)


def test_every_test_that_is_named_exists() -> None:
    """The tests that the design names as holding an invariant are there."""
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", DESIGN.read_text())
    assert named
    missing = [(file, test) for file, test in named if f"def {test}(" not in _text(ROOT / file)]
    assert not missing


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def test_every_module_is_in_the_house() -> None:
    """The design's table of modules has each of them once, and none that is gone."""
    shown = [(row[0], name) for row in table(DESIGN, "Folder") for name in re.findall(r"`(\w+)`", f"`{row[1]}`")]
    source = ROOT / "src" / "lagwise"
    alone = {("lagwise", path.stem) for path in source.glob("*.py") if not path.stem.startswith("__")}
    folded = {(folder, path.stem) for folder in FOLDERS for path in (source / folder).glob("[!_]*.py")}
    packages = {("lagwise", path.parent.name) for path in source.glob("[!_]*/__init__.py")}
    assert sorted(shown) == sorted(alone | folded | packages)


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_hold(name: str) -> None:
    """What a docstring shows is what happens."""
    assert doctest.testmod(importlib.import_module(name)).failed == 0


async def _python(*arguments: str, cwd: Path) -> tuple[int | None, str]:
    """Run this Python; its exit status and what it said."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, cwd=cwd, stdin=asyncio.subprocess.DEVNULL, stdout=PIPE, stderr=STDOUT
    )
    said, _ = await process.communicate()
    return process.returncode, said.decode()
