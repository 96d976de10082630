"""Decompression bombs, small files that would fill the memory, are decoded or refused within bounded memory."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.file_structures import huge_webp, lying_avif, rle_bmp
from tests.support.icc import rgb_profile
from tests.support.images import Pixels, encode, exif, png, png_chunk, tiff

pytestmark = pytest.mark.slow

MIB = 1024 * 1024
MAX_PIXELS = 1_000_000
MAX_GROWTH_BYTES = 150 * MIB  # far more than any picture of 1 MP needs, far less than any of the bombs would take

# The peak is the kernel's: what was asked for and never touched costs nothing, what was freed again still counts.
_ESTIMATE_AND_MEASURE = """
import ctypes, io, json, sys
from pathlib import Path
from PIL import Image
from app.images.decode import decode

def status(name):
    return 1024 * int(Path("/proc/self/status").read_text().split(name)[1].split()[0])

def first_uses():
    file = io.BytesIO()
    Image.new("RGBA", (64, 64)).save(file, "PNG")
    decode(file.getvalue())

first_uses()
for path in sys.argv[1:]:
    encoded, estimates = bytearray(Path(path).read_bytes()), []  # as a body comes
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew: proc(5)
    before = status("VmRSS:")
    decode(encoded, reserve=lambda cost: estimates.append(cost.memory_bytes))
    print(json.dumps([Path(path).stem, sum(estimates), status("VmHWM:") - before]))
"""
_DECODE_AND_MEASURE = """
import json, sys
from pathlib import Path
from app.errors import ImageError
from app.images.decode import decode
from app.images.limits import ImageLimits

def peak_bytes():
    return 1024 * int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])

limits = ImageLimits(max_pixels=int(sys.argv[1]))
for path in sys.argv[2:]:
    encoded = Path(path).read_bytes()
    before = peak_bytes()
    try:
        outcome = decode(encoded, limits=limits).pixels.mode
    except ImageError as error:
        outcome = type(error).__name__
    print(json.dumps([Path(path).stem, outcome, peak_bytes() - before]))
