"""Recognises an image's format, and what other files are, by the first bytes, never by name or declared type."""

from __future__ import annotations

import re
from typing import Final

from app.images.limits import ImageFormat

HEAD_BYTES: Final = 512
"""How much of a file is looked at."""

_RAW = "a camera raw file, the unprocessed data of a sensor"
_PICKLE = "a pickled Python or PyTorch file"
# Signature -> what it is; the first that fits counts. Sources: the formats' specifications and the file(1) database.
_SIGNATURES: Final[tuple[tuple[bytes, str], ...]] = (
    (b"\xff\x0a", "a JPEG XL image"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL image"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 image"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 image"),
    (b"II\xbc\x01", "a JPEG XR image"),
    (b"\0\0\x01\0", "a Windows icon (ICO)"),
    (b"\0\0\x02\0\x01\0", "a Windows cursor (CUR)"),
    (b"icns", "an Apple icon (ICNS)"),
    (b"8BPS", "a Photoshop document (PSD)"),
    (b"gimp xcf ", "a GIMP document (XCF)"),
    (b"8BPB", "a Photoshop document (PSB)"),
    (b"qoif", "a QOI image"),
    (b"farbfeld", "a farbfeld image"),
    (b"BPG\xfb", "a BPG image"),
    (b"FLIF", "a FLIF image"),
    (b"\x8aMNG\r\n\x1a\n", "an MNG animation"),
    (b"\x8bJNG\r\n\x1a\n", "a JNG image"),
    (b"AT&TFORM", "a DjVu document"),
    (b"#?RADIANCE", "a Radiance HDR image"),
    (b"#?RGBE", "a Radiance HDR image"),
    (b"v/1\x01", "an OpenEXR image"),
    (b"SIMPLE  =", "a FITS image"),
    (b"DDS ", "a DirectDraw surface (DDS)"),
    (b"\xabKTX ", "a KTX texture"),
    (b"\x01\xda\x01", "an SGI image"),
    (b"\x01\xda\0", "an SGI image"),
    (b"\x59\xa6\x6a\x95", "a Sun raster image"),
    (b"SDPX", "a DPX image"),
    (b"XPDS", "a DPX image"),
    (b"/* XPM */", "an XPM image"),
    (b"#define ", "an XBM image or C source"),
    (b"\xd7\xcd\xc6\x9a", "a Windows metafile (WMF)"),
    (b"\x01\0\x09\0\0\x03", "a Windows metafile (WMF)"),
    (b"%!PS", "PostScript (EPS)"),
    (b"\xc5\xd0\xd3\xc6", "PostScript (EPS)"),
    (b"{\\rtf", "an RTF document"),
    (b"FUJIFILMCCD-RAW", _RAW),
    (b"IIRO", _RAW),
    (b"IIRS", _RAW),
    (b"MMOR", _RAW),
    (b"IIU\0", _RAW),
    (b"\0MRM", _RAW),
    (b"FOVb", _RAW),
    (b"II\x1a\0\0\0HEAPCCDR", _RAW),
    (b"PK\x03\x04", "a ZIP archive, or a document or a PyTorch file in one"),
    (b"PK\x05\x06", "an empty ZIP archive"),
    (b"\x1f\x8b", "a gzip file (perhaps SVGZ)"),
    (b"BZh", "a bzip2 file"),
    (b"\xfd7zXZ\0", "an xz file"),
    (b"\x28\xb5\x2f\xfd", "a zstd file"),
    (b"\x04\x22\x4d\x18", "an LZ4 file"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!\x1a\x07", "a RAR archive"),
    (b"\x93NUMPY", "a NumPy array (.npy)"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (b"CDF\x01", "a NetCDF file"),
    (b"CDF\x02", "a NetCDF file"),
    (b"MATLAB 5.0", "a MATLAB file"),
    (b"PAR1", "a Parquet file"),
    (b"ARROW1", "an Arrow file"),
    (b"SQLite format 3\0", "an SQLite database"),
    (b"\x80\x02", _PICKLE),
    (b"\x80\x03", _PICKLE),
    (b"\x80\x04", _PICKLE),
    (b"\x80\x05", _PICKLE),
    (b"NIfTI", "a NIfTI image"),
    (b"\x1aE\xdf\xa3", "a Matroska or WebM video"),
    (b"\0\0\x01\xba", "an MPEG video"),
    (b"\0\0\x01\xb3", "an MPEG video"),
    (b"FLV\x01", "a Flash video"),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "a Windows Media file"),
    (b"OggS", "an Ogg file"),
    (b"ID3", "an MP3 file"),
    (b"fLaC", "a FLAC file"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Microsoft Office document or Thumbs.db"),
    (b"\0\x05\x16\x07", "an AppleDouble file (._name), which macOS writes beside the real one"),
    (b"\0\x05\x16\0", "an AppleSingle file"),
    (b"\0\0\0\x01Bud1", "a .DS_Store file of macOS"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file it stands for: run git lfs pull"),
    (b"%pdf", "a PDF"),
    (b"%PDF", "a PDF"),
    (b"\x7fELF", "a program"),
    (b"MZ\x90\0", "a Windows program"),
)
_BRANDS: Final[tuple[tuple[tuple[bytes, ...], str], ...]] = (
    ((b"mif1", b"msf1"), "a HEIF image"),
    ((b"crx ",), _RAW),
    ((b"jxl ",), "a JPEG XL image"),
    ((b"M4A ", b"M4B "), "an MPEG-4 sound"),
    ((b"qt  ",), "a QuickTime video (MOV)"),
)
_HEVC: Final = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs")
_RIFFS: Final = {b"WAVE": "a WAV sound", b"AVI ": "an AVI video"}
# What a decoder writes for bytes that are not UTF-8; and a JPEG or PNG that was read as Latin-1 and written as UTF-8.
_MANGLED: Final = (
    b"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd",
    b"\xc3\xbf\xc3\x98\xc3\xbf",
    b"\xef\xbf\xbdPNG",
    b"\xc2\x89PNG",
)
_FORM: Final = "a whole form (multipart/form-data) without its content type"
_TEXTS: Final[tuple[tuple[bytes, str], ...]] = (
    (b"<svg", "SVG or XML, not a raster image"),
    (b"<?xml", "SVG or XML, not a raster image"),
    (b"<!doctype", "an HTML page"),
    (b"<html", "an HTML page"),
    (b"<head", "an HTML page"),
    (b"http://", "the text of a URL: send the image's own bytes"),
    (b"https://", "the text of a URL: send the image's own bytes"),
    (b"file://", "the text of a URL: send the image's own bytes"),
    (b"[internetshortcut]", "a shortcut to a URL: send the image's own bytes"),
    (b"data:image", "base64 text: send the image's own bytes"),
    (b"/9j/", "base64 text: send the image's own bytes"),
    (b"ivborw0kggo", "base64 text: send the image's own bytes"),
    (b"r0lgod", "base64 text: send the image's own bytes"),
    (b"uklgr", "base64 text: send the image's own bytes"),
    (b"ffd8ff", "hexadecimal text: send the image's own bytes"),
    (b"89504e47", "hexadecimal text: send the image's own bytes"),
    (b"b'\\x", "the text of Python bytes: send the image's own bytes"),
    (b'b"\\x', "the text of Python bytes: send the image's own bytes"),
)
_PNM: Final = re.compile(rb"P[1-7Ff]\s")
_MULTIPART: Final = re.compile(rb"\s*--[^\r\n]{1,200}\r?\n[Cc]ontent-[DdTt]")
_TEXT: Final = re.compile(rb"[\t\n\f\r\x20-\x7e]+")


def recognise(head: bytes) -> ImageFormat | None:
    """Returns the format that the first bytes of a file announce, or None."""
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    # A text may begin with "BM" too. In a bitmap, the size of the header follows.
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in {12, 16, 40, 52, 56, 64, 108, 124}:
        return "BMP"
    if head.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return "TIFF"
    if head[4:8] == b"ftyp" and any(brand in _brands(head) for brand in (b"avif", b"avis")):
        return "AVIF"
    if head[4:8] == b"ftyp" and any(brand in _brands(head) for brand in _HEVC):
        return "HEIC"
    return None


def _brands(head: bytes) -> bytes:
    """Returns the brands that an ISO base media file lists in its first box."""
    return head[8 : max(int.from_bytes(head[:4], "big"), 12)]


def describe_unknown(head: bytes) -> str:
    """Says what the first bytes are instead of an image that is served."""
    named = _named(head)
    return "The bytes are not an image of any known format." if named is None else f"This is {named}."


def _named(head: bytes) -> str | None:
    if head[4:8] == b"ftyp":
        fitting = (what for names, what in _BRANDS if any(name in _brands(head) for name in names))
        what = next(fitting, "an MP4 video")
        return f"{what}, which is not served"
    if head[:4] == b"RIFF":
        return _RIFFS.get(head[8:12], "a RIFF file") + ", not an image"
    for signature, what in _SIGNATURES:
        if head.startswith(signature):
            return what if ":" in what else f"{what}, which is not served"
    if head[4:8] in {b"moov", b"mdat", b"wide", b"free", b"skip"}:
        return "a QuickTime video (MOV), which is not served"
    if _is_pcx(head):
        return "a PCX image, which is not served"
    if head[40:44] == b" EMF":
        return "a Windows metafile (EMF), which is not served"
    if head[128:132] == b"DICM":
        return "a DICOM file, which is not served"
    if head[257:262] == b"ustar":
        return "a tar archive, which is not served"
    if _is_tga(head):
        return "a TGA image, which is not served"
    if _PNM.match(head):
        return "a PNM image, which is not served"
    if any(mangled in head[:64] for mangled in _MANGLED):
        return "a binary file that was treated as text (UTF-8) on its way and is lost: send its bytes as they are"
    if any(head) is False:
        return "nothing but zeros"
    return _named_text(head)


def _named_text(head: bytes) -> str | None:
    if _MULTIPART.match(head):
        return _FORM
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for beginning, what in _TEXTS:
        if text.startswith(beginning):
            return what
    if text.startswith((b"{", b"[")):
        return "JSON by its look: send the image's own bytes"
    return "a text, not an image" if _TEXT.fullmatch(head) else None


def _is_pcx(head: bytes) -> bool:
    """Zsoft's byte 10, a version, run-length coding, and the bits of a sample."""
    return len(head) >= 66 and head[0] == 10 and head[1] in {0, 2, 3, 4, 5} and head[2] <= 1 and head[3] in {1, 2, 4, 8}


def _is_tga(head: bytes) -> bool:
    """TGA has no signature at its front: every field of its header has to make sense."""
    if len(head) < 18:
        return False
    has_map, kind, map_bits, pixel_bits = head[1], head[2], head[7], head[16]
    width, height = (int.from_bytes(head[at : at + 2], "little") for at in (12, 14))
    return (
        (has_map, kind) in {(1, 1), (1, 9), (0, 2), (0, 3), (0, 10), (0, 11)}
        and map_bits in ({15, 16, 24, 32} if has_map else {0})
        and pixel_bits in {8, 15, 16, 24, 32}
        and width > 0
        and height > 0
        and not head[17] & 0xC0
    )
