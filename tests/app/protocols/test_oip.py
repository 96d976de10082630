"""Open Inference Protocol V2: tensors in JSON and binary, its extensions, and errors that its clients can read."""

from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from app.serving.service import Phase
from tests.app.protocols.conftest import ADMIN_KEY, API_KEYS, mixed_pixels
from tests.app.protocols.test_kserve_and_vertex import check_error
from tests.support.colours import StartApp
from tests.support.images import encode

PATH = "/v2/models/colours/infer"


def binary_body(
    raw: bytes, datatype: str, shape: list[int], *, output: dict[str, Any] | None = None, **options: Any
) -> tuple[bytes, dict[str, str]]:
    """Returns the body and the header of a request with a binary tensor."""
    tensor = {"name": "x", "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": len(raw)}}
    head = {"inputs": [tensor], **({"outputs": [output]} if output else {}), **options}
    encoded = json.dumps(head).encode()
    return encoded + raw, {"Inference-Header-Content-Length": str(len(encoded))}


def with_lengths(*files: bytes) -> bytes:
    """Returns files as the elements of a binary BYTES tensor."""
    return b"".join(len(file).to_bytes(4, "little") + file for file in files)


def infer(client: TestClient, tensor: dict[str, Any], **options: Any) -> Any:
    """Posts a tensor in JSON."""
    return client.post(PATH, content=json.dumps({"inputs": [{"name": "x", **tensor}], **options}))


def as_bytes(*texts: str) -> dict[str, Any]:
    """Returns a BYTES tensor in JSON."""
    return {"datatype": "BYTES", "shape": [len(texts)], "data": list(texts)}


def test_binary_files_answer_in_binary(service: TestClient, image: bytes, text: str) -> None:
    other = encode(mixed_pixels(seed=2), "PNG")
    body, headers = binary_body(
        with_lengths(image, other), "BYTES", [2, 1], output={"name": "OUT", "parameters": {"binary_data": True}}, id="7"
    )

    response = service.post(PATH, content=body, headers={**headers, "Accept-Encoding": "identity"})

    length = int(response.headers["Inference-Header-Content-Length"])
    assert response.headers["Content-Type"] == "application/octet-stream"
    head = json.loads(response.content[:length])
    assert head == {
        "model_name": "colours",
        "model_version": "1",
        "id": "7",
        "outputs": [{"name": "OUT", "datatype": "FP32", "shape": [2, 3], "parameters": {"binary_data_size": 24}}],
    }
    rows = np.frombuffer(response.content[length:], "<f4").reshape(2, 3)
    assert rows.sum(axis=1) == pytest.approx([1, 1], abs=1e-5)
    [output] = infer(service, as_bytes(text)).json()["outputs"]
    assert rows[0].tolist() == pytest.approx(output["data"], abs=1e-6)
    assert rows[1].tolist() != pytest.approx(output["data"], abs=1e-4)


def test_body_without_json_is_one_file(service: TestClient, image: bytes) -> None:
    headers = {"Inference-Header-Content-Length": "0", "Accept-Encoding": "identity"}
    response = service.post(PATH, content=image, headers=headers)

    length = int(response.headers["Inference-Header-Content-Length"])
    assert json.loads(response.content[:length])["outputs"][0]["shape"] == [1, 3]
    assert np.frombuffer(response.content[length:], "<f4").sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("datatype", ["UINT8", "FP32"])
def test_binary_pixels_mean_what_json_ones_do(service: TestClient, datatype: str) -> None:
    pixels = mixed_pixels(width=16, height=16)
    array = pixels[None] if datatype == "UINT8" else ((pixels[None] / 255 - 0.5) / 0.25).astype("<f4")
    body, headers = binary_body(array.tobytes(), datatype, list(array.shape))

    binary = service.post(PATH, content=body, headers=headers).json()["outputs"]

    tensor = {"datatype": datatype, "shape": list(array.shape), "data": array.ravel().tolist()}
    assert binary == infer(service, tensor).json()["outputs"]


