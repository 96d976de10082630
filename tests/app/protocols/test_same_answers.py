"""One image has the same probabilities through every protocol, with every model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from starlette.testclient import TestClient

from tests.app.protocols.conftest import MODELS
from tests.support.colours import StartApp

TOLERANCE = 1e-4
Probabilities = dict[str, float]


def native(client: TestClient, model: str, image: bytes) -> Probabilities:
    """Returns the probabilities that the native route answers."""
    answer = client.post(f"/models/{model}/predict?top_k={MODELS[model]}", content=image).json()
    return {each["class_name"]: each["probability"] for each in answer["predictions"]}


def of_labels(answer: Any) -> Probabilities:
    """Returns the probabilities of an answer in one of the forms that have labels."""
    if isinstance(answer, dict) and "predictions" in answer:
        [answer] = answer["predictions"]
    if isinstance(answer, list):
        return {each["label"]: each["score"] for each in answer}
    assert isinstance(answer, dict)
    return answer


def infer(client: TestClient, model: str, names: list[str], tensor: dict[str, Any]) -> Probabilities:
    """Returns the probabilities of Open Inference Protocol's answer to a tensor in JSON."""
    body = {"inputs": [{"name": "any", **tensor}]}
    [output] = client.post(f"/v2/models/{model}/infer", content=json.dumps(body)).json()["outputs"]
    assert output["shape"] == [1, len(names)]
    return dict(zip(names, output["data"], strict=True))


WAYS: dict[str, Callable[[TestClient, str, bytes, str], Any]] = {
    "TorchServe": lambda client, model, image, _: client.put(f"/predictions/{model}", content=image),
    "TorchServe, a form": lambda client, model, image, _: client.post(
        f"/predictions/{model}", files={"data": ("a.png", image)}
    ),
    "TorchServe, base64": lambda client, model, _, text: client.post(f"/predictions/{model}", json=text),
    "TorchServe, instances": lambda client, model, _, text: client.post(
        f"/predictions/{model}", json={"instances": [{"data": text}]}
    ),
    "KServe V1": lambda client, model, _, text: client.post(
        f"/v1/models/{model}:predict", json={"instances": [{"image": {"b64": text}}]}
    ),
    "MLflow": lambda client, model, _, text: client.post(
        f"/invocations?model_name={model}", json={"dataframe_split": {"columns": ["image"], "data": [[text]]}}
    ),
    "SageMaker's Hugging Face": lambda client, model, _, text: client.post(
        f"/models/{model}/invoke", json={"inputs": text}
    ),
}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("way", WAYS)
def test_labels_have_the_native_probabilities(
    service: TestClient, image: bytes, text: str, model: str, way: str
) -> None:
    answer = of_labels(WAYS[way](service, model, image, text).json())

    assert list(answer.values()) == sorted(answer.values(), reverse=True)
    assert answer == pytest.approx(native(service, model, image), abs=TOLERANCE)


@pytest.mark.parametrize("model", MODELS)
def test_tensors_have_the_native_probabilities(
    service: TestClient, image: bytes, text: str, pixels: np.ndarray, model: str
) -> None:
    expected = native(service, model, image)
    names = service.get(f"/models/{model}").json()["class_names"]

    def infer_one(datatype: str, shape: list[int], data: list[Any]) -> Probabilities:
        return infer(service, model, names, {"datatype": datatype, "shape": shape, "data": data})

    assert infer_one("BYTES", [1], [text]) == pytest.approx(expected, abs=TOLERANCE)
    for array in (pixels[None], pixels, pixels.transpose(2, 0, 1)[None], pixels.transpose(2, 0, 1)):
        flat = infer_one("UINT8", list(array.shape), array.ravel().tolist())
        assert flat == pytest.approx(expected, abs=TOLERANCE)
        assert infer_one("UINT8", list(array.shape), array.tolist()) == flat


