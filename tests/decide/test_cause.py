"""Why a node does not answer: a mistake in the configuration has another word than an outage."""

from __future__ import annotations

import socket
import ssl
from asyncio import CancelledError

import asyncpg  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from lagwise._decide.failure import Cause, Kind, cause_of
from lagwise._decide.refusing import refusal
from lagwise._decide.route import Reason, Route
from lagwise._decide.view import Node
from lagwise.policy import Policy
from tests.kit.worlds import after, replica, unreachable

SECRET = "hunter2 at 10.0.0.7"


def caused_by(error: BaseException, cause: BaseException) -> BaseException:
    """The one, raised from the other."""
    error.__cause__ = cause
    return error


CAUSES: list[tuple[BaseException, Kind, str, str | None]] = [
    (asyncpg.InvalidPasswordError(SECRET), Kind.PASSWORD, "InvalidPasswordError", "28P01"),
    (
        asyncpg.InvalidAuthorizationSpecificationError(SECRET),
        Kind.LOGIN,
        "InvalidAuthorizationSpecificationError",
        "28000",
    ),
    (asyncpg.InvalidCatalogNameError(SECRET), Kind.DATABASE, "InvalidCatalogNameError", "3D000"),
    (asyncpg.InsufficientPrivilegeError(SECRET), Kind.PRIVILEGE, "InsufficientPrivilegeError", "42501"),
    (asyncpg.TooManyConnectionsError(SECRET), Kind.FULL, "TooManyConnectionsError", "53300"),
    (asyncpg.CannotConnectNowError(SECRET), Kind.STARTING, "CannotConnectNowError", "57P03"),
    (asyncpg.AdminShutdownError(SECRET), Kind.STOPPING, "AdminShutdownError", "57P01"),
    (asyncpg.ConnectionDoesNotExistError(SECRET), Kind.LOST, "ConnectionDoesNotExistError", "08003"),
    (asyncpg.UndefinedObjectError(SECRET), Kind.OPTION, "UndefinedObjectError", "42704"),
    (asyncpg.FeatureNotSupportedError(SECRET), Kind.OTHER, "FeatureNotSupportedError", "0A000"),
    (socket.gaierror(-2, SECRET), Kind.HOST, "gaierror", None),
    (ssl.SSLCertVerificationError(SECRET), Kind.TLS, "SSLCertVerificationError", None),
    (ConnectionRefusedError(111, SECRET), Kind.REFUSED, "ConnectionRefusedError", None),
    (ConnectionResetError(SECRET), Kind.LOST, "ConnectionResetError", None),
    (ConnectionError(f'PostgreSQL server at "{SECRET}" rejected SSL upgrade'), Kind.TLS, "ConnectionError", None),
    (caused_by(TimeoutError(), CancelledError()), Kind.SILENT, "TimeoutError", None),
    (TypeError(f"unexpected keyword argument {SECRET}"), Kind.OPTION, "TypeError", None),
    (asyncpg.exceptions.ClientConfigurationError(SECRET), Kind.OPTION, "ClientConfigurationError", None),
    (ArgumentError(SECRET), Kind.OPTION, "ArgumentError", None),
    (NoSuchModuleError(SECRET), Kind.DRIVER, "NoSuchModuleError", None),
    (ModuleNotFoundError(SECRET), Kind.DRIVER, "ModuleNotFoundError", None),
    (KeyError(SECRET), Kind.SETUP, "KeyError", None),
    (
        DBAPIError("connect", None, caused_by(Exception(), asyncpg.InvalidPasswordError(SECRET))),
        Kind.PASSWORD,
        "InvalidPasswordError",
        "28P01",
    ),
    (
        DBAPIError("connect", None, caused_by(Exception(), socket.gaierror(-2, SECRET))),
        Kind.HOST,
        "gaierror",
        None,
    ),
    (DBAPIError("connect", None, Exception(SECRET)), Kind.OTHER, "DBAPIError", None),
]


@pytest.mark.parametrize(("error", "kind", "name", "state"), CAUSES)
def test_each_failure_has_its_word(error: BaseException, kind: Kind, name: str, state: str | None) -> None:
    """The driver's own class and SQLSTATE decide, however SQLAlchemy wraps them; the text is never shown."""
    cause = cause_of(error)
    assert cause == Cause(kind, name, state)
    assert SECRET not in str(cause)


@given(st.lists(st.sampled_from([each[0] for each in CAUSES]), min_size=1, max_size=12))
def test_a_chain_of_any_length_ends(errors: list[BaseException]) -> None:
    """Whatever was raised from whatever, and a circle of causes too: a cause is found, and shows no text."""
    made = [type(error).__new__(type(error)) for error in errors]
    for error, cause in zip(made, [*made[1:], made[0]], strict=True):
        error.__cause__ = cause
    assert SECRET not in str(cause_of(made[0]))


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind.mistake])
def test_a_mistake_does_not_look_like_a_failover(kind: Kind) -> None:
    """When nothing but mistakes keeps the nodes away, NoPrimary says what to mend and not to wait for a failover."""
    view = after([Node(name="primary", cause=Cause(kind, "SomeError", "00000"))])
    said = str(refusal(view, Policy(), Route(None, Reason.NO_REPLICAS), 0.0))
    assert "mistake" in said
    assert f"primary: {kind.remedy}" in said
    assert kind in said
    assert "Retry" not in said


def test_an_outage_does_not_look_like_a_mistake() -> None:
    """A node that refuses connections is waited for, and no setting is blamed."""
    said = str(refusal(after([unreachable("primary")]), Policy(), Route(None, Reason.WRITE), 0.0))
    assert "mistake" not in said
    assert "Retry when the failover is over." in said


def test_a_mistake_beside_nodes_that_answer_is_named_too() -> None:
    """A failover, and one URL that is wrong besides: both are said."""
    nodes = [Node(name="primary", cause=Cause(Kind.PASSWORD, "InvalidPasswordError", "28P01")), replica("replica-1", 1)]
    said = str(refusal(after(nodes), Policy(), Route(None, Reason.WRITE), 0.0))
    assert "Retry when the failover is over, and primary: check the user and the password" in said
