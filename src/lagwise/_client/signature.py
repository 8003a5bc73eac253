"""Signing: proves that a token from a client is one that this application gave."""

import hmac
import re
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from functools import lru_cache

from lagwise._client.http import texts_of
from lagwise._decide.token import CausalToken, merged
from lagwise.errors import InvalidToken

NOT_SIGNED = "not signed by a secret of this application"
_SALT = b"lagwise.causal-token"
SHORTEST, _LONGEST = 80, 1024  # characters; a token of one database takes 83, one of sixteen 648
_SIGNATURE = 43  # characters of 32 bytes in base64 without padding
# Clients bring the same token until they write again: the latest few hundred are verified once, in less than 1 MB.
_REMEMBERED = 256
_COOKIE = re.compile(r"[^=.,;\s]{1,64}=")


class Seal:
    """Signs and verifies causal tokens: HMAC-SHA256, by a key derived from the secret for this purpose alone.

    Args:
        secret: one secret, or several: the first signs, all verify.
        verify_only: more secrets that verify and never sign.

    Raises:
        ValueError: there is no secret, or an empty one.
    """

    def __init__(self, secret: str | Sequence[str], verify_only: str | Sequence[str] = ()) -> None:
        signing = [secret] if isinstance(secret, str) else list(secret or ())  # None: an environment variable not set
        others = [verify_only] if isinstance(verify_only, str) else list(verify_only)
        if not signing or not all(isinstance(one, str) and one for one in (*signing, *others)):
            raise ValueError("secret must be a non-empty string, or a list of them; keep it out of the source")
        self._keys = [hmac.digest(one.encode(), _SALT, "sha256") for one in (*signing, *others)]
        self._verified = lru_cache(_REMEMBERED)(self._verify)

    @property
    def mark(self) -> str:
        """Four hexadecimal digits that tell the secret that signs from others, and nothing else of it."""
        return hmac.digest(self._keys[0], b"mark", "sha256").hex()[:4]

    def sealed(self, token: CausalToken) -> str:
        """The signed text; at most 126 characters for one or two databases."""
        text = str(token)
        return f"{text}.{_signature(self._keys[0], text)}"

    def opened(self, text: str) -> CausalToken:
        """The token in a signed text. Raises `InvalidToken`, whatever the text."""
        if len(text) > _LONGEST or not text.isascii():
            raise InvalidToken("not a causal token: too long, or not ASCII")
        return self._verified(text)

    def _verify(self, text: str) -> CausalToken:
        payload, _, signature = text.rpartition(".")
        # The text of a signature is compared, not its bytes: base64 has several spellings of the same bytes.
        if not any(hmac.compare_digest(_signature(key, payload), signature) for key in self._keys):
            raise InvalidToken(NOT_SIGNED)
        return CausalToken.parse(payload)


def verified(token: CausalToken | str, secret: str | Sequence[str] | None) -> CausalToken:
    """The token, or those in this text, merged: with commas between as in the header, with `name=` as in a cookie.

    A signed text needs the secret, an unsigned one has nothing to verify.

    Raises:
        InvalidToken: the text is no token, or is not signed by this secret.
    """
    if not isinstance(token, str):
        return token
    return merged(_verified(text, secret) for text in texts_of(token))


def _verified(text: str, secret: str | Sequence[str] | None) -> CausalToken:
    if (named := _COOKIE.match(text)) is not None:
        text = text[named.end() :]
    if "." not in text:
        return CausalToken.parse(text)
    if secret is None:
        raise InvalidToken("the token is signed: it takes the secret to verify it")
    return Seal(secret).opened(text)


def plausible(text: str | bytes) -> bool:
    """Whether a text is as long as a signed token may be: asked before anything is computed."""
    return SHORTEST <= len(text) <= _LONGEST


def _signature(key: bytes, payload: str) -> str:
    digest = hmac.digest(key, payload.encode(), "sha256")
    return urlsafe_b64encode(digest)[:_SIGNATURE].decode()
