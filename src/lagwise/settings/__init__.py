"""A Router's settings from environment variables, mounted files and a .env file; needs the extra `settings`."""

from lagwise._extras import extra

with extra("settings", "lagwise.settings"):
    import pydantic_settings as _  # noqa: F401

from lagwise.settings.model import Settings

__all__ = ["Settings"]
