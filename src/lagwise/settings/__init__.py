"""A Router's settings from environment variables, mounted files and a .env file; needs the extra `settings`."""

try:
    import pydantic_settings as _  # noqa: F401
except ImportError as missing:
    raise ImportError('lagwise.settings needs pydantic-settings: pip install "lagwise[settings]"') from missing

from lagwise.settings.model import Settings

__all__ = ["Settings"]
