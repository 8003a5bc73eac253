"""The command `lagwise`. Beside the package `lagwise`, whose imports take a moment, so that Ctrl-C is heard before."""

import os
import signal

_INTERRUPTED = 130  # 128 + SIGINT, as shells have it


def main() -> None:
    """Run the command line. Until its command begins, Ctrl-C ends the process at once: there is nothing to undo."""
    usual = signal.getsignal(signal.SIGINT)
    if usual is signal.default_int_handler:  # a shell ignores it for what runs in the background
        signal.signal(signal.SIGINT, lambda *_: os._exit(_INTERRUPTED))
    from lagwise.__main__ import loaded  # noqa: PLC0415 - this is what takes a moment

    command = loaded()
    signal.signal(signal.SIGINT, usual)
    command()
