"""TorchServe's management interface, on a port of its own: lists, registers, scales and unregisters models.

A model's `url` names a model of the store, with or without `.mar`. Nothing is ever fetched or opened by it.

https://docs.pytorch.org/serve/management_api.html
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from fastapi import FastAPI, Request, Response
from prometheus_client import ProcessCollector
from starlette.exceptions import HTTPException

from app.api.auth import Auth
from app.errors import ConflictError, InvalidRequestError, ModelRejectedError, UnknownModelError, UnknownVersionError
from app.models.deployment import Deployment
from app.models.registry import LOOK_LIMIT_S
from app.protocols.classifying import json_response
from app.protocols.json_bodies import JsonBody, small_object_of
from app.protocols.torchserve.inference import model_of, version_of
from app.serving.service import Service
from app.store.manifest import MODEL_NAME_PATTERN, version_number

_DEFAULT_LIMIT: Final = 100
_NAME: Final = re.compile(MODEL_NAME_PATTERN)
_WRITES: Final = {"POST", "PUT", "DELETE"}


def add_management_routes(app: FastAPI, service: Service) -> None:
    """Adds the routes of TorchServe's management interface to an application that has no others.

    Args:
        app: the application.
        service: the service whose models they manage.
    """
    registry, watcher = service.registry, service.watcher
    auth: Auth = app.state.auth

    def check_admin(request: Request) -> None:
        if not auth.has_admins:  # as TorchServe answers with its model API switched off
            raise HTTPException(405)
        request.state.api_key_name = auth.check_admin(request.headers).name

    def deployments_of(name: str, version: str | None = None) -> list[Deployment]:
        """Returns the deployments of a model; an unknown one is refused in TorchServe's words."""
        named = [each for each in registry.deployments if each.name == name]
        if not named:
            raise UnknownModelError(f"Model not found: {name}")
        wanted = None if version in {None, "all"} else version_of(str(version))
        found = [each for each in named if wanted is None or (each.model and each.model.artifact.version == wanted)]
        if not found:
            raise UnknownVersionError(f"Model version: {version} does not exist for model: {name}")
        return found

    async def models(request: Request) -> Response:
        """The models, a page at a time."""
        limit = _whole_number(request, "limit", least=1) or _DEFAULT_LIMIT
        start = _whole_number(request, "next_page_token", least=0) or 0
        by_name = list({each.name: each for each in reversed(registry.deployments)}.values())[::-1]
        page = [{"modelName": each.name, "modelUrl": each.reference} for each in by_name[start : start + limit]]
        more = {"nextPageToken": str(start + limit)} if start + limit < len(by_name) else {}
        return json_response({**more, "models": page})

    async def model(request: Request) -> Response:
        """All that is known about a model and the processes that serve it."""
        workers = _workers(service)
        found = deployments_of(**request.path_params)
        return json_response([_description(each, service, workers) for each in found])

    async def register(request: Request) -> Response:
        """Serves a model of the store, and answers when it serves."""
        check_admin(request)
        is_json = request.headers.get("content-type", "").lower().startswith("application/json")
        in_body = await small_object_of(request, service) if is_json else {}
        given = {**in_body, **request.query_params}
        if not given.get("url"):
            raise InvalidRequestError("Parameter url is required.")
        name = _name_in("url", given["url"])
        alias = _name_in("model_name", given["model_name"]) if given.get("model_name") else name
        if any(each.name == alias and each.model for each in registry.deployments):
            raise ConflictError(f"Model {alias} is already registered.")
        try:
            deployment = await watcher.load(alias, reference=None if alias == name else f"{alias}={name}")
        except UnknownModelError:
            raise UnknownModelError(f"Model not found: {name}") from None
        version, count = _version(deployment), len(_workers(service))
        text = f'Model "{alias}" Version: {version} registered with {count} initial workers'
        return json_response({"status": text})

    async def scale(request: Request) -> Response:
        """Scales nothing: the number of processes is set when the service starts. The answer tells it."""
        check_admin(request)
        found = deployments_of(**request.path_params)
        for parameter in ("min_worker", "max_worker"):
            _whole_number(request, parameter, least=0)
        count = len(_workers(service))
        text = f'Workers of model "{found[0].name}" are not scaled: {count} processes serve every model here'
        is_synchronous = request.query_params.get("synchronous", "").lower() == "true"
        return json_response({"status": text}, 200 if is_synchronous else 202)

    async def set_default(request: Request) -> Response:
        """Pins a version of the store, and answers when it serves."""
        check_admin(request)
        name, version = request.path_params["name"], version_of(request.path_params["version"])
        deployment = deployments_of(name)[0]
        number = version_number(version)
        if number is None:
            raise UnknownVersionError(f"Model version: {version} does not exist for model: {name}")
        try:
            pin = partial(registry.store.pin, deployment.source.partition("/")[0], number)
            await registry.disk.call(pin, limit_s=LOOK_LIMIT_S)
        except UnknownModelError:
            raise UnknownVersionError(f"Model version: {version} does not exist for model: {name}") from None
        await watcher.reload(name)
        if not deployment.model or deployment.model.artifact.version != version:  # the settings name another
            raise ModelRejectedError(f"Model {name} is served as {deployment.reference}, whatever is pinned.")
        return json_response({"status": f'Default version successfully updated for model "{name}" to "{version}.0"'})

    async def unregister(request: Request) -> Response:
        """Stops serving a model, once the requests inside have their answers."""
        check_admin(request)
        found = deployments_of(**request.path_params)
        name = found[0].name
        if registry.default in found:
            raise ConflictError(f"Model {name} is the default model, which cannot be unregistered.")
        await watcher.unload(name)
        return json_response({"status": f'Model "{name}" unregistered'})

    async def is_ready(name: str) -> Response:
        """Whether a model serves; else 503."""
        return json_response({"name": model_of(service, name).artifact.name, "ready": True})

    def add(path: str, endpoint: Any, *methods: str) -> None:
        app.add_api_route(path, endpoint, methods=[*methods], include_in_schema=False)
        if _WRITES & set(methods) and auth.has_admins:
            auth.admin_routes.append((frozenset(methods), app.routes[-1].path_regex))  # type: ignore[attr-defined]

    add("/models", models, "GET")
    add("/models", register, "POST")
    add("/models/{name}/{version}/set-default", set_default, "PUT")
    for path in ("/models/{name}", "/models/{name}/{version}"):
        add(path, model, "GET")
        add(path, scale, "PUT")
        add(path, unregister, "DELETE")
    add("/v1/models/{name}", is_ready, "GET")


