"""Clients of hosts, unchanged but for the address: Hugging Face's, boto3, and curl for TorchServe and Vertex AI."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError

pytestmark = pytest.mark.slow
TOLERANCE = 1e-4


def curl(*arguments: str, body: bytes | None = None) -> Any:
    """Returns the JSON that curl was answered."""
    done = subprocess.run(["curl", "-s", *arguments], input=body, capture_output=True, timeout=30, check=True)
    return json.loads(done.stdout)


def test_hugging_faces_client_classifies(url: str, photo: Path, expected: dict[str, float]) -> None:
    client = InferenceClient(url)

    for image in (photo.read_bytes(), str(photo)):
        found = {each.label: each.score for each in client.image_classification(image)}
        assert found == pytest.approx(expected, abs=TOLERANCE)
    assert len(client.image_classification(photo.read_bytes(), top_k=2)) == 2
    with pytest.raises(HfHubHTTPError, match="415"):
        client.image_classification(b"hello")


def runtime(url: str) -> Any:
    """Returns boto3's client of SageMaker's endpoints."""
    return boto3.client(
        "sagemaker-runtime",
        endpoint_url=url,
        region_name="eu-west-1",
        aws_access_key_id="any",
        aws_secret_access_key="any",
        config=Config(retries={"total_max_attempts": 3}),
    )


def test_boto3_invokes_an_endpoint(url: str, photo: Path, expected: dict[str, float]) -> None:
    client = runtime(url)
    answer = client.invoke_endpoint(EndpointName="mine", Body=photo.read_bytes(), ContentType="image/png")
    found = json.loads(answer["Body"].read())["predictions"]
    assert {each["class_name"]: each["probability"] for each in found} == pytest.approx(expected, abs=TOLERANCE)

    body = json.dumps({"inputs": base64.b64encode(photo.read_bytes()).decode()})
    answer = client.invoke_endpoint(EndpointName="mine", Body=body, ContentType="application/json")
    assert {each["label"]: each["score"] for each in json.loads(answer["Body"].read())} == pytest.approx(
        expected, abs=TOLERANCE
    )
    answer = client.invoke_endpoint(EndpointName="mine", Body=photo.read_bytes(), TargetModel="pair.tar.gz")
    assert json.loads(answer["Body"].read())["model"] == "pair"
    with pytest.raises(ClientError) as failure:
        client.invoke_endpoint(EndpointName="mine", Body=b"hello")
    assert failure.value.response["ResponseMetadata"]["HTTPStatusCode"] == 415
    assert failure.value.response["ResponseMetadata"]["RetryAttempts"] == 0


@pytest.mark.parametrize(
    "arguments",
    [["-T", "{photo}"], ["-T", "{photo}", "-H", "Expect: 100-continue"], ["--data-binary", "@{photo}"],
     ["-F", "data=@{photo}"], ["-F", "data=<{photo}"], ["-H", "Transfer-Encoding: chunked", "-T", "{photo}"]],
    ids=" ".join,
)  # fmt: skip
def test_curl_speaks_to_torchserve(url: str, photo: Path, expected: dict[str, float], arguments: list[str]) -> None:
    filled = [each.format(photo=photo) for each in arguments]
    for path in ("/predictions/colours", "/predictions/colours/1.0"):
        assert curl(*filled, url + path) == pytest.approx(expected, abs=TOLERANCE)


def test_curl_sends_base64(url: str, photo: Path, expected: dict[str, float]) -> None:
    text = base64.encodebytes(photo.read_bytes())
    answer = curl("-H", "Content-Type: text/plain", "--data-binary", "@-", f"{url}/predictions/colours", body=text)
    assert answer == pytest.approx(expected, abs=TOLERANCE)
    assert curl(f"{url}/ping") == {"status": "Healthy"}


def test_curl_speaks_to_vertex(url: str, photo: Path, expected: dict[str, float]) -> None:
    body = json.dumps({"instances": [{"content": base64.b64encode(photo.read_bytes()).decode()}]}).encode()

    [prediction] = curl("-d", "@-", f"{url}/vertex/predict", body=body)["predictions"]

    found = dict(zip(prediction["displayNames"], prediction["confidences"], strict=True))
    assert found == pytest.approx(expected, abs=TOLERANCE)
