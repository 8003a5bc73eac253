"""What a test cluster raises: one base, one leaf for "no PostgreSQL found"."""

from __future__ import annotations


class ClusterError(RuntimeError):
    """A test cluster could not do what was asked; the message carries the tail of the server's own log."""


class BinariesNotFound(ClusterError):  # noqa: N818 - named like the errors of lagwise itself, without a suffix
    """No PostgreSQL server was found; the message lists where it was looked for, and the remedies."""


ClusterError.__module__ = BinariesNotFound.__module__ = "lagwise.testing"
