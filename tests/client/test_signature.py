"""What signing promises: what comes back from a client is what was given to it, or InvalidToken."""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lagwise import LSN, CausalToken, InvalidToken
from lagwise._client.signature import Seal
from lagwise._decide.token import Position
from tests.kit.hostile import hostile, read
from tests.kit.worlds import positions, tokens

SECRET = "correct horse battery staple"  # a test's
TOKEN = CausalToken.of(Position(system=(1 << 64) - 1 - n, timeline=1, lsn=LSN(64), issued_at=9) for n in (0, 1))


@given(tokens())
def test_what_was_sealed_is_opened(token: CausalToken) -> None:
    """The client's token comes back whole."""
    seal = Seal(SECRET)
    assert seal.opened(seal.sealed(token)) == token


@given(st.lists(positions(), min_size=1, max_size=2))
def test_one_or_two_databases_take_120_characters_at_most(few: list[Position]) -> None:
    """Signature included, in characters that need no quoting in a cookie."""
    text = Seal(SECRET).sealed(CausalToken.of(few))
    assert len(text) <= 120
    assert text.isascii()
    assert not set(text) & set(' ",;\\=')


def test_sixteen_databases_still_open() -> None:
    """What is sealed is never too long to be opened."""
    seal = Seal(SECRET)
    token = CausalToken.of(Position(system=n, timeline=1, lsn=LSN(1 << 63), issued_at=n) for n in range(1, 17))
    assert seal.opened(seal.sealed(token)) == token


def test_ten_thousand_bad_texts_are_invalid_tokens_and_nothing_else() -> None:
    """Noise, cuts, flipped bits and forgeries raise InvalidToken; the message never repeats them.

    Base64 forgives a little in the signature; what is opened then is still the token that was sealed.
    """
    random_, seal = random.Random(3), Seal(SECRET)
    good = seal.sealed(TOKEN)
    opened = 0
    for text in [bad for _ in range(1000) for bad in hostile(random_, good)]:
        answer = read(seal.opened, text)
        if isinstance(answer, CausalToken):
            opened += 1
            assert answer == TOKEN
            assert text.startswith(f"{TOKEN}.")
    assert opened < 500


def test_every_flipped_bit_of_the_payload_is_noticed() -> None:
    """No token can be made of another: not a higher position, not another database, not a later time."""
    seal = Seal(SECRET)
    good = seal.sealed(TOKEN)
    for place in range(good.index(".")):
        for bit in range(7):
            with pytest.raises(InvalidToken):
                seal.opened(good[:place] + chr(ord(good[place]) ^ 1 << bit) + good[place + 1 :])


@pytest.mark.parametrize(
    "text", ["", ".", "..", "x.", ".x", str(TOKEN), f"{TOKEN}.", "é.é", "\ud800", "A" * 1025, "A" * 10_000_000]
)
def test_text_without_a_signature_is_refused(text: str) -> None:
    """Nothing unsigned gets in, however long."""
    with pytest.raises(InvalidToken):
        Seal(SECRET).opened(text)


@settings(max_examples=25)
@given(tokens())
def test_rotation_signs_with_the_first_secret_and_verifies_with_all(token: CausalToken) -> None:
    """A new secret goes in front; tokens signed with the old one are good until it is taken out."""
    old, both, new = Seal("old"), Seal(["new", "old"]), Seal("new")
    assert both.opened(old.sealed(token)) == token
    assert both.sealed(token) == new.sealed(token)
    assert new.opened(both.sealed(token)) == token
    with pytest.raises(InvalidToken, match="not signed by a secret of this application"):
        old.opened(both.sealed(token))
    with pytest.raises(InvalidToken, match="not signed by a secret of this application"):
        new.opened(old.sealed(token))


def test_another_applications_token_is_refused() -> None:
    """A client cannot pin itself anywhere with a token of another secret, and learns nothing from the error."""
    foreign = Seal("another secret").sealed(TOKEN)
    with pytest.raises(InvalidToken) as caught:
        Seal(SECRET).opened(foreign)
    assert foreign not in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("secret", ["", [], [""], ["good", ""], [None], 7 * [""]], ids=repr)
def test_a_missing_secret_is_an_error_at_the_start(secret: str | Sequence[str]) -> None:
    """An empty secret would let anybody sign."""
    with pytest.raises(ValueError, match="secret must be a non-empty string"):
        Seal(secret)


def test_a_signature_has_one_spelling() -> None:
    """Spare bits in its last character, or padding, make another text of the same bytes: refused."""
    seal = Seal("secret")
    text = seal.sealed(CausalToken.of([Position(system=7, timeline=1, lsn=LSN(64), issued_at=1)]))
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    accepted = []
    for last in (*alphabet, text[-1] + "="):
        with suppress(InvalidToken):
            seal.opened(text[:-1] + last)
            accepted.append(last)
    assert accepted == [text[-1]]
