"""The routes that list and describe models, and those that load, unload and reload them while the service runs.

A service without admin keys has no routes that change something.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, Path, Response

from app.api import auth
from app.api.problems import responses
from app.api.schemas import (
    EngineCandidate,
    GoldenCheckDescription,
    ModelDescription,
    ModelDetails,
    ModelList,
)
from app.inference.golden_check import Candidate, GoldenCheck
from app.models.deployment import Deployment
from app.models.served_model import ServedModel
from app.serving.service import Service

ModelName = Annotated[str, Path(description="A model of GET /models", examples=["imagenet"])]


def add_model_routes(app: FastAPI, service: Service) -> None:
    """Adds the routes that describe models, and those that change which ones serve, to an application.

    Args:
        app: the application.
        service: the service whose models they are.
    """

    @app.get("/models", tags=["models"], summary="List the models")
    async def models() -> ModelList:
        """The models that this service was asked to serve, and the state of each. The default model is the first."""
        return ModelList(models=[describe(deployment, is_default=deployment is service.registry.default)
                                 for deployment in service.registry.deployments])  # fmt: skip

    @app.get("/models/{name}", tags=["models"], summary="Describe a model", responses=responses("unknown_model"))
    async def model(name: ModelName) -> ModelDetails:
        """All that is known about one model: manifest, classes, device, engine, precision, golden check."""
        deployment = service.registry.deployment(name)
        description = describe(deployment, is_default=deployment is service.registry.default)
        if deployment.model is None:
            return ModelDetails(**dict(description))
        artifact = deployment.model.artifact
        return ModelDetails(
            **dict(description),
            class_names=list(artifact.class_names),
            engine_candidates=[_describe_candidate(each, deployment.model) for each in deployment.model.candidates],
            manifest=artifact.manifest,
        )

    router = APIRouter(prefix="/models/{name}", tags=["admin"], dependencies=[Depends(auth.require_admin)])
    registry, watcher = service.registry, service.watcher

    @router.post(
        "/reload",
        summary="Look for a new version now",
        responses=responses("not_found", "unknown_model", "model_rejected", "memory_budget", "not_ready"),
    )
    async def reload(name: ModelName) -> ModelDescription:
        """Looks for the version that the store wants served, and answers when it serves.

        If that version fails, the answer is 409, and the version that served before goes on serving.
        """
        deployment = await watcher.reload(name)
        return describe(deployment, is_default=deployment is registry.default)

    @router.post(
        "/load",
        summary="Serve a model of the store",
        responses=responses("not_found", "unknown_model", "model_rejected", "memory_budget"),
    )
    async def load(name: ModelName) -> ModelDescription:
        """Loads a model of the store, and answers when it serves.

        A model that is named in the settings and was unloaded is served again as the settings say.
        """
        deployment = await watcher.load(name)
        return describe(deployment, is_default=deployment is registry.default)

    @router.post(
        "/unload",
        summary="Stop serving a model",
        status_code=204,
        responses=responses("not_found", "unknown_model", "invalid_parameter", "not_ready"),
    )
    async def unload(name: ModelName) -> Response:
        """Answers the requests that the model still has, then frees its memory.

        The default model cannot be unloaded.
        """
        await watcher.unload(name)
        return Response(status_code=204)

    auth.add_admin_routes(app, router)


def describe(deployment: Deployment, *, is_default: bool) -> ModelDescription:
    """Returns what the service tells about a model.

    Args:
        deployment: the model that was asked for, and what serves for it.
        is_default: whether it answers `/predict`.
    """
    model, rejection = deployment.model, deployment.rejection
    if model is None:
        return ModelDescription(
            reference=deployment.reference,
            state="failed" if deployment.failure else "loading",
            reason=deployment.reason,
            is_default=is_default,
            verified=False,
            rejected_version=rejection.stored_version.label if rejection and rejection.stored_version else None,
            rejected_because=rejection.reason if rejection else None,
        )
    check = model.golden_check
    return ModelDescription(
        reference=deployment.reference,
        state="ready",
        name=model.artifact.name,
        version=model.artifact.version,
        is_default=is_default,
        verified=check is not None,
        class_count=len(model.artifact.class_names),
        device=model.engine.device,
        engine=model.engine.name,
        precision=model.engine.precision,
        streams=model.layout.streams,
        threads_per_stream=model.layout.threads_per_stream,
        lone_threads=model.lone_threads,
        golden_check=_describe_check(check),
        rejected_version=rejection.stored_version.label if rejection and rejection.stored_version else None,
        rejected_because=rejection.reason if rejection else None,
    )


def _describe_candidate(candidate: Candidate, model: ServedModel) -> EngineCandidate:
    return EngineCandidate(
        engine=candidate.engine,
        chosen=candidate.engine == model.engine.name,
        golden_check=_describe_check(candidate.golden_check),
        rejected_because=candidate.rejected_because,
    )


def _describe_check(check: GoldenCheck | None) -> GoldenCheckDescription | None:
    if check is None:
        return None
    return GoldenCheckDescription(
        example_count=check.example_count, max_abs_deviation=check.max_abs_deviation, bound=check.bound
    )
