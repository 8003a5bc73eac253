"""A Router from environment variables: what they mean, and what a mistake says."""

import os
import re
import subprocess
import sys
import traceback
from dataclasses import fields
from pathlib import Path

import pytest
from sqlalchemy import text

from lagwise import Causality, Policy, Reason, Router
from lagwise.settings import Settings
from lagwise.testing import Cluster
from tests.docs.pages import ROOT
from tests.kit.routers import in_rotation

PASSWORD, HOST = "hunter2-planted", "planted.example"
URL = f"postgresql+asyncpg://app:{PASSWORD}@{HOST}/shop"
# A value of each kind that is not the default, as an operator writes it.
WRITTEN = {"fall_back": "no", "guarantee": "session", "without_primary": "refuse", "fall_back_limit": "3"}


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment without variables of lagwise."""
    for name in [name for name in os.environ if name.upper().startswith("LAGWISE_")]:
        monkeypatch.delenv(name)
    return monkeypatch


@pytest.fixture
def given(bare: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment with a primary."""
    bare.setenv("LAGWISE_PRIMARY", URL)
    return bare


def refused(call: object = Router.from_env, **values: object) -> str:
    """The one line of the error, which holds nothing that is secret, as an error tracker would show it."""
    assert callable(call)
    with pytest.raises(ValueError, match=r".") as caught:
        call(**values)
    whole = "".join(traceback.format_exception(caught.value))
    assert (PASSWORD in whole, HOST in whole, caught.value.__context__) == (False, False, None)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_field_of_the_policy_is_a_variable(given: pytest.MonkeyPatch) -> None:
    """A field that is added to Policy can be set from the environment by its name, with no further line of code."""
    default = Policy(max_lag=1, sticky_window=9)
    for field in fields(Policy):
        number = getattr(default, field.name)
        given.setenv(f"LAGWISE_{field.name.upper()}", WRITTEN.get(field.name, str(number)))
    found = Router.from_env().policy
    assert {name: str(getattr(found, name)) for name in WRITTEN} == {**WRITTEN, "fall_back": "False"}
    assert (found.max_lag, found.sticky_window) == (1, 9)


def test_nodes_have_names_or_numbers(given: pytest.MonkeyPatch) -> None:
    """`name=URL` names a replica, one without is numbered by its place; commas and equals signs inside stay."""
    one = f"postgresql+asyncpg://app:a,b=c@{HOST}/shop?ssl=require"
    given.setenv("LAGWISE_REPLICAS", f"berlin={one}, {URL},\n postgres://{HOST}/shop,")
    settings = Settings()
    assert list(settings.replicas) == ["berlin", "replica-2", "replica-3"]
    assert settings.arguments()["replicas"]["berlin"] == one
    assert settings.arguments()["replicas"]["replica-3"] == f"postgresql+asyncpg://{HOST}/shop"
    assert list(Router.from_env().pools) == ["primary", "berlin", "replica-2", "replica-3"]
    assert (PASSWORD in repr(settings), HOST in repr(settings)) == (False, False)


def test_a_scheme_is_written_as_one_likes(given: pytest.MonkeyPatch) -> None:
    """Schemes are the same in capitals (RFC 3986, 3.1)."""
    given.setenv("LAGWISE_PRIMARY", f"POSTGRESQL://{HOST}/Shop")
    given.setenv("LAGWISE_REPLICAS", f"Postgres://{HOST}/Shop")
    found = Settings().arguments()
    expected = f"postgresql+asyncpg://{HOST}/Shop"
    assert (found["primary"], found["replicas"]) == (expected, {"replica-1": expected})


def test_pool_options_and_the_rest_reach_the_router(given: pytest.MonkeyPatch) -> None:
    """What is set is passed on, what is not set keeps the default, and an empty variable is not set."""
    for name, value in {"POOL_SIZE": "3", "POOL_USE_LIFO": "true", "SYSTEM": "42", "POOLING": "transaction"}.items():
        given.setenv(f"LAGWISE_{name}", value)
    given.setenv("LAGWISE_REPLICAS", "")
    given.setenv("LAGWISE_MAX_LAG", "")
    assert Settings().arguments() == {
        "primary": URL,
        "replicas": {},
        "policy": Policy(),
        "pool_size": 3,
        "pool_use_lifo": True,
        "system": "42",
        "pooling": "transaction",
    }