def _description(deployment: Deployment, service: Service, workers: list[JsonBody]) -> JsonBody:
    model = deployment.model
    pending = service.admission.pending_images
    return {
        "modelName": deployment.name,
        "modelVersion": _version(deployment),
        "modelUrl": deployment.reference,
        "runtime": "python",
        "minWorkers": len(workers),
        "maxWorkers": len(workers),
        "batchSize": service.settings.max_batch_size,
        "maxBatchDelay": int(service.settings.max_batch_delay_ms),
        "loadedAtStartup": deployment.reference in service.registry.configured,
        "workers": workers if model else [],
        "jobQueueStatus": {
            "remainingCapacity": max(0, service.settings.max_pending_images - pending),
            "pendingRequests": pending,
        },
    }


def _version(deployment: Deployment) -> str:
    """Returns the version that serves as TorchServe writes it; nothing where none serves."""
    version = deployment.model.artifact.version if deployment.model else ""
    return f"{version}.0" if version.isdecimal() else version


def _workers(service: Service) -> list[JsonBody]:
    """Returns the processes that serve, each with the whole of every model."""
    place = service.place
    pids = [status.pid for status in place.board.statuses if status.ready] if place else [os.getpid()]
    uses_gpu = any("cuda" in model.engine.device for model in service.registry.served)
    workers = []
    for number, pid in enumerate(pids):
        facts = _process_facts(pid)
        started_at = datetime.fromtimestamp(facts.get("process_start_time_seconds", 0.0), UTC)
        workers.append(
            {
                "id": str(9000 + number),
                "startTime": started_at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
                "status": "READY",
                "memoryUsage": int(facts.get("process_resident_memory_bytes", 0)),
                "pid": pid,
                "gpu": uses_gpu,
            }
        )
    return workers


def _process_facts(pid: int) -> Mapping[str, float]:
    families = ProcessCollector(pid=lambda: pid, registry=None).collect()
    return {sample.name: sample.value for family in families for sample in family.samples}


def _name_in(parameter: str, value: Any) -> str:
    """Returns the name of a model that a parameter tells.

    Raises:
        InvalidRequestError: it is an address, a path or no name at all.
    """
    name = value.removesuffix(".mar") if isinstance(value, str) else ""
    if not _NAME.fullmatch(name):
        raise InvalidRequestError(
            f"{parameter} must be the name of a model in the store of this service, with or without .mar. Archives are "
            "not fetched: `image-predictor import-mar` publishes one."
        )
    return name


def _whole_number(request: Request, name: str, *, least: int) -> int | None:
    text = request.query_params.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and int(text) >= least):
        raise InvalidRequestError(f"{name} must be a whole number of at least {least}.")
    return int(text)