@pytest.mark.parametrize(("classes", "count"), [(1, 1), (2, 2), (9, 3), (2**63, 3)])
@pytest.mark.parametrize("is_binary", [False, True])
def test_classification_names_the_best(
    service: TestClient, text: str, classes: int, count: int, is_binary: bool
) -> None:
    parameters = {"classification": classes, "binary_data": is_binary}
    response = infer(service, as_bytes(text, text), outputs=[{"name": "OUTPUT__0", "parameters": parameters}])

    if is_binary:
        length = int(response.headers["Inference-Header-Content-Length"])
        [output], rest, found = json.loads(response.content[:length])["outputs"], response.content[length:], []
        while rest:
            size = int.from_bytes(rest[:4], "little")
            found.append(rest[4 : 4 + size].decode())
            rest = rest[4 + size :]
    else:
        [output] = response.json()["outputs"]
        found = output["data"]
    assert (output["name"], output["datatype"], output["shape"]) == ("OUTPUT__0", "BYTES", [2, count])
    assert found[:count] == found[count:]
    values = [each.split(":") for each in found[:count]]
    assert [float(value) for value, _, _ in values] == sorted((float(each[0]) for each in values), reverse=True)
    assert all(["red", "green", "blue"][int(number)] == label for _, number, label in values)


def test_no_classes_means_probabilities(service: TestClient, text: str) -> None:
    outputs = [{"name": "y", "parameters": {"classification": 0}}]
    assert infer(service, as_bytes(text), outputs=outputs).json()["outputs"][0]["datatype"] == "FP32"


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_bodies_may_be_compressed_both_ways(service: TestClient, image: bytes, encoding: str) -> None:
    output = {"name": "y", "parameters": {"binary_data": True}}
    body, headers = binary_body(with_lengths(image), "BYTES", [1], output=output)
    packed = gzip.compress(body) if encoding == "gzip" else zlib.compress(body)
    headers |= {"Content-Encoding": encoding, "Accept-Encoding": encoding}

    response = service.post(PATH, content=packed, headers=headers)

    assert response.headers["Content-Encoding"] == encoding
    length = int(response.headers["Inference-Header-Content-Length"])  # of what httpx has decompressed
    assert json.loads(response.content[:length])["outputs"][0]["shape"] == [1, 3]
    assert "Content-Encoding" not in service.post(
        PATH, content=packed, headers={**headers, "Accept-Encoding": f"{encoding};q=0"}
    ).headers  # fmt: skip


