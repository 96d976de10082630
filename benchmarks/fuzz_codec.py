"""Fuzzes the codec of Open Inference Protocol, guided by coverage: images or a `PredictorError`, never anything else.

python -m benchmarks.fuzz_codec --runs 200000

Needs atheris (`pip install atheris`; wheels for Linux on x86-64). An input is what a client may send: two bytes that
say how long the JSON is, the JSON, and the binary tensor behind it. Ends with an error at the first input that breaks
the claim.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

_MAX_INPUT_BYTES = 8_000
_MAX_MEGABYTES = 2_000
_SEEDS = 200


def main() -> None:
    """Fuzzes, and prints libFuzzer's statistics at the end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    try:
        import atheris
    except ImportError:
        sys.exit("Needs atheris, which is no part of the development install: pip install atheris")
    with atheris.instrument_imports(include=["app.protocols"]):
        from app.protocols.json_bodies import parsed
        from app.protocols.oip import codec
        from app.protocols.oip.tensors import ImageRoom, images_of
    from app.errors import PredictorError
    from app.store.manifest import Preprocessing
    from benchmarks.support.damage import real_images
    from benchmarks.support.protocol_bodies import request_of

    preprocessing = Preprocessing(resize_size=18, image_size=16, mean=(0.5,) * 3, std=(0.25,) * 3)
    artifact = SimpleNamespace(manifest=SimpleNamespace(preprocessing=preprocessing))
    model = cast(Any, SimpleNamespace(artifact=artifact, engine=SimpleNamespace(takes_samples=True)))
    room = ImageRoom(max_images=8, max_pixels=10_000)

    def take_one(given: bytes) -> None:
        length, body = int.from_bytes(given[:2], "little"), memoryview(given[2:])
        try:
            request = codec.one_file(bytes(body)) if length == 0 else None
            request = request or codec.read_request(parsed(body[:length]), body[length:])
            images = images_of(request.tensor, model, room)
        except PredictorError:
            return
        if not 1 <= len(images) <= room.max_images:
            raise AssertionError(f"{len(images)} images")

    with tempfile.TemporaryDirectory() as folder:
        rng, images = random.Random(arguments.seed), [each for each in real_images() if len(each) < 2_000]
        for number in range(_SEEDS):
            sent = request_of(rng.choice(("oip-json", "oip-binary")), images, rng)
            length = int(sent.headers.get("Inference-Header-Content-Length", len(sent.body))) & 0xFFFF
            (Path(folder) / f"seed-{number}").write_bytes(length.to_bytes(2, "little") + sent.body)
        atheris.Setup(
            [
                sys.argv[0],
                folder,
                f"-runs={arguments.runs}",
                f"-seed={arguments.seed}",
                f"-max_len={_MAX_INPUT_BYTES}",
                "-timeout=10",
                f"-rss_limit_mb={_MAX_MEGABYTES}",
                "-print_final_stats=1",
                "-verbosity=0",
            ],
            take_one,
        )
        atheris.Fuzz()  # which ends the process


if __name__ == "__main__":
    main()
