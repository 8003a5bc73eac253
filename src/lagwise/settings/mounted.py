"""Values in files that variables name, and variables whose names are mistakes."""

import warnings
from difflib import get_close_matches
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource

from lagwise.settings.text import content

FILE = "_file"
# Of lagwise.testing, and of this project's own tests.
_OTHERS = ("pg_", "test_")
_WRONG, _LIKE = 0.8, 0.5  # difflib's ratio: from here on a name is taken for a typing error, or is worth a hint


class Mounted(PydanticBaseSettingsSource):
    """The values in files that variables with `FILE` name."""

    def __init__(self, kind: type[BaseSettings], *sources: PydanticBaseSettingsSource) -> None:
        super().__init__(kind)
        self._found: dict[str, str] = {}
        for source in sources:
            assert isinstance(source, EnvSettingsSource)
            self._prefix = source.env_prefix
            self._found |= {name.lower(): value for name, value in source.env_vars.items() if value}

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """The content of the field's file, or None."""
        name = f"{self._prefix.lower()}{field_name}"
        path = self._found.get(name + FILE)
        if path is None:
            return None, field_name, False
        if name in self._found:
            raise ValueError(f"{self._shown(field_name)} and {self._shown(field_name + FILE)} are both set: keep one")
        return content(path, self._shown(field_name + FILE)), field_name, False

    def __call__(self) -> dict[str, Any]:
        """The fields whose value is in a file."""
        self._look_for_mistakes()
        known = self.settings_cls.model_fields
        found = {name: self.get_field_value(field, name)[0] for name, field in known.items()}
        return {name: value for name, value in found.items() if value is not None}

    def _look_for_mistakes(self) -> None:
        known = [name + end for name in self.settings_cls.model_fields for end in ("", FILE)]
        start = self._prefix.lower()
        names = (name.removeprefix(start) for name in self._found if name.startswith(start))
        for name in sorted(name for name in names if name not in known and not name.startswith(_OTHERS)):
            near = next(iter(get_close_matches(name, known, 1, _LIKE)), None)
            # A longer prefix is another database's, and that of a service in Kubernetes is no setting at all.
            longer = any(name.endswith(f"_{one}") for one in known)
            if near is not None and not longer and get_close_matches(name, [near], 1, _WRONG):
                raise ValueError(f"{self._shown(name)} is not known: did you mean {self._shown(near)}?")
            hint = f"; the nearest one that there is: {self._shown(near)}" if near is not None else ""
            warnings.warn(f"{self._shown(name)} is no setting of lagwise{hint}", stacklevel=2)

    def _shown(self, name: str) -> str:
        return f"{self._prefix}{name.upper()}"
