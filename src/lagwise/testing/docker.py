"""Servers in containers of the official postgres image, where this machine has an engine and no PostgreSQL."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Mapping
from typing import Any, cast

from testcontainers.core.docker_client import DockerClient, get_docker_host

from lagwise.testing.backend import Upstream
from lagwise.testing.container import DESKTOP, HOST, DockerServer, Reach
from lagwise.testing.errors import ClusterError
from lagwise.testing.local import SETTINGS

DEFAULT_MAJOR = 17
_SOCKET = "unix:///var/run/docker.sock"


def available(major: int | None = None) -> DockerBackend | None:
    """A backend, when an engine on this machine answers; an engine elsewhere cannot reach our proxies.

    Raises:
        ClusterError: The engine has no such image and gets none.
    """
    about = _ask(get_docker_host() or _SOCKET)
    if about is None or any("rootless" in option for option in about.get("SecurityOptions") or ()):
        return None  # rootless containers have a network of their own, and no way to our loopback
    desktop = sys.platform != "linux" or "Docker Desktop" in str(about.get("OperatingSystem"))
    asked = os.environ.get("LAGWISE_PG_MAJOR", "")
    major = major or (int(asked) if asked.isdecimal() else DEFAULT_MAJOR)
    return DockerBackend(major, DESKTOP if desktop else HOST)


def _ask(host: str) -> dict[str, Any] | None:
    """What the engine says about itself; None when there is none on this machine."""
    if host.startswith("unix://"):
        # First by hand: docker-py leaves a socket unclosed when the engine does not answer.
        try:
            with socket.socket(socket.AF_UNIX) as trial:
                trial.connect(host.removeprefix("unix://"))
        except OSError:
            return None
    elif not host.startswith("npipe://"):
        return None
    try:
        client = DockerClient().client
        try:
            return cast("dict[str, Any]", client.info())
        finally:
            client.close()
    except Exception:  # docker-py's own, requests' and urllib3's: whatever it is, there is no engine
        return None


class DockerBackend:
    """Runs the servers of one cluster in containers of ``postgres:MAJOR``, which is pulled when it is not here.

    Raises:
        ClusterError: There is no such image.
    """

    def __init__(self, major: int, reach: Reach) -> None:
        self.gateway = reach.listen
        self._reach = reach
        self._image = f"postgres:{major}"
        self._servers: list[DockerServer] = []
        self._lock = threading.Lock()
        self._closed = False
        self.version = self._find_image() or str(major)
        self.origin = f"Docker: {self._image}"

    def create_primary(self, name: str, *, user: str, password: str, settings: Mapping[str, str]) -> DockerServer:
        """``initdb`` and start."""
        server = self._server(name)
        values = {**SETTINGS, **settings}
        quoted = {key: value.replace("\\", "\\\\").replace("'", "''") for key, value in values.items()}
        conf = "".join(f"{key} = '{value}'\n" for key, value in quoted.items())
        server.run("initdb", OWNER=user, SECRET=password, CONF=conf)
        server.start()
        return server

    def create_replica(self, name: str, upstream: Upstream) -> DockerServer:
        """``pg_basebackup`` and start."""
        server = self._server(name)
        server.clone(upstream)
        server.point_at(upstream)
        server.start()
        return server

    def close(self) -> None:
        """Remove every container. Safe to call twice."""
        with self._lock:
            self._closed = True
            servers, self._servers = self._servers, []
        for server in reversed(servers):
            server.close()

    def _server(self, name: str) -> DockerServer:
        with self._lock:
            if self._closed:
                message = "This cluster is closed."
                raise ClusterError(message)
            server = DockerServer(name, self._image, self._reach)
            self._servers.append(server)
        server.launch()
        return server

    def _find_image(self) -> str:
        """Its version, as the official image says it: ``17.5`` of ``PG_VERSION=17.5-1.pgdg120+1``."""
        client = DockerClient().client
        try:
            found = client.images.list(self._image)
            image = found[0] if found else client.images.pull(self._image)
            variables = cast("list[str]", image.attrs["Config"]["Env"])
        except Exception as failed:
            message = f"The image {self._image} is not here and cannot be pulled: {failed}"
            raise ClusterError(message) from failed
        finally:
            client.close()
        environment = dict(variable.split("=", 1) for variable in variables)
        return environment.get("PG_VERSION", "").partition("-")[0]
