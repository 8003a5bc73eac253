"""The path of one connection, cut: a firewall that has forgotten it drops its packets and tells nobody."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from lagwise._pools.internals import transport_of


@contextmanager
def silent(driver: Any) -> Iterator[None]:
    """Drop every packet of this connection, both ways."""
    program = shutil.which("iptables", path="/usr/sbin:/sbin:/usr/bin")
    if program is None:
        pytest.skip("iptables is not installed: apt-get install iptables")
    transport = transport_of(driver)
    here, there = (str(transport.get_extra_info(name)[1]) for name in ("sockname", "peername"))
    with ExitStack() as rules:
        for one, other in ((here, there), (there, here)):
            rule = ("INPUT", "-i", "lo", "-p", "tcp", "--sport", one, "--dport", other, "-j", "DROP")
            done = subprocess.run([program, "-w", "-I", *rule], capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip(f"iptables may not change what this machine drops: {done.stderr.strip().splitlines()[-1:]}")
            rules.callback(subprocess.run, [program, "-w", "-D", *rule], check=True)
        yield