"""


def _zeros(size: int) -> bytes:
    """Returns so many zero bytes, deflated: about a thousandth of the size."""
    deflater = zlib.compressobj()
    return b"".join(deflater.compress(bytes(MIB)) for _ in range(size // MIB)) + deflater.flush()


def _bombs(pixels: Pixels) -> dict[str, bytes]:
    height, width, _ = pixels.shape
    rows = [row.tobytes() for row in pixels]
    inflated = _zeros(400 * MIB)

    def png_with(kind: bytes, content: bytes) -> bytes:
        return png(rows, width=width, bit_depth=8, colour_type=2, before_pixels=[(kind, content)])

    one_tile = {256: (4, [width]), 257: (4, [height]), 258: (3, [8] * 3), 259: (3, [8]), 262: (3, [2]), 277: (3, [3])}
    one_tile |= {322: (4, [20_000]), 323: (4, [20_000]), 324: (4, [0]), 325: (4, [len(inflated)])}
    one_strip = {256: (4, [width]), 257: (4, [height]), 258: (3, [8] * 3), 259: (3, [8]), 262: (3, [2]), 273: (4, [0])}
    one_strip |= {277: (3, [3]), 278: (4, [2**31 - 1]), 279: (4, [len(inflated)])}
    animation = encode(pixels, "WEBP", save_all=True, append_images=[Image.fromarray(255 - pixels)])
    canvas = animation.index(b"VP8X") + 12
    # Wiped after it was shown, for which Pillow makes room when it opens the file.
    gif_with_frame = b"GIF89a" + struct.pack("<HH", width, height) + b"\0\0\0" + b"!\xf9\x04\x08\0\0\0\0,"
    return {
        "png-text": png_with(b"zTXt", b"Comment\0\0" + inflated),
        "png-international-text": png_with(b"iTXt", b"Comment\0\1\0\0\0" + inflated),
        "png-profile": png_with(b"iCCP", b"Wide\0\0" + inflated),
        "png-pixels": png_with(b"IDAT", inflated),
        "png-header": png([], width=30_000, height=30_000, bit_depth=8, colour_type=2),
        "gif-screen": b"GIF89a" + struct.pack("<HH", 65_535, 65_535) + encode(pixels, "GIF")[10:],
        "gif-frame": gif_with_frame + struct.pack("<4H", 60_000, 60_000, 60_000, 60_000) + b"\0\2\0;",
        "webp-canvas": animation[:canvas] + b"\xfe\x3f\0\xfe\x3f\0" + animation[canvas + 6 :],
        "bmp-deltas": rle_bmp(b"\0\2\xff\xff" * 8, width=1_000, height=1_000),
        "tiff-tile": tiff(inflated, one_tile),
        "tiff-strip": tiff(inflated, one_strip),
    }


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from Linux's /proc")
def test_no_bomb_fills_the_memory(small_cat: Pixels, tmp_path: Path) -> None:
    bombs = _bombs(small_cat)
    for name, encoded in bombs.items():
        (tmp_path / f"{name}.bin").write_bytes(encoded)
        assert len(encoded) < 2 * MIB
    finished = subprocess.run(
        [sys.executable, "-c", _DECODE_AND_MEASURE, str(MAX_PIXELS), *map(str, sorted(tmp_path.iterdir()))],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        cwd=Path(__file__).parents[3],
    )
    reports = {name: (outcome, growth) for name, outcome, growth in map(json.loads, finished.stdout.splitlines())}
    assert reports.keys() == bombs.keys()
    assert {name: growth for name, (_, growth) in reports.items() if growth > MAX_GROWTH_BYTES} == {}
    refused = {name for name, (outcome, _) in reports.items() if outcome == "TooManyPixelsError"}
    assert refused == {"png-header", "gif-screen", "gif-frame", "webp-canvas", "tiff-tile"}


def _animation_with_small_frame(width: int, height: int) -> bytes:
    """Returns an APNG whose default image is no part of the animation, and whose first frame is smaller than that."""
    plain = encode(Image.new("RGB", (width, height)), "PNG", compress_level=1)
    frame = struct.pack(">5I2HBB", 0, 16, 16, 0, 0, 1, 1, 0, 0)
    pixels = struct.pack(">I", 1) + zlib.compress(bytes((1 + 3 * 16) * 16))
    begin, end = plain.index(b"IDAT") - 4, plain.index(b"IEND") - 4
    animated = png_chunk(b"acTL", struct.pack(">II", 1, 0))
    return (
        plain[:begin]
        + animated
        + plain[begin:end]
        + png_chunk(b"fcTL", frame)
        + png_chunk(b"fdAT", pixels)
        + plain[end:]
    )


def _tiff_of_zeros(width: int, height: int, layout: dict[int, tuple[int, list[int]]]) -> bytes:
    """Returns a deflated RGBA TIFF of 16 bits in one strip or tile of 3,000 x 3,000 pixels or a little more."""
    pixels = _zeros(8 * 3_008 * 3_008 + MIB)
    tags = {256: (4, [width]), 257: (4, [height]), 258: (3, [16] * 4), 259: (3, [8]), 262: (3, [2]), 277: (3, [4])}
    tags |= {338: (3, [2]), (325 if 324 in layout else 279): (4, [len(pixels)])}
    return tiff(pixels, tags | layout | ({} if 324 in layout else {273: (4, [0])}))


def _large_files() -> dict[str, bytes]:
    """Images of 9 MP of every kind that decoders treat in their own way."""
    size = (3_000, 3_000)
    rgb, rgba = Image.new("RGB", size, (200, 30, 30)), Image.new("RGBA", size, (200, 30, 30, 128))
    grey, palette = rgb.convert("L"), Image.new("P", size)
    rows = [bytes(2 * size[0])] * size[1]
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    one_frame = encode(Image.new("P", (64, 64)), "GIF")
    one_run = (b"\xff\x01" * 11 + b"\xc3\x01\0\0") * size[1] + b"\0\1"
    return {
        "png-rgb": encode(rgb, "PNG", compress_level=1),
        "png-rgba": encode(rgba, "PNG", compress_level=1),
        "png-grey": encode(grey, "PNG", compress_level=1),
        "png-grey-16": png(rows, width=size[0], bit_depth=16, colour_type=0),
        "png-palette": encode(palette, "PNG", compress_level=1, transparency=0),
        "png-tall": png([bytes(4 * 137)] * 65_535, width=137, bit_depth=8, colour_type=6),
        "png-turned": encode(rgb, "PNG", compress_level=1, exif=exif(6)),
        "png-alpha-turned": encode(rgba, "PNG", compress_level=1, exif=exif(6)),
        "png-small-frame": _animation_with_small_frame(*size),
        "png-profile": encode(rgb, "PNG", compress_level=1, icc_profile=rgb_profile()),
        "webp-lossless": huge_webp(*size),
        "webp-alpha": encode(rgba, "WEBP", quality=10, method=0),
        "webp-turned": encode(rgb, "WEBP", quality=10, method=0, exif=exif(6)),
        "webp-noise": encode(noise, "WEBP", quality=100, method=0),
        "avif": encode(rgb, "AVIF", speed=10),
        "avif-alpha": encode(rgba, "AVIF", speed=10),
        "avif-444": encode(rgb, "AVIF", speed=10, subsampling="4:4:4"),
        "avif-said-to-be-small": lying_avif(encode(rgb, "AVIF", speed=10)),
        "jpeg": encode(rgb, "JPEG"),
        "jpeg-progressive": encode(rgb, "JPEG", progressive=True),
        "jpeg-progressive-444": encode(rgb, "JPEG", progressive=True, subsampling=0),
        "jpeg-cmyk": encode(rgb.convert("CMYK"), "JPEG"),
        "jpeg-turned": encode(rgb, "JPEG", exif=exif(6)),
        "gif": encode(palette, "GIF"),
        "gif-small-frame": one_frame[:6] + struct.pack("<HH", *size) + one_frame[10:],
        "bmp": encode(rgb, "BMP"),
        "bmp-rle": rle_bmp(one_run, width=size[0], height=size[1]),
        "tiff-lzw": encode(rgb, "TIFF", compression="tiff_lzw"),
        "tiff-rgba": encode(rgba, "TIFF", compression="tiff_deflate"),
        "tiff-turned": encode(rgba, "TIFF", compression="tiff_deflate", exif=exif(6)),
        "tiff-group4": encode(rgb.convert("1"), "TIFF", compression="group4"),
        "tiff-uncompressed": encode(rgb, "TIFF"),
        "tiff-one-strip": _tiff_of_zeros(*size, {278: (4, [size[1]])}),
        "tiff-large-tile": _tiff_of_zeros(64, 64, {322: (4, [3_008]), 323: (4, [3_008]), 324: (4, [0])}),
    }


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak is read from Linux's /proc")
def test_estimate_from_the_header_is_near_the_measured_peak(tmp_path: Path) -> None:
    files = _large_files()
    for name, encoded in files.items():
        (tmp_path / f"{name}.bin").write_bytes(encoded)
    finished = subprocess.run(
        [sys.executable, "-c", _ESTIMATE_AND_MEASURE, *map(str, sorted(tmp_path.iterdir()))],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        cwd=Path(__file__).parents[3],
    )
    ratios = {name: peak / estimate for name, estimate, peak in map(json.loads, finished.stdout.splitlines())}
    assert ratios.keys() == files.keys()
    assert {name: ratio for name, ratio in ratios.items() if not 0.7 < ratio < 1.2} == {}
