"""NVIDIA's `tritonclient`, unchanged but for the address: its HTTP client and its asyncio client."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException

pytestmark = pytest.mark.slow
TOLERANCE = 1e-4


@pytest.fixture
def client(url: str) -> Iterator[triton.InferenceServerClient]:
    """The client."""
    with triton.InferenceServerClient(url.removeprefix("http://")) as client:
        yield client


def of_files(*files: bytes, binary: bool = True) -> triton.InferInput:
    """Returns an input of encoded files."""
    tensor = triton.InferInput("image", [len(files)], "BYTES")
    if not binary:  # JSON has no bytes
        import base64

        files = tuple(base64.b64encode(file) for file in files)
    tensor.set_data_from_numpy(np.array(files, dtype=object), binary_data=binary)
    return tensor


def of_array(array: np.ndarray, datatype: str, *, binary: bool = True) -> triton.InferInput:
    """Returns an input of numbers."""
    tensor = triton.InferInput("INPUT__0", list(array.shape), datatype)
    tensor.set_data_from_numpy(array, binary_data=binary)
    return tensor


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("binary_output", [True, False])
def test_files_have_the_native_probabilities(
    client: triton.InferenceServerClient, photo: Path, expected: dict[str, float], binary: bool, binary_output: bool
) -> None:
    content = photo.read_bytes()
    wanted = triton.InferRequestedOutput("OUTPUT__0", binary_data=binary_output)

    result = client.infer("colours", [of_files(content, content, binary=binary)], outputs=[wanted], request_id="7")

    assert result.get_response()["id"] == "7"
    for row in result.as_numpy("OUTPUT__0"):
        assert sorted(row) == pytest.approx(sorted(expected.values()), abs=TOLERANCE)


@pytest.mark.parametrize("binary", [True, False])
def test_pixels_and_normalised_input_are_taken(
    client: triton.InferenceServerClient, pixels: np.ndarray, expected: dict[str, float], binary: bool
) -> None:
    result = client.infer("colours", [of_array(pixels[np.newaxis], "UINT8", binary=binary)])
    assert sorted(result.as_numpy("probabilities")[0]) == pytest.approx(sorted(expected.values()), abs=TOLERANCE)

    square = pixels[:16, :16]
    normalised = ((square / 255 - 0.5) / 0.25).astype(np.float32).transpose(2, 0, 1)[np.newaxis]
    as_pixels = client.infer("colours", [of_array(square[np.newaxis], "UINT8", binary=binary)])
    as_floats = client.infer("colours", [of_array(normalised, "FP32", binary=binary)])
    assert as_floats.as_numpy("probabilities") == pytest.approx(as_pixels.as_numpy("probabilities"), abs=TOLERANCE)


@pytest.mark.parametrize("binary", [True, False])
def test_classification_names_the_best(
    client: triton.InferenceServerClient, photo: Path, expected: dict[str, float], binary: bool
) -> None:
    wanted = triton.InferRequestedOutput("scores", binary_data=binary, class_count=2)
    found = client.infer("colours", [of_files(photo.read_bytes())], outputs=[wanted]).as_numpy("scores")

    assert found.shape == (1, 2)
    texts = [each.decode() if isinstance(each, bytes) else each for each in found[0]]
    for text, (label, probability) in zip(texts, expected.items(), strict=False):
        assert text.split(":")[2] == label
        assert float(text.split(":")[0]) == pytest.approx(probability, abs=TOLERANCE)


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_bodies_are_compressed_both_ways(
    client: triton.InferenceServerClient, photo: Path, expected: dict[str, float], algorithm: str
) -> None:
    result = client.infer(
        "colours",
        [of_files(photo.read_bytes())],
        request_compression_algorithm=algorithm,
        response_compression_algorithm=algorithm,
    )
    assert sorted(result.as_numpy("probabilities")[0]) == pytest.approx(sorted(expected.values()), abs=TOLERANCE)


def test_server_and_models_answer_its_questions(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("pair")
    assert client.is_model_ready("pair", "1")
    assert not client.is_model_ready("nobody")
    assert "statistics" in client.get_server_metadata()["extensions"]
    assert client.get_model_metadata("bare")["outputs"][0]["shape"] == [-1, 4]
    assert client.get_model_config("pair")["max_batch_size"] == 64
    assert {each["name"] for each in client.get_model_repository_index()} == {"colours", "pair", "bare"}
    assert client.get_inference_statistics("pair")["model_stats"][0]["name"] == "pair"
    assert len(client.get_inference_statistics()["model_stats"]) == 3


def test_errors_are_told_with_their_status(client: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match="Request for unknown model: 'nobody' is not found") as failure:
        client.infer("nobody", [of_files(b"x")])
    assert failure.value.status() == "404"
    with pytest.raises(InferenceServerException, match="not an image") as failure:
        client.infer("colours", [of_files(b"hello")])
    assert failure.value.status() == "415"
    with pytest.raises(InferenceServerException, match="Send pixels as UINT8") as failure:
        client.infer("colours", [of_array(np.full((1, 3, 16, 16), 200, np.float32), "FP32")])
    assert failure.value.status() == "400"
    with pytest.raises(InferenceServerException, match="admin") as failure:
        client.load_model("colours")
    assert failure.value.status() == "403"


@pytest.mark.anyio
async def test_asyncio_client_gets_the_same(url: str, photo: Path, expected: dict[str, float]) -> None:
    async with triton_aio.InferenceServerClient(url.removeprefix("http://")) as client:
        assert await client.is_model_ready("colours")
        result = await client.infer("colours", [of_files(photo.read_bytes())])
        assert sorted(result.as_numpy("probabilities")[0]) == pytest.approx(sorted(expected.values()), abs=TOLERANCE)
