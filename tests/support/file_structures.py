"""Writes an image in every file structure that Pillow parses in its own way."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.support.icc import rgb_profile
from tests.support.images import Pixels, encode, exif, grey_tiff, interlaced_png

_HEIC_FILES = Path(__file__).parents[1] / "app" / "images" / "heic"  # Pillow cannot write any


def structures(pixels: Pixels) -> dict[str, bytes]:
    """Returns the image as one file of every structure, by name. The HEIC files show a picture of their own."""
    image = Image.fromarray(pixels)
    grey_and_alpha = Image.merge("LA", [image.convert("L"), image.getchannel("R")])
    palette = image.quantize(16)
    everything: dict[str, Any] = {"exif": exif(6), "icc_profile": rgb_profile()}
    return {
        "JPEG": encode(image, "JPEG", **everything),
        "JPEG-progressive": encode(image, "JPEG", progressive=True, restart_marker_rows=1),
        "JPEG-cmyk": encode(image.convert("CMYK"), "JPEG"),
        "JPEG-mpo": encode(image, "MPO", save_all=True, append_images=[image]),
        "PNG": encode(image, "PNG", **everything),
        "PNG-interlaced": interlaced_png(pixels),
        "PNG-palette": encode(palette, "PNG", transparency=b"\x40\x80"),
        "PNG-16": encode(pixels[..., 0].astype(np.uint16) * 257, "PNG"),
        "PNG-la": encode(grey_and_alpha, "PNG"),
        "APNG": encode(image, "PNG", save_all=True, append_images=[image.rotate(90)]),
        "WEBP": encode(image, "WEBP", **everything),
        "WEBP-lossless-alpha": encode(image.convert("RGBA"), "WEBP", lossless=True),
        "WEBP-animated": encode(image, "WEBP", save_all=True, append_images=[image.rotate(90)]),
        "GIF": encode(palette, "GIF", transparency=3, interlace=1),
        "GIF-animated": encode(palette, "GIF", save_all=True, append_images=[palette.rotate(90)]),
        "BMP": encode(image, "BMP"),
        "BMP-palette": encode(palette, "BMP"),
        "BMP-rle": rle_bmp(b"\x40\x01\0\0" * 48 + b"\0\x01", width=64, height=48),
        "TIFF": encode(image, "TIFF", **everything),
        "TIFF-lzw": encode(image, "TIFF", compression="tiff_lzw"),
        "TIFF-deflate": encode(palette, "TIFF", compression="tiff_deflate"),
        "TIFF-jpeg": encode(image, "TIFF", compression="jpeg"),
        "TIFF-group4": encode(image.convert("1"), "TIFF", compression="group4"),
        "TIFF-16": grey_tiff(pixels[..., 0].astype(np.uint16) * 257, byte_order=">"),
        "TIFF-pages": encode(image, "TIFF", save_all=True, append_images=[image]),
        "BigTIFF": encode(image, "TIFF", big_tiff=True, compression="packbits"),
        "AVIF": encode(image, "AVIF", exif=exif(6), icc_profile=rgb_profile()),
        "AVIF-alpha": encode(image.convert("RGBA"), "AVIF"),
        "HEIC": (_HEIC_FILES / "turned.heic").read_bytes(),
        "HEIC-grid": (_HEIC_FILES / "grid-turned.heic").read_bytes(),
    }


def huge_webp(width: int, height: int) -> bytes:
    """Returns a lossless WebP of one colour, of any size in 40 bytes: no pixel of it costs a bit.

    Args:
        width: up to 16,384 pixels.
        height: up to 16,384 pixels.
    """
    encoded = bytearray(encode(Image.new("RGB", (16, 16), (200, 30, 30)), "WEBP", lossless=True))
    start = encoded.index(b"VP8L") + 9  # the chunk's length and the signature 0x2F stand before the size
    flags = int.from_bytes(encoded[start : start + 4], "little") >> 28
    encoded[start : start + 4] = (width - 1 | (height - 1) << 14 | flags << 28).to_bytes(4, "little")
    return bytes(encoded)


def lying_avif(encoded: bytes, width: int = 64, height: int = 64) -> bytes:
    """Returns an AVIF, written by Pillow, whose container tells another size than its AV1."""
    told = bytearray(encoded)

    def write(kind: bytes, behind: int, size: bytes) -> None:
        position = told.find(kind)
        while position >= 0:
            told[position + behind : position + behind + len(size)] = size
            position = told.find(kind, position + 4)

    write(b"ispe", 8, struct.pack(">II", width, height))
    write(b"tkhd", 92, struct.pack(">II", width << 16, height << 16))
    return bytes(told)


def rle_bmp(runs: bytes, *, width: int, height: int) -> bytes:
    """Returns an 8-bit run-length encoded bitmap with a grey palette."""
    palette = b"".join(bytes([i, i, i, 0]) for i in range(256))
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(runs), 2835, 2835, 256, 0)
    offset = 14 + len(header) + len(palette)
    return b"BM" + struct.pack("<IHHI", offset + len(runs), 0, 0, offset) + header + palette + runs
