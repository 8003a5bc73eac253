"""The settings as a pydantic model, and what a Router takes of them."""

import re
from collections.abc import Mapping
from dataclasses import fields
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self, get_type_hints

from pydantic import BeforeValidator, Field, PrivateAttr, SecretStr, ValidationError, create_model, model_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from lagwise._given import instead
from lagwise._pools.pooling import Mode
from lagwise.policy import Policy
from lagwise.settings import text
from lagwise.settings.mounted import Mounted

_LIMITS = frozenset(field.name for field in fields(Policy))
_POOL = ("pool_size", "max_overflow", "pool_timeout", "pool_recycle", "pool_use_lifo")
_HIDDEN = frozenset({"primary", "replicas", "secret"})

if TYPE_CHECKING:
    _OfPolicy = BaseSettings
else:
    _OfPolicy = create_model(
        "_OfPolicy",
        __base__=BaseSettings,
        **{name: (hint | None, None) for name, hint in get_type_hints(Policy).items() if name in _LIMITS},
    )


class Settings(_OfPolicy):
    """What `Router.from_env()` reads, and the middleware's secrets. A field is a variable: prefix and name.

    Each field of `Policy` is one as well. Each variable has a twin that names a file with the value, as
    LAGWISE_SECRET_FILE for LAGWISE_SECRET. An empty variable counts as not set.

    Args:
        prefix: of all names.
        env_file: a file with more variables, as pydantic-settings reads it; those of the process come first.
        values: fields given in code; they come before all variables.

    Raises:
        ValueError: one line that names each variable with a bad value, and what to write. URLs and secrets are not in
            it. Also for a variable whose name looks like a typing error. Another unknown name with the prefix is a
            `UserWarning`.
    """

    __module__ = "lagwise.settings"

    model_config = SettingsConfigDict(
        env_ignore_empty=True, extra="ignore", frozen=True, hide_input_in_errors=True, validate_default=False
    )

    primary: Annotated[SecretStr | None, BeforeValidator(text.url)] = None
    """URL of the node expected to be the primary. Without a driver, asyncpg is used."""
    replicas: Annotated[dict[str, SecretStr], NoDecode, BeforeValidator(text.urls)] = Field(default_factory=dict)
    """URLs, each with or without a name (`name=URL`), with commas or white space between them."""
    system: Annotated[str | None, BeforeValidator(text.system)] = None
    """The cluster's system identifier."""
    pooling: Mode | None = None
    """"session", or "transaction" where a pooler in transaction mode stands before the nodes."""
    pool_size: Annotated[int, Field(ge=0)] | None = None
    """Connections for each node and role."""
    max_overflow: Annotated[int, Field(ge=-1)] | None = None
    """Connections beyond that."""
    pool_timeout: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """Seconds that a session waits for a connection of its pool."""
    pool_recycle: Annotated[int, Field(ge=-1)] | None = None
    """Seconds after which a connection is replaced when it is next used."""
    pool_use_lifo: bool | None = None
    """Whether the connection returned last is used first, so that the others may be closed by the server."""
    secret: Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(text.secrets)] = ()
    """Secrets of the middleware with commas between them: the first signs, all verify."""

    _prefix: str = PrivateAttr("LAGWISE_")
    _policy: Policy = PrivateAttr(default_factory=Policy)

    def __init__(self, prefix: str = "LAGWISE_", env_file: str | PathLike[str] | None = None, **values: Any) -> None:
        if not prefix:
            raise ValueError("prefix must not be empty: any variable of the system would be a setting")
        wrong = ""
        try:
            super().__init__(_env_prefix=prefix, _env_file=Path(env_file) if env_file is not None else None, **values)
        except ValidationError as error:
            wrong = _words(error, prefix)
        if wrong:  # raised here, so that pydantic's error, which holds the values, is no part of it
            raise ValueError(wrong)
        self._prefix = prefix

    @model_validator(mode="after")
    def _judge(self) -> Self:
        self._policy = Policy(**{name: v for name in _LIMITS if (v := getattr(self, name)) is not None})
        return self

    @property
    def policy(self) -> Policy:
        """The policy that the variables describe."""
        return self._policy

    @property
    def secrets(self) -> list[str]:
        """What `CausalityMiddleware(secret=...)` takes. Raises `ValueError` without one."""
        if not self.secret:
            raise ValueError(_missing(f"{self._prefix}SECRET"))
        return [one.get_secret_value() for one in self.secret]

    def arguments(self) -> dict[str, Any]:
        """What `Router(**arguments)` takes: what is set, and the policy."""
        plain = {name: value for name in ("system", "pooling", *_POOL) if (value := getattr(self, name)) is not None}
        if self.primary is not None:
            plain["primary"] = self.primary.get_secret_value()
        replicas = {name: url.get_secret_value() for name, url in self.replicas.items()}
        return {**plain, "replicas": replicas, "policy": self.policy}

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Add the files that variables name, and look for names that are mistakes."""
        return (init_settings, Mounted(settings_cls, dotenv_settings, env_settings), env_settings, dotenv_settings)


def arguments(prefix: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """What `Router.from_env(prefix, **overrides)` gives to the Router."""
    limits = {name: value for name, value in overrides.items() if name in _LIMITS}
    if limits and "policy" in overrides:
        raise ValueError(f"give policy, or {', '.join(sorted(limits))}, and not both")
    rest = {name: value for name, value in overrides.items() if name not in _LIMITS}
    found = {**Settings(prefix, **limits).arguments(), **rest}
    if "primary" not in found:
        raise ValueError(_missing(f"{prefix}PRIMARY"))
    return found


def _missing(variable: str) -> str:
    return f"{variable} is not set, and neither is {variable}_FILE, which would name a file with the value"


def _words(error: ValidationError, prefix: str) -> str:
    """One line for all that is wrong, in the names of variables; of values only short numbers, which are no secrets."""
    lines = []
    for each in error.errors(include_url=False):
        own = each["type"] == "value_error"
        words = str(each.get("ctx", {}).get("error", "")) if own else each["msg"][:1].lower() + each["msg"][1:]
        if not each["loc"]:  # the policy's own words, which name its fields
            lines.append(re.sub(rf"\b({'|'.join(_LIMITS)})\b", lambda found: f"{prefix}{found[0].upper()}", words))
            continue
        variable = f"{prefix}{str(each['loc'][0]).upper()}"
        if own:
            lines.append(f"{variable} {words}")
        else:
            lines.append(f"{variable}: {words}{'' if each['loc'][0] in _HIDDEN else instead(each['input'])}")
    return "; ".join(lines)
