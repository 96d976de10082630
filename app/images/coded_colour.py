"""Colour told by numbers instead of an ICC profile: PNG's `gAMA`, `cHRM` and `cICP`, AVIF's `nclx`.

numbers -> the profile that says the same -> `colour.py` converts by it as by an embedded one
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

_Floats = npt.NDArray[np.float64]

Chromaticities = tuple[float, ...]
"""The x and y of white, red, green and blue, in this order (CIE 1931)."""

_D65: Final = (0.3127, 0.3290)
SRGB_CHROMATICITIES: Final[Chromaticities] = (*_D65, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
# ITU-T H.273, table 2, shortened to what photos and videos use.
_PRIMARIES: Final[dict[int, Chromaticities]] = {
    1: SRGB_CHROMATICITIES,
    4: (0.310, 0.316, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08),  # NTSC 1953
    5: (*_D65, 0.64, 0.33, 0.29, 0.60, 0.15, 0.06),  # BT.601, 625 lines
    6: (*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),  # BT.601, 525 lines
    7: (*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    9: (*_D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),  # BT.2020
    11: (0.314, 0.351, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),  # DCI-P3
    12: (*_D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),  # Display P3
    22: (*_D65, 0.630, 0.340, 0.295, 0.605, 0.155, 0.077),  # EBU 3213
}
_SRGB: Final = (1, 13)
_UNSPECIFIED: Final = 2  # which decoders take for sRGB
# BT.709, BT.601 and BT.2020 say how cameras encode. Their screens have a gamma of 2.4 (ITU-R BT.1886); with the
# primaries of sRGB, browsers take such samples for sRGB.
_CAMERA_CURVES: Final = {1, 6, 14, 15}
_SCREEN_GAMMA: Final = 2.4
_POWERS: Final = {4: 2.2, 5: 2.8, 8: 1.0}
_PQ: Final = 16
_HLG: Final = 18
# A gamma so near to 1 / 2.2 is how PNG writes sRGB down (W3C PNG, 11.3.2.5).
_SRGB_GAMMAS: Final = (0.45, 0.46)
_USABLE_GAMMAS: Final = (0.1, 10.0)
_CURVE_LENGTH: Final = 4096
_HDR_WHITE: Final = 203.0  # ITU-R BT.2408: white paper, in cd/m2
_HDR_PEAK: Final = 1000.0
_HDR_SHOULDER: Final = 1.68
_D50: Final = np.array([0.9642, 1.0, 0.8249])
_BRADFORD: Final = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


@dataclass(frozen=True, slots=True)
class CodedColour:
    """A colour space told by numbers.

    Attributes:
        profile: an ICC profile that says the same; None where the numbers are unknown or make no sense.
        is_hdr: whether it reaches beyond white (PQ or HLG).
    """

    profile: bytes | None = field(repr=False)
    is_hdr: bool = False


@lru_cache(maxsize=64)
def of_code_points(primaries: int, transfer: int) -> CodedColour:
    """Returns the colour space of two numbers of ITU-T H.273, as PNG's `cICP` and AVIF's `nclx` have them."""
    if _UNSPECIFIED in {primaries, transfer}:
        primaries, transfer = _SRGB
    chromaticities = _PRIMARIES.get(primaries)
    samples = np.linspace(0, 1, _CURVE_LENGTH)
    if transfer == _SRGB[1] or (transfer in _CAMERA_CURVES and primaries == _SRGB[0]):
        curve = _srgb_curve(samples)
    elif transfer in _CAMERA_CURVES:
        curve = samples**_SCREEN_GAMMA
    elif transfer in _POWERS:
        curve = samples ** _POWERS[transfer]
    elif transfer == _PQ:
        curve = _tone_mapped(_pq_curve(samples))
    elif transfer == _HLG:
        curve = _tone_mapped(_hlg_curve(samples))
    else:
        return CodedColour(None)
    is_hdr = transfer in {_PQ, _HLG}
    return CodedColour(_profile(chromaticities, curve) if chromaticities else None, is_hdr)


@lru_cache(maxsize=64)
def of_gamma(gamma: float | None, chromaticities: Chromaticities | None) -> CodedColour:
    """Returns the colour space of PNG's `gAMA` and `cHRM`.

    Without `cHRM` the primaries are those of sRGB. Other primaries without a gamma are not enough to go by.
    """
    samples = np.linspace(0, 1, _CURVE_LENGTH)
    is_srgb = chromaticities is None or np.allclose(chromaticities, SRGB_CHROMATICITIES, atol=1e-3)
    if is_srgb and (gamma is None or _SRGB_GAMMAS[0] <= gamma <= _SRGB_GAMMAS[1]):
        curve = _srgb_curve(samples)
    elif gamma is not None and _USABLE_GAMMAS[0] <= gamma <= _USABLE_GAMMAS[1]:
        curve = samples ** (1 / gamma)
    else:
        return CodedColour(None)
    return CodedColour(_profile(chromaticities or SRGB_CHROMATICITIES, curve))


def _srgb_curve(samples: _Floats) -> _Floats:
    """IEC 61966-2-1."""
    return np.where(samples <= 0.04045, samples / 12.92, ((samples + 0.055) / 1.055) ** 2.4)


def _pq_curve(samples: _Floats) -> _Floats:
    """SMPTE ST 2084: samples to cd/m2."""
    root = samples ** (1 / 78.84375)
    ratio: _Floats = np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)
    return 10_000 * ratio ** (1 / 0.1593017578125)


def _hlg_curve(samples: _Floats) -> _Floats:
    """ITU-R BT.2100, hybrid log-gamma on a screen of 1000 cd/m2; its system gamma is applied to each channel."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene: _Floats = np.where(samples <= 0.5, samples**2 / 3, (np.exp((samples - c) / a) + b) / 12)
    return 1000 * scene**1.2


