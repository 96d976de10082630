"""What is damaged is refused; what has every pixel is mended, and told (docs/damaged-images.md)."""

from __future__ import annotations

import io
import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from app.errors import CorruptImageError, UnsupportedFormatError
from app.images.decode import decode
from tests.support.decoded_pixels import assert_pixels, decoded
from tests.support.images import Pixels, encode, png, png_chunk, with_jpeg_segment

JPEGS = [
    pytest.param({"quality": 90}, id="baseline"),
    pytest.param({"quality": 90, "progressive": True}, id="progressive"),
    pytest.param({"quality": 90, "restart_marker_blocks": 4}, id="restart-markers"),
    pytest.param({"quality": 90, "optimize": True, "subsampling": 0}, id="optimised"),
]
SIGNATURE_AND_HEADER = 33


def _with_chunk(encoded: bytes, kind: bytes, content: bytes, *, checksum: int | None = None) -> bytes:
    """Inserts a chunk behind a PNG's header; with this checksum instead of its own, if one is given."""
    chunk = png_chunk(kind, content)
    if checksum is not None:
        chunk = chunk[:-4] + struct.pack(">I", checksum)
    return encoded[:SIGNATURE_AND_HEADER] + chunk + encoded[SIGNATURE_AND_HEADER:]


def _chunk_at(encoded: bytes, kind: bytes) -> tuple[int, int]:
    """Returns where a chunk of a PNG begins and ends."""
    at = encoded.index(kind) - 4
    return at, at + 12 + int.from_bytes(encoded[at : at + 4], "big")


# JPEG ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", JPEGS)
def test_a_jpeg_without_its_end_marker_is_whole(small_cat: Pixels, options: dict[str, int]) -> None:
    # ImageMagick 6.9 (`convert no_eoi.jpg out.png`) gives the same pixels, with a warning.
    encoded = encode(small_cat, "JPEG", **options)
    assert encoded.endswith(b"\xff\xd9")
    for cut in (1, 2):
        pixels, adjustments = decoded(encoded[:-cut])
        assert_pixels(pixels, decoded(encoded)[0])
        assert adjustments == ("end_marker_added",)


@pytest.mark.parametrize("options", JPEGS)
def test_a_jpeg_that_lacks_pixels_is_refused_with_and_without_an_end_marker(
    cat: Pixels, options: dict[str, int]
) -> None:
    encoded = encode(cat, "JPEG", **options)
    for part in (0.3, 0.6, 0.9, 0.99):
        cut = encoded[: int(len(encoded) * part)]
        for whole in (cut, cut + b"\xff\xd9"):
            with pytest.raises(CorruptImageError, match=r"(?i)premature end|cut short"):
                decode(whole)
            with pytest.raises(CorruptImageError):
                decode(whole, min_shorter_side=16)


@pytest.mark.parametrize("filler", [b"\0", b"\xff\0", b"\x55", b"\xaa"], ids=lambda filler: filler.hex())
@pytest.mark.parametrize("options", JPEGS)
def test_a_jpeg_with_a_hole_is_refused(cat: Pixels, options: dict[str, int], filler: bytes) -> None:
    encoded = encode(cat, "JPEG", **options)
    first = len(encoded) // 3
    hole = (filler * len(encoded))[: len(encoded) - first - 2]
    with pytest.raises(CorruptImageError, match="JPEG"):
        decode(encoded[:first] + hole + b"\xff\xd9")


