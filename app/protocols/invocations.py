"""`/invocations`: what SageMaker's platform, boto3, MLflow and TorchServe's containers post images and tables to.

an image -> as /predict, or JumpStart's verbose answer
{"inputs": text} -> [{"label", "score"}], as Hugging Face's containers answer
{"instances" | "inputs" | "dataframe_split" | "dataframe_records": ...} -> {"predictions": [{label: probability}]}

https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-inference-code.html
https://mlflow.org/docs/latest/ml/deployment/deploy-model-locally/
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Final

from fastapi import FastAPI, Request, Response

from app.api.answering import Image
from app.api.answers import answer_of as native_answer_of
from app.api.answers import image_prediction
from app.api.bodies.uploads import Upload, read_image
from app.api.problems import PROBLEM_SHAPE
from app.api.schemas import Prediction
from app.errors import InvalidRequestError
from app.inference.pipeline import Classification
from app.models.served_model import ServedModel
from app.protocols.base64_images import decoded_instances, decoded_texts
from app.protocols.classifying import TOP, add_classifying_route, by_label, classify_all, json_response
from app.protocols.documents import IMAGE_OR_JSON, PREDICTION_CODES, answer_of, documented_errors
from app.protocols.huggingface import labels_and_scores
from app.protocols.json_bodies import JsonBody, as_object, looks_like_json, parse_json
from app.protocols.torchserve.inference import FORM_FIELDS
from app.serving.service import Service

TARGET_MODEL: Final = "x-amzn-sagemaker-target-model"
_LISTS: Final = ("instances", "inputs", "dataframe_split", "dataframe_records")
_MEGABYTE: Final = 1_000_000
# SageMaker allows 100 MB in all for the payloads of a batch transform, and takes 6 MB for one where nothing is said.
_MAX_TRANSFORM_MB: Final = 100
_TRANSFORM_PAYLOAD_MB: Final = 6


def add_invocation_routes(app: FastAPI, service: Service, protocols: Collection[str]) -> None:
    """Adds `/invocations` and its kin to an application, as far as one of the protocols has them.

    Args:
        app: the application.
        service: the service that classifies.
        protocols: the protocols that are switched on.
    """

    async def invoke(request: Request, name: str | None) -> Response:
        model = service.registry.get(name)
        shape: Callable[[list[Classification]], Any] | None = None

        async def read(upload: Upload) -> list[Image]:
            nonlocal shape
            body = await read_image(request, upload, FORM_FIELDS)
            if not looks_like_json(body):
                return [body]
            value = as_object(await parse_json(body, upload))
            if isinstance(value.get("inputs"), str):
                shape = _scores(model)
                return [*await decoded_texts([value["inputs"]], upload)]
            shape = _predictions(model)
            most = service.settings.max_images_per_request
            return [*await decoded_instances(_instances(value), upload, max_images=most)]

        answers = await classify_all(service, request, model, read)
        if shape:
            return json_response(shape(answers))
        if _wants_all_classes(request):
            return json_response(_verbose(answers[0], model))
        names = model.artifact.class_names
        count = min(TOP, len(names))
        answer = await image_prediction(answers[0], names, count)
        whole = Prediction(
            model=model.artifact.name,
            version=model.artifact.version,
            predictions=answer.predictions,
            image=answer.image,
        )
        return await native_answer_of(whole, predictions=count, admission=service.admission)

    async def invocations(request: Request) -> Response:
        """Classifies with the default model, or with that of the parameter `model_name` or of SageMaker's header."""
        return await invoke(request, request.query_params.get("model_name") or _target_model(request))

    async def endpoint_invocations(request: Request, endpoint: str) -> Response:
        """As /invocations: where boto3's `invoke_endpoint` posts to, whatever the endpoint's name."""
        return await invoke(request, _target_model(request))

    async def invoke_model(request: Request, name: str) -> Response:
        """As /invocations, with the model of this name."""
        return await invoke(request, name)

    async def execution_parameters() -> Response:
        """How SageMaker's batch transform should send its records."""
        payload_mb = max(1, min(_TRANSFORM_PAYLOAD_MB, service.settings.max_body_bytes // _MEGABYTE))
        transforms = max(1, min(service.settings.max_pending_images, _MAX_TRANSFORM_MB // payload_mb))
        return json_response(
            {"MaxConcurrentTransforms": transforms, "BatchStrategy": "SINGLE_RECORD", "MaxPayloadInMB": payload_mb}
        )

    def add(path: str, endpoint: Any, tag: str) -> None:
        add_classifying_route(
            app,
            path,
            endpoint,
            tag=tag,
            summary="Classify an image or a table of images",
            documented=IMAGE_OR_JSON,
            responses=answer_of({}) | documented_errors(PROBLEM_SHAPE, *PREDICTION_CODES),
        )

    wanted = set(protocols)
    if wanted & {"sagemaker", "mlflow", "torchserve"}:
        add("/invocations", invocations, next(each for each in ("sagemaker", "mlflow", "torchserve") if each in wanted))
    if wanted & {"sagemaker", "torchserve"}:
        add("/models/{name}/invoke", invoke_model, "sagemaker" if "sagemaker" in wanted else "torchserve")
    if "sagemaker" in wanted:
        add("/endpoints/{endpoint}/invocations", endpoint_invocations, "sagemaker")
        app.add_api_route(
            "/execution-parameters",
            execution_parameters,
            methods=["GET"],
            tags=["sagemaker"],
            summary="How to send batches",
            response_class=Response,
            responses=answer_of({"type": "object"}),
        )


def _target_model(request: Request) -> str | None:
    """Returns the model that SageMaker's header names, None without it. Its archives are called `NAME.tar.gz`."""
    target = request.headers.get(TARGET_MODEL, "").strip("/")
    return target.removesuffix(".tar.gz") or None


def _wants_all_classes(request: Request) -> bool:
    accept = request.headers.get("accept", "").lower().replace(" ", "")
    return "application/json;verbose" in accept


def _verbose(classification: Classification, model: ServedModel) -> JsonBody:
    """Returns all probabilities in the order of the labels, as SageMaker JumpStart's models answer."""
    labels = model.artifact.class_names
    probabilities = [min(round(value, 6), 1.0) for value in classification.probabilities.tolist()]
    return {
        "probabilities": probabilities,
        "labels": list(labels),
        "predicted_label": labels[int(classification.ranking[0])],
    }


def _scores(model: ServedModel) -> Callable[[list[Classification]], Any]:
    return lambda answers: labels_and_scores(answers[0], model)


def _predictions(model: ServedModel) -> Callable[[list[Classification]], Any]:
    return lambda answers: {"predictions": [by_label(each, model) for each in answers]}


def _instances(value: JsonBody) -> Any:
    """Returns the list of instances of a JSON body.

    Raises:
        InvalidRequestError: it has none or several, or a table that has not exactly one column.
    """
    given = [field for field in _LISTS if field in value]
    if len(given) != 1:
        found = " and ".join(given) or "none of them"
        raise InvalidRequestError(f"A JSON body has exactly one of {', '.join(_LISTS)}; found: {found}.")
    [field] = given
    table = value[field]
    if field == "dataframe_split":
        rows = table.get("data") if isinstance(table, dict) else None
        cells = [row if isinstance(row, list) else None for row in rows] if isinstance(rows, list) else None
    elif field == "dataframe_records":
        cells = (
            [[*row.values()] if isinstance(row, dict) else None for row in table] if isinstance(table, list) else None
        )
    else:
        return table
    if cells is None or any(row is None or len(row) != 1 for row in cells):
        raise InvalidRequestError(f"{field} must be a table with one column, the image in base64.")
    return [row[0] for row in cells if row]