PIXEL = {"datatype": "UINT8", "shape": [1, 1, 1, 3]}
BAD: dict[str, tuple[dict[str, Any], int, str]] = {
    "other type": ({"datatype": "INT32", "shape": [1], "data": [1]}, 400, "BYTES, pixels as UINT8"),
    "no type": ({"shape": [1], "data": [1]}, 400, "datatype"),
    "no shape": ({"datatype": "UINT8", "data": [1]}, 400, "shape"),
    "empty shape": ({"datatype": "UINT8", "shape": [], "data": [1]}, 400, "shape"),
    "five dimensions": ({"datatype": "UINT8", "shape": [1, 1, 1, 1, 3], "data": [1] * 3}, 400, "shape"),
    "zero": ({"datatype": "UINT8", "shape": [0, 1, 1, 3], "data": []}, 400, "whole numbers from 1"),
    "negative": ({"datatype": "UINT8", "shape": [-1, 1, 1, 3], "data": []}, 400, "whole numbers from 1"),
    "huge": ({"datatype": "UINT8", "shape": [1, 2**31, 1, 3], "data": []}, 400, "whole numbers from 1"),
    "true": ({"datatype": "UINT8", "shape": [True, 1, 1, 3], "data": []}, 400, "whole numbers from 1"),
    "fraction": ({"datatype": "UINT8", "shape": [1.0, 1, 1, 3], "data": []}, 400, "whole numbers from 1"),
    "no colours": ({"datatype": "UINT8", "shape": [1, 2, 2, 4], "data": [0] * 16}, 400, "[N, H, W, 3]"),
    "two dimensions": ({"datatype": "UINT8", "shape": [3, 3], "data": [0] * 9}, 400, "[N, H, W, 3]"),
    "too few": ({**PIXEL, "data": [1, 2]}, 400, "3 values; 2 have come"),
    "too many": ({**PIXEL, "data": [1, 2, 3, 4]}, 400, "3 values; 4 have come"),
    "256": ({**PIXEL, "data": [1, 2, 256]}, 400, "from 0 to 255"),
    "-1": ({**PIXEL, "data": [1, 2, -1]}, 400, "from 0 to 255"),
    "a huge number": ({**PIXEL, "data": [1, 2, 10**400]}, 400, "from 0 to 255"),
    "fractions": ({**PIXEL, "data": [1, 2, 3.5]}, 400, "whole numbers"),
    "truth": ({**PIXEL, "data": [1, 2, True]}, 400, "whole numbers"),
    "texts": ({**PIXEL, "data": ["1", "2", "3"]}, 400, "whole numbers"),
    "a list inside": ({**PIXEL, "data": [[1], 2, 3]}, 400, "nested data"),
    "a list within flat data": ({**PIXEL, "data": [1, [2], 3]}, 400, "whole numbers"),
    "ragged": ({**PIXEL, "data": [[[[1, 2]]]]}, 400, "nested data"),
    "too deep": ({**PIXEL, "data": [[[[[1], [2], [3]]]]]}, 400, "nested data"),
    "nothing": ({**PIXEL, "data": []}, 400, "0 have come"),
    "no data": (PIXEL, 400, "neither"),
    "numbers as files": ({"datatype": "BYTES", "shape": [1], "data": [1]}, 400, "base64"),
    "no base64": ({"datatype": "BYTES", "shape": [1], "data": ["a*"]}, 400, "base64"),
    "no file": ({"datatype": "BYTES", "shape": [1], "data": [""]}, 400, "empty"),
    "two columns": ({"datatype": "BYTES", "shape": [1, 2], "data": ["", ""]}, 400, "[N, 1]"),
    "three files, two texts": ({"datatype": "BYTES", "shape": [3], "data": ["", ""]}, 400, "3 values"),
    "not normalised": ({"datatype": "FP32", "shape": [1, 16, 16, 3], "data": [128.0] * 768}, 400, "UINT8"),
    "other size": ({"datatype": "FP32", "shape": [1, 8, 8, 3], "data": [0] * 192}, 400, "16 x 16"),
    "beyond float32": ({"datatype": "FP32", "shape": [1, 16, 16, 3], "data": [1e300] * 768}, 400, "mean and std"),
    "beyond float64": ({"datatype": "FP32", "shape": [1, 16, 16, 3], "data": [10**400] * 768}, 400, "32 bits"),
    "too many pixels": ({"datatype": "UINT8", "shape": [1, 65_536, 1, 3], "data": [0]}, 413, "65,535 a side"),
    "too many images": ({"datatype": "UINT8", "shape": [65, 1, 1, 3], "data": [0]}, 422, "at most 64"),
    "shared memory": ({**PIXEL, "parameters": {"shared_memory_region": "r"}}, 400, "Shared memory"),
    "wrong parameters": ({**PIXEL, "data": [1, 2, 3], "parameters": 1}, 400, "parameters"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_tensor_is_the_clients_fault(service: TestClient, case: str) -> None:
    tensor, status, words = BAD[case]
    codes = {400: {"invalid_request", "empty_body"}, 413: {"too_many_pixels"}, 422: {"invalid_parameter"}}

    response = infer(service, tensor)

    assert response.json()["code"] in codes[status]
    assert words in check_error(response, status, response.json()["code"])


ONE = {"name": "x", **PIXEL, "data": [1, 2, 3]}
BAD_REQUESTS: dict[str, Any] = {
    "a list": [1],
    "no inputs": {},
    "no list": {"inputs": ONE},
    "two inputs": {"inputs": [ONE, ONE]},
    "no object": {"inputs": [1]},
    "no name": {"inputs": [{**ONE, "name": 1}]},
    "id": {"inputs": [ONE], "id": 1},
    "two outputs": {"inputs": [ONE], "outputs": [{"name": "a"}, {"name": "b"}]},
    "output without name": {"inputs": [ONE], "outputs": [{}]},
    "outputs": {"inputs": [ONE], "outputs": {"name": "a"}},
    "classification": {"inputs": [ONE], "outputs": [{"name": "a", "parameters": {"classification": -1}}]},
    "classification true": {"inputs": [ONE], "outputs": [{"name": "a", "parameters": {"classification": True}}]},
    "binary_data": {"inputs": [ONE], "outputs": [{"name": "a", "parameters": {"binary_data": 1}}]},
    "shared output": {"inputs": [ONE], "outputs": [{"name": "a", "parameters": {"shared_memory_region": "r"}}]},
    "timeout": {"inputs": [ONE], "parameters": {"timeout": "1"}},
    "data and size": {"inputs": [{**ONE, "parameters": {"binary_data_size": 0}}]},
    "size": {"inputs": [{"name": "x", **PIXEL, "parameters": {"binary_data_size": -3}}]},
    "size of nothing": {"inputs": [{"name": "x", **PIXEL, "parameters": {"binary_data_size": 3}}]},
}


@pytest.mark.parametrize("case", BAD_REQUESTS)
def test_bad_request_is_the_clients_fault(service: TestClient, case: str) -> None:
    check_error(service.post(PATH, json=BAD_REQUESTS[case]), 400, "invalid_request")


@pytest.mark.parametrize("body", [b"{", b"\xff", b'{"inputs": NaN}', b"[" * 5_000, b'{"a": 1} x'])
def test_malformed_json_is_the_clients_fault(service: TestClient, body: bytes) -> None:
    check_error(service.post(PATH, content=body), 400, "invalid_request")


def test_malformed_binary_is_the_clients_fault(service: TestClient, image: bytes) -> None:
    whole = with_lengths(image)
    for raw, shape in [(whole[:-1], [1]), (whole + b"x", [1]), (whole, [2]), (b"\0\0", [1])]:
        body, headers = binary_body(raw, "BYTES", shape)
        check_error(service.post(PATH, content=body, headers=headers), 400, "invalid_request")
    body, headers = binary_body(bytes(4), "BYTES", [1])
    check_error(service.post(PATH, content=body, headers=headers), 400, "empty_body")
    body, headers = binary_body(bytes(3), "UINT8", [1, 1, 2, 3])
    check_error(service.post(PATH, content=body, headers=headers), 400, "invalid_request")
    body, headers = binary_body(bytes(3), "UINT8", [1, 1, 1, 3])
    check_error(service.post(PATH, content=body + b"x", headers=headers), 400, "invalid_request")
    for length in ("-1", "x", "99999", "", "9" * 30, "²", "0" * 20 + "9" * 5_000):
        head = {"Inference-Header-Content-Length": length.encode()}
        check_error(service.post(PATH, content=body, headers=head), 400, "invalid_request")  # type: ignore[arg-type]
    check_error(service.post(PATH, content=b"x", headers={"Content-Encoding": "br"}), 415, "unsupported_encoding")
    check_error(service.post(PATH, content=b"x", headers={"Content-Encoding": "gzip"}), 400, "corrupt_image")
    check_error(service.post(PATH, content=b""), 400, "empty_body")


def test_bad_image_among_several_tells_its_place(service: TestClient, text: str) -> None:
    error = check_error(infer(service, as_bytes(text, "aGVsbG8=", "aGVsbG8=")), 415, "unsupported_format")
    assert error.startswith("Image 1: ")
    error = check_error(infer(service, as_bytes(text, "*")), 400, "invalid_request")
    assert error.startswith("Image 1: ")


def test_values_that_would_fill_the_memory_are_refused(service: TestClient) -> None:
    body = b'{"inputs":[' + b"[]," * 2_000_000 + b"[]]}"
    error = check_error(service.post(PATH, content=body), 413, "body_too_large")
    assert "binary" in error


def test_timeout_of_the_request_shortens_its_deadline(service: TestClient, text: str) -> None:
    late = infer(service, as_bytes(text), parameters={"timeout": 1})
    check_error(late, 504, "deadline_exceeded")
    for ignored in ({"timeout": 0}, {"timeout": 60_000_000}, {"priority": 3, "sequence_id": 1, "other": None}):
        assert infer(service, as_bytes(text), parameters=ignored).status_code == 200


@pytest.mark.in_process
def test_unavailable_has_its_shape(start: StartApp, text: str) -> None:
    client = start(max_pending_images=2, max_body_bytes=60_000)
    inside = client.app.state.service  # type: ignore[attr-defined]

    check_error(infer(client, as_bytes(text, text, text)), 503, "overloaded")
    check_error(client.post(PATH, content=bytes(60_001)), 413, "body_too_large")
    inside.phase = Phase.CLOSING
    check_error(infer(client, as_bytes(text)), 503, "draining")
    check_error(client.get("/v2/health/ready"), 503, "draining")
    inside.phase = Phase.SERVING
    inside.check_admissible = lambda **_: 1 / 0
    check_error(infer(client, as_bytes(text)), 500, "internal")
    check_error(start(model="nobody").post("/v2/models/nobody/infer", json={"inputs": [ONE]}), 503, "not_ready")


def test_normalised_input_needs_a_known_normalisation(service: TestClient) -> None:
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 3, 8, 8], "data": [0] * 192}
    response = service.post("/v2/models/bare/infer", json={"inputs": [tensor]})
    assert "UINT8" in check_error(response, 400, "invalid_request")