def test_code_comes_before_variables(given: pytest.MonkeyPatch) -> None:
    """What `from_env` is called with wins: nodes, a whole policy, or one field of it together with the variables."""
    given.setenv("LAGWISE_MAX_LAG", "9")
    given.setenv("LAGWISE_CATCH_UP", "0")
    assert Router.from_env(sticky_window=20.0).policy == Policy(max_lag=9, sticky_window=20, catch_up=0)
    assert Router.from_env(max_lag=1).policy.max_lag == 1
    assert list(Router.from_env(max_lag=1, replicas={"one": URL}).pools) == ["primary", "one"]
    assert "not both" in refused(policy=Policy(), max_lag=1)


def test_a_prefix_is_another_router(given: pytest.MonkeyPatch) -> None:
    """`Router.from_env("ORDERS_")` reads its own names alone; an empty prefix would read the system's."""
    given.setenv("ORDERS_PRIMARY", URL)
    given.setenv("ORDERS_MAX_LAG", "2")
    assert Router.from_env("ORDERS_").policy.max_lag == 2
    assert Router.from_env().policy.max_lag == 5
    assert refused(prefix="").startswith("prefix must not be empty")


def test_secrets_rotate(given: pytest.MonkeyPatch) -> None:
    """Several secrets are a list: the first signs, all verify; they are masked wherever the settings are shown."""
    given.setenv("LAGWISE_SECRET", f"new, {PASSWORD}")
    assert Settings().secrets == ["new", PASSWORD]
    assert PASSWORD not in repr(Settings())
    assert PASSWORD not in Settings().model_dump_json()
    given.setenv("LAGWISE_SECRET", f"{PASSWORD},,old")
    assert refused(Settings).startswith("LAGWISE_SECRET holds an empty secret: write one secret, or several")
    given.delenv("LAGWISE_SECRET")
    assert refused(lambda: Settings().secrets).startswith("LAGWISE_SECRET is not set, and neither is LAGWISE_SECRET_FI")