@pytest.mark.parametrize("scale", [1, 2, 4, 8])
@pytest.mark.parametrize("options", JPEGS)
def test_sound_jpegs_have_the_pixels_that_pillow_gives_them(cat: Pixels, options: dict[str, int], scale: int) -> None:
    for pixels in (cat[:131, :97], cat[:16, :250], cat[..., 0], cat):
        encoded = encode(np.ascontiguousarray(pixels), "JPEG", **options)
        image = decode(encoded, min_shorter_side=min(pixels.shape[:2]) // scale)
        with Image.open(io.BytesIO(encoded)) as reference:
            reference.draft(None, (reference.width // image.scale, reference.height // image.scale))
            assert_pixels(np.asarray(image.pixels), np.asarray(reference.convert("RGB")))
        assert image.scale in {scale, max(scale // 2, 1)}


def test_a_few_bytes_of_padding_are_passed_over_and_many_are_damage(small_cat: Pixels) -> None:
    encoded = encode(small_cat, "JPEG")
    pixels, adjustments = decoded(encoded[:-2] + b"\x12" * 10 + encoded[-2:])
    assert_pixels(pixels, decoded(encoded)[0])
    assert adjustments == ("extra_bytes_ignored",)
    with pytest.raises(CorruptImageError, match="extraneous bytes"):
        decode(encoded[:-2] + b"\x12" * 1000 + encoded[-2:])


def test_what_follows_a_jpeg_is_not_looked_at(small_cat: Pixels) -> None:
    encoded = encode(small_cat, "JPEG")
    assert decode(encoded + b"\0" * 1000 + encoded).adjustments == ()


def test_an_odd_jfif_version_is_no_damage(small_cat: Pixels) -> None:
    encoded = bytearray(encode(small_cat, "JPEG"))
    encoded[encoded.index(b"JFIF") + 5] = 9
    assert decode(bytes(encoded)).adjustments == ()


@pytest.mark.parametrize(
    ("marker", "bits", "bands", "words"),
    [
        pytest.param(0xC1, 12, 3, "12 bits", id="12-bit"),
        pytest.param(0xC3, 8, 3, "Lossless", id="lossless"),
        pytest.param(0xC9, 8, 3, "arithmetic", id="arithmetic"),
        pytest.param(0xCA, 8, 3, "arithmetic", id="arithmetic-progressive"),
        pytest.param(0xC0, 8, 2, "2 bands", id="two-bands"),
    ],
)
def test_jpegs_that_are_not_served_are_no_damage(
    small_cat: Pixels, marker: int, bits: int, bands: int, words: str
) -> None:
    encoded = bytearray(encode(small_cat, "JPEG"))
    at = encoded.index(b"\xff\xc0")
    encoded[at + 1], encoded[at + 4], encoded[at + 9] = marker, bits, bands
    with pytest.raises(UnsupportedFormatError, match=words):
        decode(bytes(encoded))


def test_many_exif_segments_cost_no_more_than_their_bytes(small_cat: Pixels) -> None:
    encoded = encode(small_cat, "JPEG")
    segment = with_jpeg_segment(b"", 0xE1, b"Exif\0\0" + b"x" * 2000)
    began = time.thread_time()
    assert decode(encoded[:2] + segment * 9000 + encoded[2:]).adjustments == ()
    assert time.thread_time() - began < 1  # Pillow, which joins them one by one, needed 37 s


# PNG ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [b"tEXt", b"zTXt", b"iTXt", b"tIME", b"pHYs", b"eXIf", b"prVt"])
def test_a_wrong_checksum_of_metadata_is_told(small_cat: Pixels, kind: bytes) -> None:
    # libpng: "CRC error" in an ancillary chunk is a warning; Chromium shows the picture.
    pixels, adjustments = decoded(_with_chunk(encode(small_cat, "PNG"), kind, b"a\0b", checksum=1))
    assert_pixels(pixels, small_cat)
    assert adjustments == ("metadata_ignored",)


@pytest.mark.parametrize("kind", [b"gAMA", b"cHRM", b"cICP"])
def test_a_wrong_checksum_of_colours_is_told(small_cat: Pixels, kind: bytes) -> None:
    pixels, adjustments = decoded(_with_chunk(encode(small_cat, "PNG"), kind, bytes(32), checksum=1))
    assert_pixels(pixels, small_cat)
    assert adjustments == ("metadata_ignored", "coded_colour_ignored")


@pytest.mark.parametrize("kind", [b"IHDR", b"PLTE", b"tRNS", b"IDAT"])
def test_a_wrong_checksum_of_what_pixels_need_is_refused(kind: bytes) -> None:
    encoded = bytearray(
        png([b"\0\1"], width=2, bit_depth=8, colour_type=3, before_pixels=[(b"PLTE", bytes(6)), (b"tRNS", b"\0\xff")])
    )
    assert decode(bytes(encoded)).format == "PNG"
    encoded[_chunk_at(bytes(encoded), kind)[1] - 1] ^= 1
    with pytest.raises(CorruptImageError, match="wrong checksum"):
        decode(bytes(encoded))


def test_changed_pixels_are_refused_even_if_they_inflate(small_cat: Pixels) -> None:
    encoded = bytearray(encode(small_cat, "PNG", compress_level=0))
    encoded[len(encoded) // 2] ^= 0x10
    with pytest.raises(CorruptImageError, match="IDAT"):
        decode(bytes(encoded))


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt"])
@pytest.mark.parametrize("count", [1, 3000])
def test_a_text_of_any_length_is_passed_over(small_cat: Pixels, kind: bytes, count: int) -> None:
    text = zlib.compress(b"x" * 2_000_000)
    content = b"Comment\0" + (b"\0" if kind == b"zTXt" else b"\1\0en\0Comment\0") + text
    encoded = encode(small_cat, "PNG")
    chunks = png_chunk(kind, content) * count
    pixels, adjustments = decoded(encoded[:SIGNATURE_AND_HEADER] + chunks + encoded[SIGNATURE_AND_HEADER:])
    assert_pixels(pixels, small_cat)
    assert adjustments == ("metadata_ignored",)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"icc\0\0" + zlib.compress(bytes(2_000_000)), id="2-MB"),
        pytest.param(b"icc\0\0" + zlib.compress(bytes(20_000_000)), id="20-MB"),
        pytest.param(b"icc\0\0" + zlib.compress(b"profile")[:-6], id="cut-short"),
        pytest.param(b"icc\0\0garbage", id="no-zlib"),
        pytest.param(b"", id="empty"),
    ],
)
def test_a_profile_that_cannot_be_used_is_told(small_cat: Pixels, content: bytes) -> None:
    pixels, adjustments = decoded(_with_chunk(encode(small_cat, "PNG"), b"iCCP", content))
    assert_pixels(pixels, small_cat)
    assert adjustments == ("icc_ignored",)


def test_thousands_of_profiles_cost_as_much_as_one(small_cat: Pixels) -> None:
    encoded = encode(small_cat, "PNG")
    chunks = png_chunk(b"iCCP", b"icc\0\0" + zlib.compress(bytes(1_000_000))) * 17_500
    assert decode(encoded[:SIGNATURE_AND_HEADER] + chunks + encoded[SIGNATURE_AND_HEADER:]).adjustments == (
        "icc_ignored",
    )


def test_a_png_that_stops_behind_its_pixels_is_whole(small_cat: Pixels) -> None:
    encoded = encode(small_cat, "PNG")
    end = _chunk_at(encoded, b"IDAT")[1]
    for length in range(end, len(encoded)):
        pixels, adjustments = decoded(encoded[:length])
        assert_pixels(pixels, small_cat)
        assert adjustments == ("end_marker_added",)
    for length in range(end - 8, end):
        with pytest.raises(CorruptImageError, match="cut short"):
            decode(encoded[:length])


def test_pixels_in_chunks_of_a_byte_are_put_together(small_cat: Pixels) -> None:
    encoded = encode(small_cat, "PNG")
    start, end = _chunk_at(encoded, b"IDAT")
    chunks = b"".join(png_chunk(b"IDAT", encoded[at : at + 1]) for at in range(start + 8, end - 4))
    assert_pixels(decoded(encoded[:start] + chunks + encoded[end:])[0], small_cat)


def test_a_png_of_endless_chunks_is_refused(small_cat: Pixels) -> None:
    encoded = encode(small_cat, "PNG")
    with pytest.raises(CorruptImageError, match="more than 100,000 chunks"):
        decode(encoded[:SIGNATURE_AND_HEADER] + png_chunk(b"prVt", b"") * 100_000 + encoded[SIGNATURE_AND_HEADER:])


def test_apples_own_variant_of_png_is_named(small_cat: Pixels) -> None:
    encoded = encode(small_cat, "PNG")
    with pytest.raises(UnsupportedFormatError, match="CgBI"):
        decode(encoded[:8] + png_chunk(b"CgBI", bytes(4)) + encoded[8:])


@pytest.mark.parametrize("kind", [b"ABCD", b"I\0AT", b"\xff\xff\xff\xff"])
def test_a_chunk_that_nobody_knows_and_everybody_must_is_refused(small_cat: Pixels, kind: bytes) -> None:
    with pytest.raises(CorruptImageError):
        decode(_with_chunk(encode(small_cat, "PNG"), kind, b""))


# Palettes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunks", [[], [(b"PLTE", b"")], [(b"PLTE", bytes(4))], [(b"PLTE", bytes(771))]], ids=len)
def test_a_png_without_a_usable_palette_is_refused(chunks: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(CorruptImageError, match="palette"):
        decode(png([b"\0\1"], width=2, bit_depth=8, colour_type=3, before_pixels=chunks))


def test_a_pixel_beyond_the_palette_of_a_png_is_refused() -> None:
    def of(colours: int) -> bytes:
        return png([b"\0\1\2"], width=3, bit_depth=8, colour_type=3, before_pixels=[(b"PLTE", bytes(3 * colours))])

    assert decode(of(3)).format == "PNG"
    with pytest.raises(CorruptImageError, match="colour 2 of a palette of 2"):
        decode(of(2))


def test_a_gif_without_a_palette_is_refused(small_cat: Pixels) -> None:
    encoded = encode(small_cat, "GIF")
    flags = encoded[10]
    assert flags & 0x80
    without = encoded[:10] + bytes([flags & 0x7F]) + encoded[11:13] + encoded[13 + (3 << (flags & 7) + 1) :]
    with pytest.raises(CorruptImageError, match="GIF image has no palette"):
        decode(without)


def test_a_pixel_beyond_the_palette_of_a_bitmap_is_refused(small_cat: Pixels) -> None:
    encoded = bytearray(encode(Image.fromarray(small_cat).quantize(256), "BMP"))
    encoded[46:50] = struct.pack("<I", 16)  # colours in the palette
    with pytest.raises(CorruptImageError, match="palette of 16"):
        decode(bytes(encoded))


# Animated PNGs ------------------------------------------------------------------------------------------------------


def _apng(hidden: Pixels, frame: Pixels, *, left: int = 0, top: int = 0, frames: int = 1) -> bytes:
    """Returns an animation whose default image is not part of it."""
    default, first = encode(hidden, "PNG"), encode(frame, "PNG")
    start, end = _chunk_at(default, b"IDAT")
    frame_start, frame_end = _chunk_at(first, b"IDAT")
    pixels = first[frame_start + 8 : frame_end - 4]
    height, width = frame.shape[:2]
    control = struct.pack(">5I2H2B", 0, width, height, left, top, 1, 10, 0, 0)
    half = len(pixels) // 2
    return b"".join(
        [
            default[:start],
            png_chunk(b"acTL", struct.pack(">II", frames, 0)),
            default[start:end],
            png_chunk(b"fcTL", control),
            png_chunk(b"fdAT", struct.pack(">I", 1) + pixels[:half]),
            png_chunk(b"fdAT", struct.pack(">I", 2) + pixels[half:]),
            default[end:],
        ]
    )


def test_an_animation_begins_with_its_first_frame(small_cat: Pixels) -> None:
    # Chromium shows the same.
    pixels, adjustments = decoded(_apng(255 - small_cat, small_cat))
    assert_pixels(pixels, small_cat)
    assert adjustments == ("first_frame",)


def test_a_first_frame_that_is_smaller_lies_on_white(small_cat: Pixels) -> None:
    frame = np.ascontiguousarray(small_cat[:20, :30])
    pixels, adjustments = decoded(_apng(255 - small_cat, frame, left=5, top=7))
    expected = np.full_like(small_cat, 255)
    expected[7:27, 5:35] = frame
    assert_pixels(pixels, expected)
    assert adjustments == ("alpha_on_white", "first_frame")


def test_a_frame_outside_of_the_image_leaves_the_default_one(small_cat: Pixels) -> None:
    pixels, _ = decoded(_apng(small_cat, 255 - small_cat, left=1))
    assert_pixels(pixels, small_cat)


@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_ccitt", "jpeg", "tiff_lzw", "lzma"])
def test_what_libtiff_calls_an_error_is_refused_in_its_words(
    cat: Pixels, capfd: pytest.CaptureFixture[str], compression: str
) -> None:
    """Of a fax or a JPEG Pillow makes a picture all the same, and libtiff would print a line for each of its lines."""
    bits = compression in {"group3", "group4", "tiff_ccitt"}
    sound = encode(Image.fromarray(cat).convert("1" if bits else "RGB"), "TIFF", compression=compression)
    decode(sound)
    middle = len(sound) // 2
    with pytest.raises(CorruptImageError, match=r"^The TIFF image is damaged: .+[^.]\.$"):
        decode(sound[:middle] + bytes(200) + sound[middle + 200 :])

    assert capfd.readouterr() == ("", "")


def test_what_libtiff_says_of_tags_refuses_no_sound_pixels(cat: Pixels) -> None:
    image = Image.fromarray(cat)
    odd_tag = TiffImagePlugin.ImageFileDirectory_v2()
    odd_tag[274], odd_tag.tagtype[274] = 1, 4  # the orientation as a number of another size
    assert decode(encode(image, "TIFF", compression="tiff_lzw", tiffinfo=odd_tag)).width == image.width