def test_unknown_models_are_told_in_tritons_words(service: TestClient) -> None:
    for path in ("", "/ready", "/config", "/stats"):
        error = check_error(service.get(f"/v2/models/m{path}"), 404, "unknown_model")
        assert error == "Request for unknown model: 'm' is not found"
        error = check_error(service.get(f"/v2/models/pair/versions/7{path}"), 404, "unknown_model")
        assert error == "Request for unknown model: 'pair' version 7 is not found"
    check_error(service.post("/v2/models/m/infer", json={"inputs": [ONE]}), 404, "unknown_model")
    check_error(service.get("/v2/models/pair/infer"), 405, "method_not_allowed")
    check_error(service.get("/v2/nowhere"), 404, "not_found")


def test_server_and_models_describe_themselves(service: TestClient) -> None:
    assert service.get("/v2").json() == service.get("/v2/").json()
    assert service.get("/v2").json()["name"] == "image-predictor"
    assert service.get("/v2/health/live").json() == {"live": True}
    assert service.get("/v2/health/ready").json() == {"ready": True}
    assert service.get("/v2/models").json() == {"models": ["colours", "pair", "bare"]}
    for name, side, classes, version in [("colours", 16, 3, "1"), ("pair", 8, 2, "1"), ("bare", -1, 4, "unversioned")]:
        for path in (f"/v2/models/{name}", f"/v2/models/{name}/versions/{version}"):
            assert service.get(path).json() == {
                "name": name,
                "versions": [version],
                "platform": "pytorch_torchscript",
                "inputs": [{"name": "pixels", "datatype": "UINT8", "shape": [-1, side, side, 3]}],
                "outputs": [{"name": "probabilities", "datatype": "FP32", "shape": [-1, classes]}],
            }
            assert service.get(f"{path}/ready").json() == {"name": name, "ready": True}
            config = service.get(f"{path}/config").json()
            assert config["input"][0]["dims"] == [side, side, 3]
            assert config["output"][0]["dims"] == [classes]
            assert config["max_batch_size"] == 64


