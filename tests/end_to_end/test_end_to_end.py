"""The default model behind HTTP, in a process of its own: right answers, hostile bodies, schema, health, memory."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from app.api.problems import PROBLEMS
from tests.support.images import Pixels, encode, png
from tests.support.live import LiveServer, live_server

pytestmark = pytest.mark.slow

RIGHT = {
    "cat": {"tiger cat", "Egyptian cat", "tabby"},
    "coffee": {"espresso", "cup"},
    "rocket": {"missile", "projectile"},
    "flower": {"daisy"},
    "china": {"palace"},
}
HOSTILE_BODIES = 2000


@pytest.fixture(scope="module")
def server(imagenet_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A service with the default model."""
    log = tmp_path_factory.mktemp("server") / "log"
    with live_server(log, model_store=imagenet_store) as server:
        server.wait_until_ready()
        yield server


@pytest.fixture(scope="module")
def http(server: LiveServer) -> Iterator[httpx.Client]:
    """A client that keeps its connection."""
    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


@pytest.mark.parametrize("name", RIGHT)
def test_real_photo_gets_its_class(http: httpx.Client, photos: dict[str, Pixels], name: str) -> None:
    jpeg = encode(photos[name], "JPEG", quality=95)
    answers = [
        http.post("/predict", files={"file": ("photo.jpg", jpeg)}).json(),
        http.post("/predict", content=jpeg, headers={"Content-Type": "application/x-www-form-urlencoded"}).json(),
        http.put("/predict", content=jpeg).json(),
    ]

    assert answers[0] == answers[1] == answers[2]
    assert answers[0]["predictions"][0]["class_name"] in RIGHT[name]
    assert len(answers[0]["predictions"]) == 5


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("how", [["-F", "file=@{}"], ["--data-binary", "@{}"], ["-T", "{}"]], ids=lambda how: how[0])
def test_curl_commands_of_the_readme_work(server: LiveServer, how: list[str]) -> None:
    photo = Path(__file__).parents[2] / "training" / "golden" / "cat.jpg"
    options = [option.format(photo) for option in how]
    result = subprocess.run(
        ["curl", "--silent", "--fail", "--max-time", "60", *options, f"{server.url}/predict?top_k=1"],
        capture_output=True,
        text=True,
        check=True,
    )

    assert '"class_name":"tiger cat"' in result.stdout


def test_thousand_classes_can_be_asked_for(http: httpx.Client, cat: Pixels) -> None:
    predictions = http.post("/predict?top_k=1000", content=encode(cat, "PNG")).json()["predictions"]

    assert sorted(prediction["class_id"] for prediction in predictions) == list(range(1000))
    assert sum(prediction["probability"] for prediction in predictions) == pytest.approx(1, abs=1e-3)


def test_extreme_shapes_are_answered(http: httpx.Client, server: LiveServer) -> None:
    before = server.resident_bytes()
    for width, height in [(60_000, 1), (1, 60_000), (1, 1), (16, 16), (2000, 100)]:
        response = http.post("/predict", content=encode(_gradient(width, height), "PNG"))
        assert response.status_code == 200, response.text
        assert (response.json()["image"]["width"], response.json()["image"]["height"]) == (width, height)

    assert server.resident_bytes() - before < 100_000_000


def test_health_is_answered_while_images_are_classified(server: LiveServer, photos: dict[str, Pixels]) -> None:
    """The event loop is never blocked: probes come back between the images that keep every core busy."""
    large = encode(photos["coffee"].repeat(5, axis=0).repeat(5, axis=1), "PNG", compress_level=1)
    answered = threading.Event()
    statuses: list[int] = []

    def classify() -> None:
        statuses.append(httpx.post(f"{server.url}/predict", content=large, timeout=60).status_code)
        answered.set()

    workers = [threading.Thread(target=classify) for _ in range(8)]
    probes_before_the_first_answer = 0
    with httpx.Client(base_url=server.url, timeout=60) as client:
        assert client.get("/health/live").status_code == 200  # connects, which is not what is looked at
        for worker in workers:
            worker.start()
        while not answered.is_set():
            assert client.get("/health/live").status_code == 200
            probes_before_the_first_answer += not answered.is_set()
    for worker in workers:
        worker.join()

    assert statuses == [200] * 8
    assert probes_before_the_first_answer >= 3