def _tone_mapped(luminance: _Floats) -> _Floats:
    """Brings cd/m2 into what a screen of sRGB can show: 0 to 1.

    Up to white paper it is linear, at half of it; above, a curve bends to 1 at 1000 cd/m2. Chromium's greys on such a
    screen are met by it within 2 levels of 255.
    """
    paper = luminance / _HDR_WHITE
    above = np.clip((luminance - _HDR_WHITE) / (_HDR_PEAK - _HDR_WHITE), 0, 1)
    shoulder: _Floats = (1 + above * (1 + _HDR_SHOULDER) / (1 + above * _HDR_SHOULDER)) / 2
    return np.where(paper <= 1, paper / 2, shoulder)


def _profile(chromaticities: Chromaticities, curve: _Floats) -> bytes | None:
    """Returns a matrix profile (ICC.1:2001-04), or None where the chromaticities span no colours."""
    try:
        matrix = _to_d50(chromaticities)
    except (np.linalg.LinAlgError, ZeroDivisionError):
        return None
    if not np.isfinite(matrix).all() or np.abs(matrix).max() > 16:
        return None
    samples = np.round(np.clip(curve, 0, 1) * 65535).astype(">u2").tobytes()
    response = b"curv" + struct.pack(">4xI", _CURVE_LENGTH) + samples
    elements = {f"{channel}XYZ".encode(): _xyz(matrix[:, number]) for number, channel in enumerate("rgb")}
    elements |= {b"wtpt": _xyz(_D50), b"desc": b"desc" + struct.pack(">4xI", 1) + bytes(79)}
    directory, body = b"", b""
    start = 128 + 4 + 12 * (len(elements) + 3)
    for signature, element in elements.items():
        directory += signature + struct.pack(">II", start + len(body), len(element))
        body += element + bytes(-len(element) % 4)
    for signature in (b"rTRC", b"gTRC", b"bTRC"):  # one curve for all three
        directory += signature + struct.pack(">II", start + len(body), len(response))
    body += response
    head = struct.pack(">I4xI4s4s4s", start + len(body), 0x02100000, b"mntr", b"RGB ", b"XYZ ")
    head += bytes(12) + b"acsp" + bytes(28) + _xyz(_D50)[8:]
    return head.ljust(128, b"\0") + struct.pack(">I", len(elements) + 3) + directory + body


def _to_d50(chromaticities: Chromaticities) -> _Floats:
    """Returns the matrix from linear RGB to XYZ under D50, `(3, 3)`, adapted from its own white by Bradford."""
    white, *primaries = (
        np.array([x / y, 1.0, (1 - x - y) / y]) for x, y in zip(chromaticities[::2], chromaticities[1::2], strict=True)
    )
    to_xyz = np.stack(primaries, axis=1)
    to_xyz = to_xyz * np.linalg.solve(to_xyz, white)
    cones = np.diag((_BRADFORD @ _D50) / (_BRADFORD @ white))
    return np.asarray(np.linalg.solve(_BRADFORD, cones @ _BRADFORD @ to_xyz))


def _xyz(values: Sequence[float] | _Floats) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(float(value) * 65536) for value in values))
