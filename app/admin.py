"""Admin routes: load, unload and reload models while the service runs. Without an admin key they do not exist."""

from __future__ import annotations

from fastapi import APIRouter, Depends, FastAPI, Response

from app import auth
from app.api import ModelName, describe
from app.problems import responses
from app.schemas import ModelDescription
from app.service import Service


def add_admin_routes(app: FastAPI, service: Service) -> None:
    """Adds the routes that change what a service serves."""
    router = APIRouter(prefix="/models/{name}", tags=["admin"], dependencies=[Depends(auth.require_admin)])
    registry, watcher = service.registry, service.watcher

    @router.post(
        "/reload",
        summary="Look for a new version now",
        responses=responses("not_found", "unknown_model", "model_rejected", "memory_budget", "not_ready"),
    )
    async def reload(name: ModelName) -> ModelDescription:
        """Answers when the version that the store has serves. One that fails stays out, and what served serves on."""
        slot = await watcher.reload(name)
        return describe(slot, is_default=slot is registry.slots[0])

    @router.post(
        "/load",
        summary="Serve a model of the store",
        responses=responses("not_found", "unknown_model", "model_rejected", "memory_budget"),
    )
    async def load(name: ModelName) -> ModelDescription:
        """Answers when the model serves. One of the settings that was unloaded is served as the settings have it."""
        slot = await watcher.load(name)
        return describe(slot, is_default=slot is registry.slots[0])

    @router.post(
        "/unload",
        summary="Stop serving a model",
        status_code=204,
        responses=responses("not_found", "unknown_model", "invalid_parameter", "not_ready"),
    )
    async def unload(name: ModelName) -> Response:
        """Requests inside are answered first, then its memory is free. The default model cannot be unloaded."""
        await watcher.unload(name)
        return Response(status_code=204)

    auth.add_admin_routes(app, router)
