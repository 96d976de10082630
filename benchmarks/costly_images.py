"""Searches for images that cost the most CPU time or memory to decode, by mutation guided by both.

python -m benchmarks.costly_images --seconds 60

Each format has its seeds: files of real photos, and flat images as large as the limits allow, written in every way that
Pillow knows. A mutant that costs more than the best ones so far is kept, and mutated further. Each is decoded in a
process of its own, whose CPU time and peak memory the kernel tells. The worst of each format is printed, and written to
`--keep FOLDER` if that is given. Ends with an error if one takes more CPU time than an image may.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import random
import resource
import struct
import sys
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from app.errors import ImageError
from app.images.decode import decode
from app.images.isolation.decoders import MAX_CPU_S
from app.images.limits import FORMATS, ImageLimits
from app.images.recognise import recognise
from app.system.kernel import return_freed_memory
from benchmarks.support.damage import real_images

_SIDE = 11_180  # squared, it is what is allowed
_KEPT = 12  # of each format, by each measure
_INTERESTING = (0, 1, 2, 7, 255, 256, 4096, 11_180, 32_767, 65_535, 1_000_000, 125_000_000, 0x7FFFFFFF, 0xFFFFFFFF)
_MAX_BODY_BYTES = 50_000_000
_BODY_OF_MUTANT_BYTES = 4_000_000


@dataclass(frozen=True)
class Cost:
    """What a file costs.

    Attributes:
        cpu_s: the CPU time of decoding, in seconds.
        peak_mb: the most memory of the process, in MB, beyond what it has without an image.
    """

    cpu_s: float
    peak_mb: float


def cost_of(file: bytes, limits: ImageLimits) -> Cost:
    """Decodes a file in a process of its own, at full scale; returns what it cost."""
    own_mb = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
        with contextlib.suppress(ImageError, MemoryError):
            decode(file, limits=limits)
        os._exit(0)
    _, _, usage = os.wait4(child, 0)
    return Cost(usage.ru_utime + usage.ru_stime, max(0.0, usage.ru_maxrss * 1.024e-3 - own_mb))


def flat_images() -> Iterator[bytes]:
    """Yields images of one colour, as large as the limits allow, in every way that Pillow writes."""
    ways: list[tuple[str, str, dict[str, Any]]] = [
        ("PNG", "RGBA", {}), ("PNG", "RGB", {}), ("PNG", "L", {}), ("PNG", "P", {}), ("PNG", "1", {}),
        ("JPEG", "RGB", {"quality": 1}), ("JPEG", "RGB", {"quality": 1, "progressive": True, "subsampling": 0}),
        ("JPEG", "CMYK", {"quality": 1}), ("JPEG", "L", {"quality": 1}), ("GIF", "P", {}), ("BMP", "1", {}),
        ("TIFF", "RGBA", {"compression": "tiff_lzw"}), ("TIFF", "RGB", {"compression": "tiff_adobe_deflate"}),
        ("TIFF", "1", {"compression": "group4"}), ("TIFF", "1", {"compression": "group3"}),
        ("TIFF", "RGB", {"compression": "packbits"}), ("TIFF", "RGB", {"compression": "jpeg", "quality": 30}),
        ("AVIF", "RGBA", {"quality": 1, "speed": 10}), ("AVIF", "RGB", {"quality": 1, "speed": 10}),
    ]  # fmt: skip
    for image_format, mode, options in ways:
        file = io.BytesIO()
        Image.new(mode, (_SIDE, _SIDE)).save(file, image_format, **options)
        yield file.getvalue()
    for side in (4_000, _SIDE):  # a WebP of one colour costs no bit for a pixel
        bits = (side - 1) | (side - 1) << 14
        payload = b"\x2f" + struct.pack("<I", bits) + b"\x88\x88\x08" + bytes(8)
        yield b"RIFF" + struct.pack("<I", 12 + len(payload)) + b"WEBPVP8L" + struct.pack("<I", len(payload)) + payload
    wide = io.BytesIO()
    Image.fromarray(np.zeros((_SIDE, _SIDE), np.uint16)).save(wide, "PNG")
    yield wide.getvalue()
    yield _png_of(_SIDE, bit_depth=16, colour_type=6)
    yield _png_of(_SIDE, bit_depth=8, colour_type=6, interlaced=True)
    noisy = io.BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (3000, 3000, 3), np.uint8)).save(noisy, "PNG")
    yield noisy.getvalue()


def _png_of(side: int, *, bit_depth: int, colour_type: int, interlaced: bool = False) -> bytes:
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour_type]
    packed, squeeze = bytearray(), zlib.compressobj(9)
    for _ in range(side + side):  # interlaced images have some more rows
        packed += squeeze.compress(bytes(1 + side * channels * bit_depth // 8))
    packed += squeeze.flush()
    header = struct.pack(">IIBBBBB", side, side, bit_depth, colour_type, 0, 0, interlaced)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in ((b"IHDR", header), (b"IDAT", bytes(packed)), (b"IEND", b""))
    )


def mutated(file: bytes, chance: random.Random) -> bytes:
    """Returns a file with a few changes: numbers, repeated and moved parts, other bytes."""
    changed = bytearray(file)
    for _ in range(chance.randint(1, 4)):
        _CHANGES[chance.randrange(len(_CHANGES))](changed, chance)
    return _with_checksums(bytes(changed[:_MAX_BODY_BYTES]))


def _place(file: bytearray, chance: random.Random) -> int:
    """Returns a place, in most cases near the beginning, where the headers are."""
    return chance.randrange(max(1, min(len(file), chance.choice((64, 512, 4096, len(file) or 1)))))


def _set_number(file: bytearray, chance: random.Random) -> None:
    at, layout = _place(file, chance), chance.choice(("<H", ">H", "<I", ">I", "B"))
    number = chance.choice(_INTERESTING) % (1 << 8 * struct.calcsize(layout))
    file[at : at + struct.calcsize(layout)] = struct.pack(layout, number)


def _set_bytes(file: bytearray, chance: random.Random) -> None:
    at = _place(file, chance)
    file[at : at + 1] = bytes([chance.randrange(256)])


def _repeat(file: bytearray, chance: random.Random) -> None:
    at, length = _place(file, chance), chance.choice((1, 2, 12, 64, 1024, 65_536))
    times = min(chance.choice((1, 2, 10, 100, 1000)), _BODY_OF_MUTANT_BYTES // length)
    file[at:at] = bytes(file[at : at + length]) * times


def _cut(file: bytearray, chance: random.Random) -> None:
    at = _place(file, chance)
    del file[at : at + chance.choice((1, 2, 12, 64, 1024))]


_CHANGES: tuple[Callable[[bytearray, random.Random], None], ...] = (
    _set_number, _set_number, _set_bytes, _set_bytes, _repeat, _cut
)  # fmt: skip


def _with_checksums(file: bytes) -> bytes:
    """Sets the checksums of a PNG right, which refuse nearly every mutant otherwise."""
    if not file.startswith(b"\x89PNG\r\n\x1a\n"):
        return file
    out, at = bytearray(file[:8]), 8
    while at + 12 <= len(file):
        length = struct.unpack_from(">I", file, at)[0]
        body = file[at + 4 : at + 8 + length]
        out += file[at : at + 4] + body + struct.pack(">I", zlib.crc32(body))
        at += 12 + length
    return bytes(out)


class Search:
    """The search in one format.

    Args:
        seeds: the files to begin with.
        limits: which images are accepted.
        seed: the seed of the random numbers.
    """

    def __init__(self, seeds: list[bytes], limits: ImageLimits, seed: int) -> None:
        self._limits = limits
        self._chance = random.Random(seed)
        self.tried = 0
        self.found: list[tuple[bytes, Cost]] = []
        for file in seeds:
            self._try(file)

    def run(self, seconds: float) -> None:
        """Mutates what is kept."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            file, _ = self._chance.choice(self.found)
            self._try(mutated(file, self._chance))

    def worst(self, measure: Callable[[Cost], float]) -> tuple[bytes, Cost]:
        """Returns the file that costs most by a measure."""
        return max(self.found, key=lambda each: measure(each[1]))

    def _try(self, file: bytes) -> None:
        self.tried += 1
        self.found.append((file, cost_of(file, self._limits)))
        if len(self.found) > 4 * _KEPT:
            by_time = sorted(self.found, key=lambda each: -each[1].cpu_s)[:_KEPT]
            by_memory = sorted(self.found, key=lambda each: -each[1].peak_mb)[:_KEPT]
            # A small file that costs much is worse than a large one.
            by_size = sorted(self.found, key=lambda each: -each[1].cpu_s / (len(each[0]) + 1000))[:_KEPT]
            self.found = list({file: (file, cost) for file, cost in by_time + by_memory + by_size}.values())