def test_every_variable_may_be_a_file(bare: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`_FILE` names a file with the value, with or without a newline at its end; both set names both."""
    for name, value in {"PRIMARY": URL, "REPLICAS": f"{URL}\nnear={URL}\n", "MAX_LAG": "2\n", "SECRET": "s\n"}.items():
        (tmp_path / name).write_text(value)
        bare.setenv(f"LAGWISE_{name}_FILE", str(tmp_path / name))
    db = Router.from_env()
    assert (list(db.pools), db.policy.max_lag, Settings().secrets) == (["primary", "replica-1", "near"], 2, ["s"])
    bare.setenv("LAGWISE_PRIMARY", URL)
    assert refused() == "LAGWISE_PRIMARY and LAGWISE_PRIMARY_FILE are both set: keep one"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read (FileNotFoundError)"),
        (b" \n", "is empty"),
        (b"\xff", "cannot be read (UnicodeDecodeError)"),
        (b"x" * 65_537, "is above 65536 bytes"),
    ],
)
def test_a_file_that_holds_no_value(
    given: pytest.MonkeyPatch, tmp_path: Path, content: bytes | None, words: str
) -> None:
    """A file that is missing, empty, too large or no text is named by its variable, and not by its path."""
    path = tmp_path / PASSWORD
    if content is not None:
        path.write_bytes(content)
    given.setenv("LAGWISE_SECRET_FILE", str(path))
    assert refused() == f"LAGWISE_SECRET_FILE names a file that {words}"


def test_the_largest_file(given: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """65,536 bytes are read."""
    (tmp_path / "secret").write_bytes(b"x" * 65_536)
    given.setenv("LAGWISE_SECRET_FILE", str(tmp_path / "secret"))
    assert len(Settings().secrets[0]) == 65_536


def test_a_file_of_variables(given: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`env_file` is read where it is asked for; variables of the process come first, mistakes in it are told."""
    file = tmp_path / "some.env"
    file.write_text(f"LAGWISE_PRIMARY=nothing\nLAGWISE_CATCH_UP=0.5\nOTHER=1\nLAGWISE_REPLICAS=near={URL}\n")
    settings = Settings(env_file=file)
    assert (settings.arguments()["primary"], settings.policy.catch_up, [*settings.replicas]) == (URL, 0.5, ["near"])
    file.write_text("LAGWISE_CATCHUP=0.5\n")
    assert refused(Settings, env_file=file) == "LAGWISE_CATCHUP is not known: did you mean LAGWISE_CATCH_UP?"


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        (
            "MAX_LAG",
            "soon",
            "LAGWISE_MAX_LAG: input should be a valid number, unable to parse string as a number, not what was given",
        ),
        ("MAX_LAG", "9", "LAGWISE_STICKY_WINDOW (5 s) must be at least LAGWISE_MAX_LAG (9 s): an expired token"),
        ("PROBE_INTERVAL", "0", "LAGWISE_PROBE_INTERVAL must be above 0, not 0.0"),
        ("GUARANTEE", "all", "LAGWISE_GUARANTEE: input should be 'read-your-writes' or 'session', not what was given"),
        (
            "MAX_LAG",
            URL,
            "LAGWISE_MAX_LAG: input should be a valid number, unable to parse string as a number, not what",
        ),
        ("POOLING", URL, "LAGWISE_POOLING: input should be 'session' or 'transaction', not what was given"),
        ("POOL_SIZE", PASSWORD, "LAGWISE_POOL_SIZE: input should be a valid integer, unable to parse string as an int"),
        ("POOL_SIZE", "-1", "LAGWISE_POOL_SIZE: input should be greater than or equal to 0, not '-1'"),
        ("SYSTEM", PASSWORD, "LAGWISE_SYSTEM is no system identifier: write the 64-bit number"),
        ("PRIMARY", f"{HOST}:{PASSWORD}", "LAGWISE_PRIMARY is no database URL: write postgresql+asyncpg://user:"),
        ("PRIMARY", f"postgresql://{HOST}:{PASSWORD}/x", "LAGWISE_PRIMARY is no database URL"),
        ("PRIMARY", f"postgresql+psycopg://{HOST}/{PASSWORD}", "LAGWISE_PRIMARY names another driver than asyncpg"),
        ("PRIMARY", f"foo://{HOST}/{PASSWORD}", "LAGWISE_PRIMARY names another driver than asyncpg"),
        ("PRIMARY", f"mysql+aiomysql://{HOST}/{PASSWORD}", "LAGWISE_PRIMARY names another driver than asyncpg"),
        ("PRIMARY", f"{URL},{URL}", "LAGWISE_PRIMARY is more than one URL"),
        ("PRIMARY", f"postgresql://{HOST}:65536/{PASSWORD}", "LAGWISE_PRIMARY has a port that is not between 1 and"),
        ("REPLICAS", f"{URL};{URL}", "LAGWISE_REPLICAS at place 1 is more than one URL"),
        ("REPLICAS", PASSWORD, "LAGWISE_REPLICAS at place 1 is no database URL"),
        ("REPLICAS", f"{URL},a=postgresql+psycopg2://{HOST}", "LAGWISE_REPLICAS at place 2 names another driver"),
        ("REPLICAS", f"a={URL},a={URL}", "LAGWISE_REPLICAS at place 2 repeats a name"),
        ("REPLICAS", f"primary={URL}", "LAGWISE_REPLICAS at place 1 repeats a name"),
    ],
)
def test_a_mistake_names_its_variable(given: pytest.MonkeyPatch, name: str, value: str, words: str) -> None:
    """One line: the variable, what it must be, and what it says only where that can be no secret."""
    given.setenv(f"LAGWISE_{name}", value)
    assert refused().startswith(words)


@pytest.mark.parametrize("value", [URL, PASSWORD, f"{HOST}:5432"])
@pytest.mark.parametrize("name", sorted({*Settings.model_fields} - {"primary", "replicas", "secret"}))
def test_a_secret_in_the_wrong_variable_is_not_repeated(given: pytest.MonkeyPatch, name: str, value: str) -> None:
    """Whichever variable a URL, a password or a host was put into: the error names the variable, and not its value."""
    given.setenv(f"LAGWISE_{name.upper()}", value)
    assert refused().startswith(f"LAGWISE_{name.upper()}")