def test_hostile_bodies_never_cause_a_server_error(
    http: httpx.Client, server: LiveServer, small_cat: Pixels, cat: Pixels
) -> None:
    good = encode(cat, "JPEG", quality=90)
    expected = http.post("/predict", content=good).json()
    seeds = [encode(small_cat, image_format) for image_format in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")]
    seeds.append(Path("tests/app/images/heic/grid-turned.heic").read_bytes())
    bodies = _hostile_bodies(seeds, random.Random(20))
    statuses: dict[int, int] = {}
    resident = []
    for number, body in enumerate(bodies):
        response = http.post("/predict", content=body)
        statuses[response.status_code] = statuses.get(response.status_code, 0) + 1
        assert response.status_code < 500, (response.text, body[:100])
        if response.status_code != 200:
            assert response.json()["code"] in PROBLEMS
        if number % 500 == 499:
            resident.append(server.resident_bytes())

    assert sum(statuses.values()) == HOSTILE_BODIES
    assert set(statuses) == {200, 400, 413, 415}
    assert server.process.poll() is None
    assert resident[-1] - resident[0] < 100_000_000
    assert http.post("/predict", content=good).json() == expected


def _hostile_bodies(seeds: list[bytes], rng: random.Random) -> Iterator[bytes]:
    bomb = png([bytes(3 * 1000)], width=1_000, height=4_000_000, bit_depth=8, colour_type=2)
    for number in range(HOSTILE_BODIES):
        seed = bytearray(rng.choice(seeds))
        match number % 8:
            case 0:  # cut short
                yield bytes(seed[: rng.randrange(len(seed))])
            case 1 | 2 | 3:  # some bytes changed
                for _ in range(rng.randint(1, 20)):
                    seed[rng.randrange(len(seed))] = rng.randrange(256)
                yield bytes(seed)
            case 4:  # a header of one format on the content of another
                other = rng.choice(seeds)
                yield other[: rng.randint(4, 40)] + bytes(seed[rng.randint(4, 40) :])
            case 5:  # a piece repeated or taken out
                start = rng.randrange(len(seed))
                yield bytes(seed[:start] + seed[start : start + 50] * rng.randint(0, 5) + seed[start + 25 :])
            case 6:
                yield rng.randbytes(rng.randint(0, 2000))
            case _:
                yield rng.choice([b"", bomb, b"\0" * 1000, b"\xff\xd8\xff" + rng.randbytes(300), seeds[0] * 3])


def _gradient(width: int, height: int) -> Pixels:
    """An image of any shape that is not of one colour."""
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([rows % 256, columns % 256, (rows + columns) % 256], axis=-1).astype(np.uint8)


def test_service_keeps_its_own_schema(server: LiveServer) -> None:
    """Schemathesis makes requests from the OpenAPI document and holds the answers to it, by every check it has."""
    command = ["run", f"{server.url}/openapi.json", "--checks", "all", "--max-examples", "30", "--seed", "7"]
    result = subprocess.run(
        [str(Path(sys.executable).parent / "schemathesis"), *command, "--no-color"],
        cwd=Path(__file__).parents[2],  # where schemathesis.toml is
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )

    assert result.returncode == 0, result.stdout + result.stderr
    paths = httpx.get(f"{server.url}/openapi.json").json()["paths"]
    operations = sum(len(item) for item in paths.values())
    assert operations > 40  # those of every protocol too
    assert f"Tested: {operations}" in result.stdout
    assert server.process.poll() is None
