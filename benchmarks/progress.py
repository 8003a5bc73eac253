"""Where the run is, on standard error: the tables on standard output stay clean."""

import sys
import time

_BEGAN = time.monotonic()


def progress(text: str) -> None:
    """One line, with the seconds since the start."""
    print(f"{time.monotonic() - _BEGAN:6.0f} s  {text}", file=sys.stderr, flush=True)
