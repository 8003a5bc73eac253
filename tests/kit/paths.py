"""The path of one connection, cut: a firewall that has forgotten it drops its packets and tells nobody."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from lagwise._pools.internals import transport_of


def _iptables(*arguments: str) -> None:
    program = shutil.which("iptables", path="/usr/sbin:/sbin:/usr/bin")
    if program is None:
        pytest.skip("iptables is not installed: apt-get install iptables")
    done = subprocess.run([program, "-w", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"iptables may not change what this machine drops: {done.stderr.strip().splitlines()[-1:]}")


@contextmanager
def silent(driver: Any) -> Iterator[None]:
    """Drop every packet of this connection, both ways."""
    transport = transport_of(driver)
    here, there = (str(transport.get_extra_info(name)[1]) for name in ("sockname", "peername"))
    rules: list[tuple[str, ...]] = [
        ("INPUT", "-i", "lo", "-p", "tcp", "--sport", one, "--dport", other, "-j", "DROP")
        for one, other in ((here, there), (there, here))
    ]
    dropped: list[tuple[str, ...]] = []
    try:
        for rule in rules:
            _iptables("-I", *rule)
            dropped.append(rule)
        yield
    finally:
        for rule in dropped:
            _iptables("-D", *rule)
