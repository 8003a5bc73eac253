"""strawberry: queries and mutations are POST both, so a resolver opens the session that it needs."""

from typing import Any

import pytest

pytest.importorskip("strawberry", reason="strawberry-graphql is not installed: uv sync --group integrations")

import httpx
import strawberry
from fastapi import FastAPI
from strawberry.fastapi import GraphQLRouter

from lagwise.fastapi import lifespan
from lagwise.testing import Cluster
from tests.kit.http import insert, names
from tests.kit.routers import steady

from .promise import KEPT, kept_by


async def asked(client: httpx.AsyncClient, text: str, name: str) -> httpx.Response:
    """One operation, sent."""
    return await client.post("/graphql", json={"query": text, "variables": {"name": name}})


async def test_queries_read_and_mutations_write(lagging: Cluster) -> None:
    """A mutation commits before its response, its answer shows what it wrote, and queries are a replica's."""
    db = steady(lagging)

    @strawberry.type
    class Query:
        @strawberry.field
        async def count(self, name: str) -> int:
            async with db.read() as session:
                return await names(session, name)

    @strawberry.type
    class Mutation:
        @strawberry.mutation
        async def create(self, name: str) -> Query:
            async with db.write.begin() as session:
                await insert(session, name)
            return Query()

    app = FastAPI(lifespan=lifespan(db))
    graphql: GraphQLRouter[Any, Any] = GraphQLRouter(strawberry.Schema(Query, Mutation))
    app.include_router(graphql, prefix="/graphql")
    again: list[int] = []

    async def create(client: httpx.AsyncClient, name: str) -> httpx.Response:
        made = await asked(
            client,
            "mutation($name: String!) { create(name: $name) { a: count(name: $name) b: count(name: $name) } }",
            name,
        )
        again.extend(made.json()["data"]["create"].values())
        return made

    found = await kept_by(
        app,
        lagging,
        db,
        "strawberry",
        write=create,
        read=lambda client, name: asked(client, "query($name: String!) { count(name: $name) }", name),
        count=lambda answer: answer.json()["data"]["count"],
    )
    assert (found, set(again)) == (KEPT, {1})