def test_several_mistakes_are_one_line(given: pytest.MonkeyPatch) -> None:
    """All of them are told at once, each by its name."""
    given.setenv("LAGWISE_PRIMARY", PASSWORD)
    given.setenv("LAGWISE_MAX_LAG", "x")
    given.setenv("LAGWISE_POOLING", "y")
    assert set(re.findall(r"LAGWISE_\w+", refused())) == {"LAGWISE_PRIMARY", "LAGWISE_MAX_LAG", "LAGWISE_POOLING"}


def test_no_primary_is_said(bare: pytest.MonkeyPatch) -> None:
    """Without a primary, in the environment or in code, the message names both variables that could give one."""
    assert refused().startswith("LAGWISE_PRIMARY is not set, and neither is LAGWISE_PRIMARY_FILE")
    assert list(Router.from_env(primary=URL).pools) == ["primary"]


@pytest.mark.parametrize("name", ["MAX_LAGG", "REPLICA", "SECRETS", "POOLSIZE", "MAX_LAG_FILES", "PRIMARY_FILE_"])
def test_a_typing_error_does_not_pass(given: pytest.MonkeyPatch, name: str) -> None:
    """A name close to a setting stops the start, and says which was meant."""
    given.setenv(f"LAGWISE_{name}", PASSWORD)
    assert re.fullmatch(rf"LAGWISE_{name} is not known: did you mean LAGWISE_[A-Z_]+\?", refused())


def test_other_names_do_no_harm(given: pytest.MonkeyPatch) -> None:
    """What the test cluster reads is silent; what Kubernetes or another database sets is a warning with the name."""
    given.setenv("LAGWISE_PG_BIN", "/x")
    given.setenv("LAGWISE_TEST_READS", "1")
    Router.from_env()
    given.setenv("LAGWISE_PORT", f"tcp://{HOST}")
    with pytest.warns(UserWarning, match="^LAGWISE_PORT is no setting of lagwise"):
        Router.from_env()
    given.delenv("LAGWISE_PORT")
    given.setenv("LAGWISE_ORDERS_STICKY_WINDOW", "1")
    with pytest.warns(UserWarning, match="the nearest one that there is: LAGWISE_STICKY_WINDOW$"):
        Router.from_env()


def test_the_page_has_every_variable() -> None:
    """docs/configuration.md names each field that is not one of the policy's."""
    named = set(re.findall(r"`LAGWISE_([A-Z_]+)`", (ROOT / "docs" / "configuration.md").read_text()))
    own = {name.upper() for name in Settings.model_fields} - {field.name.upper() for field in fields(Policy)}
    assert own - named == set()


def test_a_missing_package_is_one_line() -> None:
    """Without pydantic-settings the error says what to install, and `import lagwise` does not need it."""
    code = (
        "import sys; sys.modules['pydantic_settings'] = None\n"
        "import lagwise\n"
        "assert 'pydantic' not in sys.modules\n"
        "try: lagwise.Router.from_env()\n"
        "except ImportError as error: print(error)"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert answer.stdout == 'lagwise.settings needs pydantic-settings: pip install "lagwise[settings]"\n'


async def test_a_router_of_variables_serves(cluster: Cluster, bare: pytest.MonkeyPatch) -> None:
    """On a real cluster: it writes to the primary and reads from the replica that the environment names."""
    bare.setenv("LAGWISE_PRIMARY", cluster.primary.url)
    bare.setenv("LAGWISE_REPLICAS", f"near={cluster.replicas[0].url}")
    bare.setenv("LAGWISE_PROBE_TIMEOUT", "5")
    bare.setenv("LAGWISE_POOL_SIZE", "2")
    async with Router.from_env() as db:
        await in_rotation(db, "near")
        with Causality() as seen:
            async with db.write.begin() as session:
                await session.execute(text("INSERT INTO item (name) VALUES ('from the environment')"))
            async with db.read() as session:
                found = await session.scalar(text("SELECT name FROM item WHERE name = 'from the environment'"))
            async with db.read(primary=True) as session:
                route = session.info["lagwise.route"]
        assert (found, route.reason, len(seen.routes) >= 2) == ("from the environment", Reason.STRONG, True)
        assert db.pools["near"].reading.sync_engine.pool.size() == 2  # type: ignore[attr-defined]
