"""Builds ICC profiles by hand, and computes in NumPy what they must do.

Independent of Little CMS: the profiles follow ICC.1:2001-04, the conversions its appendices and IEC 61966-2-1.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tests.support.images import Pixels

Floats = npt.NDArray[np.float64]

D50 = np.array([0.9642, 1.0, 0.8249])
# Columns are the XYZ of red, green and blue, adapted to D50 (Bradford).
SRGB_TO_XYZ = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]])
WIDE_GAMUT_TO_XYZ = np.array([[0.7977, 0.1352, 0.0313], [0.2880, 0.7119, 0.0001], [0.0, 0.0, 0.8249]])  # ProPhoto's


def srgb_from_xyz(xyz: Floats) -> Pixels:
    """Converts XYZ under D50, `(..., 3)`, to 8-bit sRGB, clipping what lies outside."""
    linear = np.clip(xyz @ np.linalg.inv(SRGB_TO_XYZ).T, 0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.round(encoded * 255).astype(np.uint8)


def srgb_from_lab(lab: Floats) -> Pixels:
    """Converts CIELAB under D50, `(..., 3)`, to 8-bit sRGB."""
    fy = (lab[..., 0] + 16) / 116
    f = np.stack([fy + lab[..., 1] / 500, fy, fy - lab[..., 2] / 200], axis=-1)
    return srgb_from_xyz(D50 * np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)))


def rgb_profile(to_xyz: Floats = WIDE_GAMUT_TO_XYZ, *, gamma: float = 1.8, description: str = "Wide") -> bytes:
    """Returns a matrix profile: linear = (sample / 255) ** gamma, XYZ = to_xyz @ linear."""
    tags = {f"{channel}XYZ".encode(): _xyz(to_xyz[:, i]) for i, channel in enumerate("rgb")}
    tags |= {f"{channel}TRC".encode(): _gamma(gamma) for channel in "rgb"}
    return _profile(b"mntr", b"RGB ", b"XYZ ", tags, description)


def grey_profile(*, gamma: float) -> bytes:
    """Returns a grey profile: Y = (sample / 255) ** gamma."""
    return _profile(b"mntr", b"GRAY", b"XYZ ", {b"kTRC": _gamma(gamma)}, "Grey")


def cmyk_profile(corners: Sequence[Sequence[int]]) -> bytes:
    """Returns a printer profile that maps the 16 corners of CMYK (K fastest) to CIELAB, (L, a, b) each."""
    identity = bytes(range(256))
    grid = b"".join(bytes([round(lightness * 2.55), a + 128, b + 128]) for lightness, a, b in corners)
    unit_matrix = struct.pack(">9i", *(65536 if i % 4 == 0 else 0 for i in range(9)))
    table = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + unit_matrix + identity * 4 + grid + identity * 3
    return _profile(b"prtr", b"CMYK", b"Lab ", {b"A2B0": table}, "Press")


def _xyz(values: Floats) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65536) for value in values))


def _gamma(gamma: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))


def _profile(device_class: bytes, space: bytes, connection: bytes, tags: dict[bytes, bytes], description: str) -> bytes:
    ascii_description = description.encode() + b"\0"
    tags = tags | {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", len(ascii_description)) + ascii_description + b"\0" * 78,
        b"wtpt": _xyz(D50),
        b"cprt": b"text\0\0\0\0CC0\0",
    }
    directory, body = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for signature, element in tags.items():
        directory += signature + struct.pack(">II", start + len(body), len(element))
        body += element + b"\0" * (-len(element) % 4)
    size = start + len(body)
    header = struct.pack(">I4sI4s4s4s", size, b"test", 0x02100000, device_class, space, connection)
    header += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + b"\0" * 28 + _xyz(D50)[8:]
    return header.ljust(128, b"\0") + directory + body
