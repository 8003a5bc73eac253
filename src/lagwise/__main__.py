"""The command ``lagwise``, and ``python -m lagwise``."""

from __future__ import annotations

import importlib.util
import sys

# What the `cli` extra brings; checked before anything of it is imported, so that the answer is one line.
_NEEDED = ("typer", "rich")
_INTERRUPTED = 130  # 128 + SIGINT, as shells have it


def main() -> None:
    """Run the command line, or say what to install: exit status 2."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        sys.stderr.write(f'lagwise: {" and ".join(missing)} missing: pip install "lagwise[cli]"\n')
        raise SystemExit(2)
    try:
        from lagwise.cli import app  # noqa: PLC0415 - needs the extra
    except KeyboardInterrupt:  # Ctrl-C during the imports, which take a moment
        raise SystemExit(_INTERRUPTED) from None
    app()


if __name__ == "__main__":
    main()
