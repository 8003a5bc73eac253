"""pydantic-settings behind `lru_cache`: the same variables as before, one Router made from them.

An application without settings of its own needs none: `Router.from_env()` reads LAGWISE_PRIMARY and its like.
"""

from functools import lru_cache

from fastapi import FastAPI
from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy import text

from lagwise import Policy, Router
from lagwise.fastapi import CausalityMiddleware, ReadSession, lifespan


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_file=".env", extra="ignore")

    database_url: SecretStr = SecretStr("postgresql+asyncpg://app:app@localhost/app")
    read_replica_url: SecretStr | None = None  # none in development: reads use the primary
    db_pool_size: int = Field(default=20, ge=1)
    db_pool_timeout: float = 10.0
    db_pool_recycle: int = 1800
    db_echo: bool = False
    max_lag: float = 5.0
    secret_key: SecretStr = Field(default=...)  # the application does not start without


@lru_cache
def get_settings() -> Settings:
    return Settings()


def router_from(settings: Settings) -> Router:
    replica = settings.read_replica_url
    return Router(
        settings.database_url.get_secret_value(),
        replicas=[replica.get_secret_value()] if replica else [],
        policy=Policy(max_lag=settings.max_lag, sticky_window=settings.max_lag),
        pool_size=settings.db_pool_size,
        pool_timeout=settings.db_pool_timeout,
        pool_recycle=settings.db_pool_recycle,
        echo=settings.db_echo,
    )


def create_app() -> CausalityMiddleware:  # uvicorn --factory
    settings = get_settings()
    api = FastAPI(lifespan=lifespan(router_from(settings)))

    @api.get("/database")
    async def database(session: ReadSession) -> str:
        return str(await session.scalar(text("SELECT current_database()")))

    return CausalityMiddleware(api, secret=settings.secret_key.get_secret_value(), route_header=True)
