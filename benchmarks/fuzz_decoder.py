"""Fuzzes the decoder, guided by coverage: an `ImageError` or a picture within the limits, never anything else.

python -m benchmarks.fuzz_decoder --runs 100000

Needs atheris (`pip install atheris`; wheels for Linux on x86-64), which watches which lines of Pillow's Python code and
of ours an input reaches, and keeps those that reach new ones. Pillow's C code has no instrumentation; it is reached
through the seeds. Ends with an error at the first input that breaks the claim, and leaves it in `crash-*`.

Its memory grows by 2 to 4 kB a run: atheris 3.0.0 keeps the result of every comparison of arrays (`==` on NumPy's, in
`app.images.colour`). Without it, the decoder's memory stays the same over all that it has kept.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from pathlib import Path

_MAX_INPUT_BYTES = 20_000
_MAX_MEGABYTES = 3_000
_MAX_PIXELS = 1_000_000


def main() -> None:
    """Fuzzes, and prints libFuzzer's statistics at the end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--max-s", type=int, default=10, help="most seconds that one input may take")
    arguments = parser.parse_args()
    try:
        import atheris
    except ImportError:
        sys.exit("Needs atheris, which is no part of the development install: pip install atheris")
    with atheris.instrument_imports(include=["app.images", "PIL"]):
        from app.images.decode import decode
        from app.images.limits import ImageLimits
    from app.errors import ImageError
    from benchmarks.support.damage import real_images

    limits = ImageLimits(max_pixels=_MAX_PIXELS)
    warnings.filterwarnings("ignore", module="PIL")  # as the service does

    def decode_one(encoded: bytes) -> None:
        try:
            image = decode(encoded, limits=limits, min_shorter_side=16 if len(encoded) % 2 else None)
        except ImageError:
            return
        if image.pixels.mode != "RGB" or image.width * image.height > _MAX_PIXELS:
            raise AssertionError(f"{image.pixels.mode}, {image.width} x {image.height}")

    with tempfile.TemporaryDirectory() as folder:
        for number, encoded in enumerate(real_images()):
            (Path(folder) / f"seed-{number}").write_bytes(encoded)
        atheris.Setup(
            [
                sys.argv[0],
                folder,
                f"-runs={arguments.runs}",
                f"-seed={arguments.seed}",
                f"-max_len={_MAX_INPUT_BYTES}",
                f"-timeout={arguments.max_s}",
                f"-rss_limit_mb={_MAX_MEGABYTES}",
                "-print_final_stats=1",
                "-verbosity=0",
            ],
            decode_one,
        )
        atheris.Fuzz()  # which ends the process


if __name__ == "__main__":
    main()