@pytest.mark.parametrize("model", ["colours", "pair"])
def test_normalised_input_and_pixels_of_its_size_mean_the_same(service: TestClient, model: str) -> None:
    """What clients of networks have resized already is neither resized nor cropped again."""
    details = service.get(f"/models/{model}").json()
    preprocessing, names = details["manifest"]["preprocessing"], details["class_names"]
    side = preprocessing["image_size"]
    square = np.random.default_rng(3).integers(0, 255, (side, side, 3)).astype(np.uint8)
    normalised = (square / 255 - preprocessing["mean"]) / preprocessing["std"]

    def infer_one(datatype: str, array: np.ndarray) -> Probabilities:
        return infer(service, model, names, {"datatype": datatype, "shape": list(array.shape), "data": array.tolist()})

    as_pixels = infer_one("UINT8", square[None])
    assert infer_one("FP32", normalised[None]) == pytest.approx(as_pixels, abs=TOLERANCE)
    assert infer_one("FP32", normalised.transpose(2, 0, 1)[None]) == pytest.approx(as_pixels, abs=TOLERANCE)


def test_normalised_input_that_was_not_made_from_8_bits_is_not_rounded(
    service: TestClient, three_models: tuple[Path, str]
) -> None:
    """What was resized in float is computed in float: rounded, a probability of a photo moves by 0.06."""
    module = torch.jit.load(str(three_models[0] / "colours" / "1" / "model.pt"))  # type: ignore[no-untyped-call]
    samples = np.random.default_rng(5).uniform(0.3, 0.5, (2, 3, 16, 16)).astype(np.float32)
    expected = module.classify(torch.from_numpy(samples)).tolist()
    body = {"name": "x", "datatype": "FP32", "shape": [2, 3, 16, 16], "data": ((samples - 0.5) / 0.25).tolist()}

    [output] = service.post("/v2/models/colours/infer", json={"inputs": [body]}).json()["outputs"]

    assert output["data"] == pytest.approx([p for row in expected for p in row], abs=1e-6)
    rounded = module.classify(torch.from_numpy((samples * 255).round().astype(np.uint8))).tolist()
    assert output["data"] != pytest.approx([p for row in rounded for p in row], abs=1e-6)


def test_default_model_answers_where_no_name_is(service: TestClient, image: bytes, text: str) -> None:
    expected = native(service, "colours", image)

    assert of_labels(service.post("/", content=image).json()) == pytest.approx(expected, abs=TOLERANCE)
    assert of_labels(service.post("/", json={"inputs": text}).json()) == pytest.approx(expected, abs=TOLERANCE)
    assert service.post("/invocations", content=image).json() == service.post("/predict", content=image).json()
    anywhere = service.post("/endpoints/mine/invocations", content=image)
    assert anywhere.json() == service.post("/predict", content=image).json()


@pytest.mark.parametrize("default", MODELS)
def test_every_model_answers_as_the_default_one(
    start: StartApp, three_models: tuple[Path, str], image: bytes, text: str, default: str
) -> None:
    others = three_models[1].split(",")
    first = next(each for each in others if default in each)
    client = start(model=",".join([first, *(each for each in others if each != first)]), vertex_predict_route="/vertex")
    expected = native(client, default, image)

    assert of_labels(client.post("/", content=image).json()) == pytest.approx(expected, abs=TOLERANCE)
    assert of_labels(client.post("/invocations", json={"inputs": text}).json()) == pytest.approx(
        expected, abs=TOLERANCE
    )
    [prediction] = client.post("/vertex", json={"instances": [{"content": text}]}).json()["predictions"]
    found = dict(zip(prediction["displayNames"], prediction["confidences"], strict=True))
    assert found == pytest.approx(expected, abs=TOLERANCE)


def test_requests_are_counted_by_their_template_and_images_once_each(start: StartApp, text: str) -> None:
    client = start()
    client.post("/v1/models/pair:predict", json={"instances": [text, text]})
    client.post("/predictions/pair/1.0", json=text)

    metrics = client.get("/metrics").text

    for route in ("/v1/models/{name}:predict", "/predictions/{name}/{version}"):
        assert f'predictor_requests_total{{code="",method="POST",route="{route}",status="200"}} 1.0' in metrics
    assert 'predictor_images_total{format="PNG",model="pair"} 3.0' in metrics
    assert 'predictor_model_requests_total{model="pair",outcome="success"} 2.0' in metrics
