"""What importing costs: a framework, a command line or a test kit only when its module is imported."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {
    "fastapi",
    "starlette",
    "pydantic",
    "pydantic_settings",
    "typer",
    "rich",
    "uvicorn",
    "testcontainers",
    "prometheus_client",
    "opentelemetry",
    "httpx",
    "redis",
}


@pytest.mark.parametrize("module", ["lagwise", "lagwise.asgi"])
def test_the_library_brings_no_framework(module: str) -> None:
    """A worker without a web framework imports lagwise and gets SQLAlchemy, a driver and what signing needs."""
    code = f"import sys, {module}; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert set() == HEAVY & set(answer.stdout.split())


NEEDS = {
    "import lagwise.fastapi": ("fastapi", "lagwise.fastapi needs fastapi", "fastapi"),
    "import lagwise.health": ("fastapi", "lagwise.health needs fastapi", "fastapi"),
    "import lagwise.health  # of fastapi's own": ("pydantic", "lagwise.health needs pydantic", "fastapi"),
    "import lagwise.httpx": ("httpx", "lagwise.httpx needs httpx", "httpx"),
    "import lagwise.prometheus": ("prometheus_client", "lagwise.prometheus needs prometheus-client", "prometheus"),
    "import lagwise.opentelemetry": ("opentelemetry", "lagwise.opentelemetry needs opentelemetry", "opentelemetry"),
    "import lagwise.settings": ("pydantic_settings", "lagwise.settings needs pydantic-settings", "settings"),
    "import lagwise.store; lagwise.store.RedisStore('redis://h')": ("redis", "RedisStore needs redis", "redis"),
}


@pytest.mark.parametrize(("code", "missing"), NEEDS.items(), ids=NEEDS)
def test_a_missing_extra_is_named(code: str, missing: tuple[str, str, str]) -> None:
    """One line: what needs it, what is missing, and what to type in any shell."""
    package, words, extra = missing
    code = f"import sys\nsys.modules[{package!r}] = None\ntry: {code}\nexcept ImportError as error: print(error)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert answer.stdout == f'{words}: pip install "lagwise[{extra}]"\n'


def test_every_public_name_is_there() -> None:
    """What `__all__` promises can be imported, and the names of the documentation are among it."""
    import lagwise

    documented = """
        Router Replica Policy Causality CausalToken LSN Route Reason
        RoutingError NoPrimary NoReplica NotCaughtUp ReadOnly StatementTimeout InvalidToken NotOpen
    """
    assert set(documented.split()) == set(lagwise.__all__)
    assert all(hasattr(lagwise, name) for name in lagwise.__all__)
