"""pytest's plugin and `assert_route`, as the suite of an application uses them: in a pytest of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

_SETTINGS = """
[tool.pytest.ini_options]
asyncio_default_test_loop_scope = "session"
asyncio_default_fixture_loop_scope = "session"
filterwarnings = ["error"]
"""
_SUITE = """
import pytest
import pytest_asyncio
from lagwise.testing import assert_route, rolled_back
from sqlalchemy import text

pytestmark = pytest.mark.asyncio


@pytest.fixture(scope="session")
def lagwise_replicas():
    return 1


@pytest_asyncio.fixture(scope="session", loop_scope="session", autouse=True)
async def tables(lagwise_cluster):
    await lagwise_cluster.primary.execute("CREATE TABLE item (name text)")
    await lagwise_cluster.caught_up()


async def test_where_it_went(lagwise_db, lagwise_cluster):
    async with lagwise_db.read() as session:
        await session.execute(text("SELECT 1"))
        assert_route(session)
        assert_route(session, node="replica-1", reason="fresh")
        with pytest.raises(AssertionError) as caught:
            assert_route(session, node="primary", reason="sticky")
        first, second = str(caught.value).splitlines()
        assert first == "the session went to replica-1; reason=fresh, expected was primary; reason=sticky"
        assert second.startswith("  primary=primary replicas=replica-1 (in-rotation, ")
        with pytest.raises(AssertionError, match="expected was any node; reason=sticky"):
            assert_route(session, reason="sticky")
    with pytest.raises(AssertionError, match="has no route"):
        assert_route(lagwise_db.read())
    await lagwise_cluster.pause_replay("replica-1")  # undone for the next test


@pytest.mark.parametrize("turn", [1, 2])
async def test_rolled_back(lagwise_db, turn):
    async with rolled_back(lagwise_db):
        async with lagwise_db.write.begin() as session:
            await session.execute(text("INSERT INTO item VALUES ('undone')"))
        async with lagwise_db.read() as session:
            assert await session.scalar(text("SELECT count(*) FROM item")) == 1
            assert_route(session, node="primary", reason="no-replicas")
"""


def _pytest(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", *arguments],
        cwd=folder, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    return done.stdout + done.stderr


def test_a_suite_of_an_application(tmp_path: Path) -> None:
    """Cluster, Router, rolled_back and assert_route, in pytest-asyncio's strict mode and with warnings as errors."""
    (tmp_path / "pyproject.toml").write_text(_SETTINGS)
    (tmp_path / "test_shop.py").write_text(_SUITE)
    said = _pytest(tmp_path)
    assert "3 passed" in said, said


def test_a_test_in_a_loop_of_its_own_is_told_the_setting(tmp_path: Path) -> None:
    """With pytest-asyncio's default loops the fixture says what to set; a mark on the test does as well."""
    (tmp_path / "test_shop.py").write_text("""
import pytest

@pytest.fixture(scope="session")
def lagwise_replicas():
    return 0

@pytest.mark.asyncio
async def test_apart(lagwise_db):
    async with lagwise_db.read(): ...

@pytest.mark.asyncio(loop_scope="session")
async def test_marked(lagwise_db):
    async with lagwise_db.read(): ...
""")
    for mode in ("strict", "auto"):
        said = _pytest(tmp_path, f"--asyncio-mode={mode}")
        assert "1 passed, 1 error" in said, said
        assert 'set asyncio_default_test_loop_scope = "session"' in said


def test_it_is_found_by_its_entry_point_and_brings_nothing(tmp_path: Path) -> None:
    """A suite without a database pays nothing: neither lagwise nor SQLAlchemy is imported."""
    (tmp_path / "pyproject.toml").write_text(_SETTINGS)
    (tmp_path / "test_plain.py").write_text("""
import sys

def test_nothing(request):
    assert request.config.pluginmanager.has_plugin("lagwise")
    assert not {"lagwise", "sqlalchemy", "asyncpg"} & set(sys.modules)
""")
    said = _pytest(tmp_path)
    assert "1 passed" in said, said


def test_without_pytest_asyncio_it_says_so(tmp_path: Path) -> None:
    """The fixtures need it; whoever does not use them does not."""
    (tmp_path / "pytest_asyncio.py").write_text("raise ImportError")
    (tmp_path / "test_shop.py").write_text("def test_a(lagwise_db): ...\ndef test_b(): ...\n")
    said = _pytest(tmp_path, "-p", "no:asyncio")
    assert "1 passed, 1 error" in said, said
    assert "pip install pytest-asyncio" in said


def test_a_session_without_a_route() -> None:
    """Whatever it is given, it says what is missing."""
    from lagwise.testing import assert_route

    with pytest.raises(AssertionError, match="has no route"):
        assert_route(object(), node="primary")
