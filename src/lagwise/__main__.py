"""``python -m lagwise``, and what the command ``lagwise`` runs."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable

# What the `cli` extra brings; checked before anything of it is imported, so that the answer is one line.
_NEEDED = ("typer", "rich")


def loaded() -> Callable[[], None]:
    """The command line, imported; or say what to install: exit status 2."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        sys.stderr.write(f'lagwise: {" and ".join(missing)} missing: pip install "lagwise[cli]"\n')
        raise SystemExit(2)
    from lagwise.cli import app  # noqa: PLC0415 - needs the extra

    return app


def main() -> None:
    """Run the command line."""
    loaded()()


if __name__ == "__main__":
    main()
