"""The load balancers' configurations that are shown agree with themselves, and with the application."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from starlette.routing import Route

from lagwise import Router
from lagwise.fastapi import health_router
from tests.kit.balancing import EXAMPLES, program

HAPROXY = EXAMPLES / "haproxy" / "haproxy.cfg"
NGINX = EXAMPLES / "nginx" / "nginx.conf"
KUBERNETES = EXAMPLES / "kubernetes" / "app.yaml"


def paths_of(text: str) -> set[str]:
    """The paths of health that a configuration asks."""
    code = "\n".join(line.partition("#")[0] for line in text.splitlines())
    return {found.partition("?")[0] for found in re.findall(r"/health/[a-z]+(?:\?for=\w+)?", code)}


@pytest.mark.parametrize("file", [HAPROXY, NGINX, KUBERNETES], ids=lambda file: file.name)
def test_every_path_exists(file: Path) -> None:
    """What is asked of the application is what it answers."""
    router = health_router(Router("postgresql+asyncpg://app@127.0.0.1/shop"))
    there = {f"/health{route.path}" for route in router.routes if isinstance(route, Route)}
    assert paths_of(file.read_text()) <= there
    assert file == NGINX or paths_of(file.read_text())


@pytest.mark.parametrize(("name", "arguments"), [("haproxy", ["-c", "-f", HAPROXY]), ("nginx", ["-t", "-c", NGINX])])
def test_the_programs_accept_it(name: str, arguments: list[Any], tmp_path: Path) -> None:
    """`haproxy -c`, `nginx -t`: no error, and no warning."""
    extra = ["-e", str(tmp_path / "error.log"), "-p", str(tmp_path)] if name == "nginx" else []
    checked = subprocess.run(
        [program(name), *extra, *map(str, arguments)], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    said = checked.stdout + checked.stderr
    unprivileged = "must be root" in said or '"user" directive' in said
    assert checked.returncode == 0, said
    assert unprivileged or "warn" not in said.lower(), said


def seconds(text: str, pattern: str) -> float:
    """The one number that a pattern finds, as seconds."""
    found = set(re.findall(pattern, text))
    assert len(found) == 1, found
    return float(found.pop())


def test_haproxy_notices_within_the_grace() -> None:
    """`fall` times `inter` and one `timeout check` are below the DRAIN_GRACE that is shown; idle times agree."""
    text = HAPROXY.read_text()
    grace = seconds(text, r"DRAIN_GRACE=(\d+)")
    check = seconds(text, r"timeout check (\d+)s")
    assert seconds(text, r"fall (\d+) rise") * seconds(text, r"check inter (\d+)s") + check < grace
    assert seconds(text, r"--timeout-keep-alive (\d+)") > 5


def test_kubernetes_waits_for_the_grace() -> None:
    """The pod has longer than its grace to end, and notices within it; the probes ask what is said of them."""
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed: uv sync --group integrations")
    deployment, service, budget = yaml.safe_load_all(KUBERNETES.read_text())
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    environment = {each["name"]: each.get("value") for each in container["env"]}
    grace, ready = float(environment["DRAIN_GRACE"]), container["readinessProbe"]
    assert ready["periodSeconds"] * ready["failureThreshold"] + ready["timeoutSeconds"] < grace
    assert pod["terminationGracePeriodSeconds"] >= grace + 30
    assert set(environment) >= {"LAGWISE_PRIMARY", "LAGWISE_REPLICAS", "LAGWISE_SECRET"}
    probes = {name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
    assert {name: probe["path"] for name, probe in probes.items()} == {
        "startup": "/health/live", "liveness": "/health/live", "readiness": "/health/ready?for=reads",
    }  # fmt: skip
    assert {probe["port"] for probe in probes.values()} == {port["name"] for port in container["ports"]}
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert [service["spec"]["selector"], budget["spec"]["selector"]["matchLabels"]] == [labels, labels]
    assert budget["spec"]["minAvailable"] < deployment["spec"]["replicas"]


def test_nginx_repeats_no_write() -> None:
    """`non_idempotent` is in no directive; uvicorn keeps idle connections for longer than nginx."""
    text = NGINX.read_text()
    code = "\n".join(line.partition("#")[0] for line in text.splitlines())
    assert "non_idempotent" not in code
    assert seconds(text, r"--timeout-keep-alive (\d+)") > seconds(code, r"keepalive_timeout (\d+)s")
