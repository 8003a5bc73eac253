"""Texts that a client might send in a token's place, and how a reader takes them."""

import base64
import random
from collections.abc import Callable

from lagwise import CausalToken, InvalidToken


def hostile(random_: random.Random, good: str) -> list[str]:
    """Texts a client might send: noise, and what becomes of a good one in transit or in a forger's hands."""
    noise = "".join(chr(random_.choice([random_.randrange(32, 127), random_.randrange(0x110000)])) for _ in range(40))
    place = random_.randrange(len(good))
    flipped = good[:place] + chr(ord(good[place]) ^ (1 << random_.randrange(7))) + good[place + 1 :]
    return [
        noise[: random_.randrange(41)],
        good[:place],
        good[place + 1 :],
        flipped,
        good + noise[: random_.randrange(1, 41)],
        good * random_.randrange(2, 9),
        good[:place] + noise[: random_.randrange(4)] + good[place:],
        random_.randbytes(random_.randrange(80)).decode("latin-1"),
        base64.urlsafe_b64encode(random_.randbytes(random_.randrange(80))).decode(),
        base64.urlsafe_b64encode(b"\x01" + random_.randbytes(random_.randrange(80))).decode().rstrip("="),
    ]


def read(reader: Callable[[str], CausalToken], text: str) -> CausalToken | str:
    """The token, or the message of the InvalidToken; a message that repeats the text fails the test."""
    try:
        return reader(text)
    except InvalidToken as error:
        message = str(error)
    assert len(text) < 8 or text not in message
    return message
