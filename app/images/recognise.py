"""Recognises an image's format by its first bytes, never by its name or declared type."""

from __future__ import annotations

from app.images.limits import ImageFormat


def recognise(head: bytes) -> ImageFormat | None:
    """Returns the format that the first 64 bytes of a file announce; None if they announce no known format."""
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
    if head[4:8] == b"ftyp" and (b"avif" in head[8:] or b"avis" in head[8:]):
        return "AVIF"
    return None


def describe_unknown(head: bytes) -> str:
    """Returns a sentence that says what bytes of no known format are, for what people send by mistake."""
    if head[4:8] == b"ftyp" and any(brand in head[8:] for brand in (b"heic", b"heix", b"mif1", b"hevc")):
        return "This is a HEIC image, which is not served."
    text = head.lstrip().lower()
    if text.startswith((b"<svg", b"<?xml")):
        return "This is SVG or XML, not a raster image."
    if text.startswith((b"<!doctype", b"<html")):
        return "This is an HTML page, not an image."
    if text.startswith(b"%pdf"):
        return "This is a PDF, not an image."
    if text.startswith((b"{", b"[")):
        return "This looks like JSON, not an image: send the image's own bytes."
    if text.startswith((b"/9j/", b"ivborw0kggo", b"data:image")):
        return "This looks like base64 text: send the image's own bytes."
    return "The bytes are not an image of any known format."
