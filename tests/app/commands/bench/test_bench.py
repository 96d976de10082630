"""The package `bench`: every step of a model is measured, and what limits it is named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from app.commands.bench.measure import bench, synthetic_photo
from app.commands.bench.report import EngineRate, Findings, Loop, conclusions, table
from app.commands.find_images import UnreadableFileError
from app.images.decode import decode
from app.inference.thread_layout import ThreadLayout
from app.settings import ModelSettings

FINDINGS = Findings(
    decode_ms=2,
    resize_ms=1,
    engines=(
        EngineRate("torchscript", "float32", ThreadLayout(2, 1), 1, 50),
        EngineRate("openvino", "float32", ThreadLayout(2, 1), 1, 100),
        EngineRate("openvino", "bfloat16", ThreadLayout(2, 1), 1, 200),
    ),
    pipeline=(Loop(1, 50, 10, 20), Loop(8, 90, 10, 20)),
    http=(Loop(1, 50, 10, 20), Loop(8, 85, 10, 20)),
    cores=2,
)


@pytest.mark.parametrize(
    ("changes", "limit"),
    [
        ({}, "inference"),
        ({"decode_ms": 30.0}, "decoding"),
        ({"http": (Loop(1, 50, 10, 20), Loop(8, 40, 10, 20))}, "HTTP"),
    ],
)
def test_limit_is_the_step_that_allows_least(changes: dict[str, object], limit: str) -> None:
    said = conclusions(replace(FINDINGS, **changes))  # type: ignore[arg-type]

    assert said[1].startswith(f"The limit is {limit}:")
    assert "--engine openvino --precision float32 --streams 2 --threads-per-stream 1" in said[2]
    assert said[3].startswith("--precision bfloat16: 2.0 times as fast")


def test_what_the_service_does_is_said_first() -> None:
    slow = replace(FINDINGS, http=(Loop(1, 0.42, 2400, 2600), Loop(8, 85, 90, 120)))

    assert conclusions(slow)[0] == (
        "Over HTTP: 85 images/s with 8 requests at once, p99 120 ms; one at a time takes 2400 ms."
    )


def test_no_gpu_is_advised_where_one_computes() -> None:
    assert "or a GPU would help" in conclusions(FINDINGS)[1]
    assert "GPU" not in conclusions(replace(FINDINGS, has_gpu=True))[1]


def test_slow_models_are_told_with_two_figures(capsys: pytest.CaptureFixture[str]) -> None:
    slow = replace(FINDINGS.engines[0], images_per_s=0.4567)
    Console(width=100).print(table(replace(FINDINGS, engines=(slow,)), "a large model"))

    assert "0.46" in capsys.readouterr().out


def test_lower_precision_that_is_no_faster_is_not_advised() -> None:
    slower = replace(FINDINGS.engines[2], images_per_s=90)

    assert not any(
        "--precision bfloat16" in line
        for line in conclusions(replace(FINDINGS, engines=(*FINDINGS.engines[:2], slower)))
    )


def test_synthetic_photo_is_one_that_costs_what_a_photo_costs() -> None:
    photo = synthetic_photo()

    assert decode(photo).format == "JPEG"
    assert 30_000 < len(photo) < 300_000


@pytest.mark.slow
def test_every_step_is_measured_and_told_while_it_is(colours_store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = ModelSettings(model="colours", model_store=colours_store, engine="torchscript", cores=1)
    bench(settings, [], seconds=0.05)
    printed, told = capsys.readouterr()

    for step in ("decode", "resize", "torchscript float32", "in one process", "over HTTP"):
        assert step in printed
    assert "3 images (40 x 30)" in printed
    assert "The limit is" in printed
    doing = told.splitlines()
    assert doing[0] == "Loading colours: its engine is built and checked"
    assert "Measuring torchscript in float32, 1 x 1 threads, batch 8" in doing
    assert doing[-1] == "Measuring the service over HTTP, 4 at once"


def test_path_that_is_no_image_is_named(colours_store: Path, tmp_path: Path) -> None:
    settings = ModelSettings(model="colours", model_store=colours_store)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    Image.new("RGB", (8, 8)).save(tmp_path / "good.png")

    with pytest.raises(UnreadableFileError, match=r"broken\.png"):
        bench(settings, [tmp_path], seconds=0.01)
    with pytest.raises(UnreadableFileError, match="no file or folder"):
        bench(settings, [tmp_path / "absent.png"], seconds=0.01)