def test_statistics_count_images_requests_and_failures(start: StartApp, text: str) -> None:
    client = start()
    infer(client, as_bytes(text, text))
    infer(client, as_bytes("aGVsbG8="))

    [statistics] = client.get("/v2/models/colours/stats").json()["model_stats"]
    assert statistics["inference_count"] == 2
    assert 1 <= statistics["execution_count"] <= 2
    assert statistics["last_inference"] > 1_600_000_000_000
    inference = statistics["inference_stats"]
    assert (inference["success"]["count"], inference["fail"]["count"]) == (1, 1)
    assert inference["compute_infer"]["ns"] > 0
    whole = client.get("/v2/models/stats").json()["model_stats"]
    assert [each["name"] for each in whole] == ["colours", "pair", "bare"]
    assert whole[1]["inference_count"] == 0


def test_index_tells_the_state_of_each_model(start: StartApp) -> None:
    client = start(model="colours,nobody")
    good = {"name": "colours", "version": "1", "state": "READY"}

    whole = client.post("/v2/repository/index").json()
    assert whole[0] == good
    assert (whole[1]["name"], whole[1]["state"]) == ("nobody", "UNAVAILABLE")
    assert whole[1]["reason"]
    assert client.post("/v2/repository/index", json={"ready": True}).json() == [good]
    assert len(client.post("/v2/repository/index", json={}).json()) == 2
    chunked = client.post("/v2/repository/index", content=iter([b'{"ready"', b": true}"]))
    assert chunked.json() == [good]
    check_error(client.post("/v2/repository/index", json={"ready": 1}), 400, "invalid_request")
    check_error(client.post("/v2/repository/index", content=b"{"), 400, "invalid_request")


def test_loading_needs_an_admin_key(service: TestClient, start: StartApp, admin_keys_file: Path) -> None:
    check_error(service.post("/v2/repository/models/pair/unload"), 403, "forbidden")

    client = start(admin_keys_file=admin_keys_file)
    admin = {"Authorization": f"Bearer {ADMIN_KEY}"}
    check_error(client.post("/v2/repository/models/pair/unload"), 401, "unauthorized")
    assert client.post("/v2/repository/models/pair/unload", headers=admin).status_code == 200
    check_error(client.get("/v2/models/pair/ready"), 404, "unknown_model")
    assert client.post("/v2/repository/models/pair/load", headers=admin).status_code == 200
    assert client.get("/v2/models/pair/ready").status_code == 200
    check_error(client.post("/v2/repository/models/nobody/load", headers=admin), 404, "unknown_model")


def test_only_probes_are_open(start: StartApp) -> None:
    client = start(api_keys=API_KEYS)

    for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/pair/ready", "/v2/models/pair/versions/1/ready"):
        assert client.get(path).status_code == 200
    for path in ("/v2", "/v2/models", "/v2/models/pair", "/v2/models/pair/config", "/v2/models/stats"):
        check_error(client.get(path), 401, "unauthorized")
