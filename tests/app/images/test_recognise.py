"""A format is known by the file's first bytes, never by a name or a declared type."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import UnsupportedFormatError
from app.images.decode import decode
from app.images.limits import FORMATS, ImageFormat
from app.images.recognise import describe_unknown, recognise
from tests.support.file_structures import structures
from tests.support.images import Pixels


@pytest.mark.parametrize("image_format", FORMATS)
def test_every_format_is_recognised_by_its_first_64_bytes(small_cat: Pixels, image_format: ImageFormat) -> None:
    assert recognise(structures(small_cat)[image_format][:64]) == image_format


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        pytest.param(b"\xff\xd8\xff\xe1", "JPEG", id="JPEG-with-EXIF-first"),
        pytest.param(b"GIF87a", "GIF", id="GIF87a"),
        pytest.param(b"MM\0*\0\0\0\x08", "TIFF", id="TIFF-big-endian"),
        pytest.param(b"II+\0\x08\0\0\0", "TIFF", id="BigTIFF-little-endian"),
        pytest.param(b"MM\0+\0\x08\0\0", "TIFF", id="BigTIFF-big-endian"),
        pytest.param(b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf", "AVIF", id="AVIF-behind-a-general-brand"),
        pytest.param(b"\0\0\0\x1cftypavis\0\0\0\0avismsf1", "AVIF", id="AVIF-sequence"),
        pytest.param(b"BM" + bytes(12) + b"\x0c\0\0\0", "BMP", id="BMP-of-OS/2"),
        pytest.param(b"RIFF\x10\0\0\0WAVEfmt ", None, id="a-sound"),
        pytest.param(b"BMW 3 series, a text that begins like a bitmap", None, id="a-text-that-begins-with-BM"),
        pytest.param(b"\xff\xd8", None, id="half-a-JPEG-signature"),
        pytest.param(b"", None, id="nothing"),
    ],
)
def test_signatures(head: bytes, expected: str | None) -> None:
    assert recognise(head) == expected


NAMED = {
    "HEIF": (b"\0\0\0\x18ftypmif1\0\0\0\0mif1miaf", "HEIF"),
    "SVG": (b'<svg xmlns="http://www.w3.org/2000/svg">', "SVG"),
    "HTML": (b"\n<!DOCTYPE html><html>", "HTML"),
    "PDF": (b"%PDF-1.7", "PDF"),
    "JSON": (b'{"image": "..."}', "JSON"),
    "base64-JPEG": (b"/9j/4AAQSkZJRgABAQ", "base64"),
    "base64-PNG": (b"iVBORw0KGgoAAAANSUhEUg", "base64"),
    "data-URL": (b"data:image/png;base64,iVBORw0KGgo", "base64"),
    "unknown": (b"\x00\x01\x02\x03", "not an image of any known format"),
    "JPEG-XL": (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    "JPEG-XL-codestream": (b"\xff\x0a\xfa\x1f", "JPEG XL"),
    "JPEG-2000": (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    "JPEG-2000-codestream": (b"\xff\x4f\xff\x51\0", "JPEG 2000"),
    "JPEG-XR": (b"II\xbc\x01\x20\0\0\0", "JPEG XR"),
    "ICO": (b"\0\0\x01\0\x01\0\x20\x20", "ICO"),
    "ICNS": (b"icns\0\0\x10\0", "ICNS"),
    "PSD": (b"8BPS\0\x01", "Photoshop"),
    "XCF": (b"gimp xcf v011\0", "GIMP"),
    "PPM": (b"P6\n64 48\n255\n", "PNM"),
    "PFM": (b"PF\n64 48\n-1.0\n", "PNM"),
    "PAM": (b"P7\nWIDTH 64\n", "PNM"),
    "TGA": (bytes([0, 0, 2]) + bytes(9) + b"\x40\0\x30\0\x18\0" + bytes(20), "TGA"),
    "TGA-run-length": (bytes([0, 0, 10]) + bytes(9) + b"\x40\0\x30\0\x20\x28" + bytes(20), "TGA"),
    "HDR": (b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n", "Radiance HDR"),
    "EXR": (b"v/1\x01\x02\0\0\0", "OpenEXR"),
    "FITS": (b"SIMPLE  =                    T", "FITS"),
    "DDS": (b"DDS \x7c\0\0\0", "DDS"),
    "KTX": (b"\xabKTX 20\xbb\r\n\x1a\n", "KTX"),
    "PCX": (b"\x0a\x05\x01\x08" + bytes(80), "PCX"),
    "SGI": (b"\x01\xda\x01\x01\0\x03", "SGI"),
    "QOI": (b"qoif\0\0\0\x40", "QOI"),
    "WMF": (b"\xd7\xcd\xc6\x9a\0\0", "WMF"),
    "EMF": (b"\x01\0\0\0" + bytes(36) + b" EMF", "EMF"),
    "EPS": (b"%!PS-Adobe-3.0 EPSF-3.0", "EPS"),
    "EPS-with-preview": (b"\xc5\xd0\xd3\xc6\x20\0", "EPS"),
    "DICOM": (bytes(128) + b"DICM", "DICOM"),
    "MP4": (b"\0\0\0\x20ftypisom\0\0\x02\0isomiso2avc1mp41", "MP4"),
    "MOV": (b"\0\0\0\x14ftypqt  \0\0\0\0qt  ", "MOV"),
    "MOV-of-old": (b"\0\0\0\x08wide\0\0\0\0mdat", "MOV"),
    "CR3": (b"\0\0\0\x18ftypcrx \0\0\0\x01crx isom", "camera raw"),
    "RAF": (b"FUJIFILMCCD-RAW 0201", "camera raw"),
    "ORF": (b"IIRO\x08\0\0\0", "camera raw"),
    "RW2": (b"IIU\0\x18\0\0\0", "camera raw"),
    "X3F": (b"FOVb\0\0\x02\0", "camera raw"),
    "MRW": (b"\0MRM\0\x01", "camera raw"),
    "WebM": (b"\x1aE\xdf\xa3\x01", "WebM"),
    "AVI": (b"RIFF\x10\0\0\0AVI LIST", "AVI"),
    "WAV": (b"RIFF\x10\0\0\0WAVEfmt ", "WAV"),
    "ZIP": (b"PK\x03\x04\x14\0", "ZIP"),
    "gzip": (b"\x1f\x8b\x08\0", "gzip"),
    "RAR": (b"Rar!\x1a\x07\x01\0", "RAR"),
    "7z": (b"7z\xbc\xaf\x27\x1c\0\x04", "7z"),
    "zstd": (b"\x28\xb5\x2f\xfd\x04", "zstd"),
    "tar": (bytes(257) + b"ustar\x0000", "tar"),
    "npy": (b"\x93NUMPY\x01\0v\0{'descr': '|u1'", "NumPy"),
    "HDF5": (b"\x89HDF\r\n\x1a\n\0", "HDF5"),
    "pickle": (b"\x80\x04\x95\x10\0", "pickled"),
    "URL": (b"https://example.com/cat.jpg\n", "URL"),
    "Windows-shortcut": (b"[InternetShortcut]\r\nURL=https://example.com/", "URL"),
    "LFS-pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "git lfs pull"),
    "AppleDouble": (b"\0\x05\x16\x07\0\x02\0\0Mac OS X        ", "AppleDouble"),
    "DS_Store": (b"\0\0\0\x01Bud1\0\0\x10\0", "DS_Store"),
    "JPEG-replaced": ("\ufffd\ufffd\ufffd\ufffd\0\x10JFIF".encode(), "UTF-8"),
    "JPEG-Latin-1": (b"\xff\xd8\xff\xe0\0\x10JFIF".decode("latin-1").encode(), "UTF-8"),
    "PNG-replaced": ("\ufffdPNG\r\n\x1a\n".encode(), "UTF-8"),
    "PNG-Latin-1": (b"\x89PNG\r\n\x1a\n".decode("latin-1").encode(), "UTF-8"),
    "Python-bytes": (b"b'\\xff\\xd8\\xff\\xe0'", "Python bytes"),
    "hexadecimal": (b"ffd8ffe000104a464946", "hexadecimal"),
    "form": (b'--a1b2c3\r\nContent-Disposition: form-data; name="file"; filename="x.jpg"\r\n', "form"),
    "zeros": (bytes(512), "zeros"),
    "text": (b"Dear Sir or Madam,\r\nplease find attached", "text"),
}


@pytest.mark.parametrize(("head", "words"), NAMED.values(), ids=NAMED)
def test_what_is_sent_by_mistake_is_named(head: bytes, words: str) -> None:
    assert recognise(head) is None
    assert words in describe_unknown(head)
    with pytest.raises(UnsupportedFormatError, match="Send one of JPEG"):
        decode(head)


@given(st.binary(max_size=600))
@settings(max_examples=500)
def test_any_bytes_are_described(head: bytes) -> None:
    assert describe_unknown(head).endswith(".")
