"""Cleans up after a test process that died before it could do so itself."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from lagwise.testing.account import Account

# Reads until the pipe closes, which the kernel does for us however we die (SIGKILL, os._exit, a crash).
# SIGQUIT is PostgreSQL's immediate shutdown: the postmaster ends its children itself.
_PATIENCE = 10.0  # seconds
_SCRIPT = """
while read -r _; do :; done
cd /
for file in "$1"/*/postmaster.pid; do
    [ -e "$file" ] && kill -QUIT "$(head -n 1 "$file")"
done
tries=0
while [ "$tries" -lt 50 ] && ls "$1"/*/postmaster.pid; do
    tries=$((tries + 1))
    sleep 0.1
done
rm -rf "$1"
"""


class Watchdog:
    """Waits for this process to end, then stops the servers under ``root`` and deletes it."""

    def __init__(self, root: Path, account: Account) -> None:
        self._root = root
        command = ["/bin/sh", "-c", _SCRIPT, "lagwise-watchdog", str(root)]
        self._process = account.popen(command, cwd=root, stdin=subprocess.PIPE)

    def close(self) -> None:
        """Clean up now; the servers have been stopped already."""
        # The directory first: then there is nothing left for the script to do.
        shutil.rmtree(self._root, ignore_errors=True)
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._root, ignore_errors=True)