def main() -> None:
    """Searches in every format, and prints the worst files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="of the search in each format")
    parser.add_argument("--formats", default=",".join(FORMATS))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="folder for the worst files")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", module="PIL")  # as the service does
    limits = ImageLimits()
    seeds: dict[str, list[bytes]] = {}
    for file in [*flat_images(), *real_images()]:
        seeds.setdefault(recognise(file) or "", []).append(file)
    return_freed_memory()
    slowest = 0.0
    print("| format | tried | most CPU, s | its file, bytes | most memory, MB | its file, bytes |")
    print("|---|---:|---:|---:|---:|---:|")
    for image_format in arguments.formats.split(","):
        search = Search(seeds[image_format], limits, arguments.seed)
        search.run(arguments.seconds)
        (slow, of_slow), (large, of_large) = (
            search.worst(lambda cost: cost.cpu_s),
            search.worst(lambda cost: cost.peak_mb),
        )
        row = f"{search.tried:,} | {of_slow.cpu_s:.1f} | {len(slow):,} | {of_large.peak_mb:,.0f} | {len(large):,}"
        print(f"| {image_format} | {row} |", flush=True)
        if arguments.keep:
            arguments.keep.mkdir(parents=True, exist_ok=True)
            (arguments.keep / f"slow-{image_format.lower()}").write_bytes(slow)
            (arguments.keep / f"large-{image_format.lower()}").write_bytes(large)
        slowest = max(slowest, of_slow.cpu_s)
    if slowest > MAX_CPU_S:
        sys.exit(f"A file takes {slowest:.1f} s of CPU time; the limit is {MAX_CPU_S:.0f} s.")


if __name__ == "__main__":
    main()
