"""What runs under valgrind: `python -m benchmarks.counted CONTESTANT COUNT SEED`, URLs as JSON on standard input."""

import asyncio
import gc
import json
import sys
from contextlib import AsyncExitStack

SEED = int(sys.argv[3]) if len(sys.argv) > 3 else 0
# Without address randomization, which valgrind turns off, everything lies where it lay in the last run. What is made
# before the imports moves what they make: strings of the sizes that names have, and types, which Python numbers.
IN_THE_WAY = [f"{number:0{size}}" for size in range(1, 48) for number in range(SEED * 7)]
TYPES = [type("Type", (), {}).__name__ for _ in range(SEED * 61)]

from benchmarks.application import Servers  # noqa: E402
from benchmarks.contestants import readers  # noqa: E402

WARM = 30


async def main(name: str, count: int, servers: Servers) -> None:
    async with AsyncExitStack() as stack:
        found = {each.name: each for each in await readers(stack, servers, None)}
        await found[name].batch(WARM)  # its connection is open, its statement prepared, its caches filled
        # A collection in one run and not in the other would be most of the difference.
        gc.collect()
        gc.disable()
        await found[name].batch(count)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), Servers(**json.loads(sys.stdin.readline()))))
