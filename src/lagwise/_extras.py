"""What to install where an extra is missing: said in one place, by each module that needs one."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def extra(name: str, module: str) -> Iterator[None]:
    """Import inside what `module` needs of this extra.

    Raises:
        ImportError: a package is missing; the message names it, and what to install.
    """
    try:
        yield
    except ModuleNotFoundError as missing:
        package = (missing.name or name).partition(".")[0].replace("_", "-")
        raise ImportError(f'{module} needs {package}: pip install "lagwise[{name}]"') from missing
