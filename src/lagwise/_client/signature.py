"""Signing: what comes back from a client is what was given to it."""

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256

from itsdangerous import BadSignature, Signer
from itsdangerous.signer import SigningAlgorithm

from lagwise._decide.token import CausalToken
from lagwise.errors import InvalidToken

_SALT = b"lagwise.causal-token"
_LONGEST = 1024  # characters; a token of sixteen databases takes 650
# Clients bring the same token until they write again: the latest few hundred are verified once, in less than 1 MB.
_REMEMBERED = 256


class _HmacSha256(SigningAlgorithm):
    """In one call: itsdangerous' own goes through several of Python's."""

    def get_signature(self, key: bytes, value: bytes) -> bytes:
        """The signature of a value."""
        return hmac.digest(key, value, "sha256")


class Seal:
    """Signs and verifies causal tokens: HMAC-SHA256 by way of itsdangerous.

    Args:
        secret: one secret, or several for rotation: the first signs, all verify.

    Raises:
        ValueError: there is no secret, or an empty one.
    """

    def __init__(self, secret: str | Sequence[str]) -> None:
        secrets = [secret] if isinstance(secret, str) else list(secret or ())  # None: an environment variable not set
        if not secrets or not all(isinstance(one, str) and one for one in secrets):
            raise ValueError("secret must be a non-empty string, or a list of them; keep it out of the source")
        # itsdangerous signs with the last key and verifies with all. Derived once: it would do so at every signature.
        keys = [Signer(one, salt=_SALT, key_derivation="hmac", digest_method=sha256) for one in reversed(secrets)]
        derived = [key.derive_key() for key in keys]
        self._signer = Signer(derived, sep=b".", key_derivation="none", algorithm=_HmacSha256())
        self._verified = lru_cache(_REMEMBERED)(self._verify)

    def sealed(self, token: CausalToken) -> str:
        """The signed text; at most 120 characters for one or two databases."""
        return self._signer.sign(str(token)).decode()

    def opened(self, text: str) -> CausalToken:
        """The token in a signed text. Raises `InvalidToken`, whatever the text."""
        if len(text) > _LONGEST or not text.isascii():
            raise InvalidToken("not a causal token: too long, or not ASCII")
        return self._verified(text)

    def _verify(self, text: str) -> CausalToken:
        if not _canonical(text.rpartition(".")[2]):
            raise InvalidToken("not signed by a secret of this application")
        try:
            return CausalToken.parse(self._signer.unsign(text).decode())
        except BadSignature:
            raise InvalidToken("not signed by a secret of this application") from None


def _canonical(signature: str) -> bool:
    """Whether this is the one spelling of its bytes: base64 ignores padding and the last character's spare bits."""
    try:
        raw = urlsafe_b64decode(signature + "=" * (-len(signature) % 4))
    except ValueError:
        return False
    return urlsafe_b64encode(raw).rstrip(b"=").decode() == signature
