"""What is run under valgrind: `python -m benchmarks.counted CONTESTANT COUNT`, the URLs as JSON on standard input."""

import asyncio
import gc
import json
import sys
from contextlib import AsyncExitStack

from benchmarks.application import Servers
from benchmarks.contestants import readers

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
