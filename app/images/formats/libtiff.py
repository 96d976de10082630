"""Hears what libtiff says of pixels: it tells damage in words, goes on, and prints the words.

all compressions: Pillow decodes -> an error of libtiff's -> CorruptImageError in its words
faxes, JPEG, PackBits: libtiff decodes once more, by itself -> a warning too -> CorruptImageError

Pillow passes over these messages, and switches warnings off. A fax with lines that cannot be decoded, or that ends
early, comes out as a picture, and leaves tens of thousands of lines in the log of the service. Where Pillow brings no
libtiff of its own, or an old one, all stays as it is.

Source: https://libtiff.gitlab.io/libtiff/functions/TIFFOpenOptions.html
"""

from __future__ import annotations

import ctypes
import importlib
import io
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import PIL

from app.errors import CorruptImageError

_MAX_TEXT: Final = 300
_HEADER_BYTES: Final = 16
# Functions whose errors are about tags. If libtiff decodes the pixels in spite of them, they are sound.
_OF_TAGS: Final = ("TIFFFetch", "TIFFReadDir", "TIFFVSetField", "_TIFFVSetField", "TIFFSetField")
# Codecs whose warnings mean that pixels are missing or wrong. Other functions warn of tags that they do not know.
_WARN_OF_DAMAGE: Final = ("Fax", "JPEG", "OJPEG", "PackBits")
_WARNING_COMPRESSIONS: Final = {2, 3, 4, 6, 7, 32771, 32773}  # faxes, JPEG, PackBits

_POINTER: Final = ctypes.c_void_p
_HANDLER: Final = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_char_p, _POINTER)
_OWN_HANDLER: Final = ctypes.CFUNCTYPE(ctypes.c_int, _POINTER, _POINTER, ctypes.c_char_p, ctypes.c_char_p, _POINTER)
_TRANSFER: Final = ctypes.CFUNCTYPE(ctypes.c_ssize_t, _POINTER, _POINTER, ctypes.c_ssize_t)
_SEEK: Final = ctypes.CFUNCTYPE(ctypes.c_uint64, _POINTER, ctypes.c_uint64, ctypes.c_int)
_CLOSE: Final = ctypes.CFUNCTYPE(ctypes.c_int, _POINTER)
_SIZE: Final = ctypes.CFUNCTYPE(ctypes.c_uint64, _POINTER)
_MAP: Final = ctypes.CFUNCTYPE(ctypes.c_int, _POINTER, ctypes.POINTER(_POINTER), ctypes.POINTER(ctypes.c_uint64))
_UNMAP: Final = ctypes.CFUNCTYPE(None, _POINTER, _POINTER, ctypes.c_uint64)

_thread = threading.local()


@contextmanager
def damage_told() -> Iterator[None]:
    """Raises what libtiff says of an image's pixels while Pillow decodes them in the block, in this thread.

    Raises:
        CorruptImageError: libtiff has called the pixels damaged, whether or not Pillow has given up.
    """
    _thread.damage = ""
    try:
        yield
    except Exception as error:
        if not _thread.damage:
            raise
        raise _corrupt(_thread.damage) from error
    finally:
        damage, _thread.damage = _thread.damage, None
    if damage:
        raise _corrupt(damage)


def check_pixels(file: bytes | bytearray | memoryview, directory: int, compression: int) -> None:
    """Decodes the pixels of a TIFF and throws them away, if libtiff only warns of damage in their compression.

    Args:
        file: the whole file.
        directory: where the page's directory begins in the file, in bytes.
        compression: the page's compression, as the tag 259 says.

    Raises:
        CorruptImageError: libtiff has called the pixels damaged.
    """
    if _libtiff is None or compression not in _WARNING_COMPRESSIONS or not hasattr(_libtiff, "TIFFClientOpenExt"):
        return
    content = np.frombuffer(file, np.uint8)
    damage: list[str] = []

    def hear(_file: Any, _user: Any, module: bytes | None, template: bytes, arguments: int | None) -> int:
        if not damage and not _name(module).startswith(_OF_TAGS):
            damage.append(_text(template, arguments))
        return 1  # nobody else needs to hear it

    def hear_warning(_file: Any, _user: Any, module: bytes | None, template: bytes, arguments: int | None) -> int:
        if not damage and _name(module).startswith(_WARN_OF_DAMAGE):
            damage.append(_text(template, arguments))
        return 1

    def give(_handle: Any, base: Any, size: Any) -> int:
        base[0], size[0] = content.ctypes.data, content.nbytes
        return 1

    on_error, on_warning = _OWN_HANDLER(hear), _OWN_HANDLER(hear_warning)
    # The header is read. Everything else is looked at where the file lies in memory.
    header = io.BytesIO(content[:_HEADER_BYTES].tobytes())

    def read(_handle: Any, target: Any, length: int) -> int:
        found = header.read(length)
        ctypes.memmove(target, found, len(found))
        return len(found)

    access = (
        _TRANSFER(read), _TRANSFER(lambda *_: -1), _SEEK(lambda _, position, whence: header.seek(position, whence)),
        _CLOSE(lambda _: 0), _SIZE(lambda _: content.nbytes), _MAP(give), _UNMAP(lambda *_: None),
    )  # fmt: skip
    options = _POINTER(_libtiff.TIFFOpenOptionsAlloc())
    _libtiff.TIFFOpenOptionsSetErrorHandlerExtR(options, on_error, None)
    _libtiff.TIFFOpenOptionsSetWarningHandlerExtR(options, on_warning, None)
    opened = _POINTER(_libtiff.TIFFClientOpenExt(b"file", b"r", None, *access, options))
    _libtiff.TIFFOpenOptionsFree(options)
    if not opened:  # Pillow will say why
        return
    try:
        if _libtiff.TIFFSetSubDirectory(opened, ctypes.c_uint64(directory)):
            _read_all(opened, damage)
    finally:
        _libtiff.TIFFClose(opened)
    if damage:
        raise _corrupt(damage[0])


def _read_all(opened: ctypes.c_void_p, damage: list[str]) -> None:
    """Decodes all strips or tiles, one behind the other into the same memory, until one is damaged."""
    name = "Tile" if _libtiff.TIFFIsTiled(opened) else "Strip"
    size = getattr(_libtiff, f"TIFF{name}Size64")(opened)
    read = getattr(_libtiff, f"TIFFReadEncoded{name}")
    pixels = ctypes.create_string_buffer(size)
    for number in range(getattr(_libtiff, f"TIFFNumberOf{name}s")(opened)):
        if read(opened, number, pixels, size) < 0 or damage:
            return


def _corrupt(damage: str) -> CorruptImageError:
    return CorruptImageError(f"The TIFF image is damaged: {damage.rstrip('. ')}.")


def _on_error(module: bytes | None, template: bytes, arguments: int | None) -> None:
    if getattr(_thread, "damage", None) == "" and not _name(module).startswith(_OF_TAGS):
        _thread.damage = _text(template, arguments)


def _name(module: bytes | None) -> str:
    return (module or b"").decode(errors="replace")


def _text(template: bytes, arguments: int | None) -> str:
    text = ctypes.create_string_buffer(_MAX_TEXT)
    _vsnprintf(text, _MAX_TEXT, template, arguments)
    return text.value.decode(errors="replace") or "libtiff does not say how"


def _loaded_libtiff() -> ctypes.CDLL | None:
    """Returns the libtiff that Pillow's wheel brings and has loaded; None if Pillow has another one."""
    importlib.import_module("PIL._imaging")  # which loads it
    package = Path(PIL.__file__).parent
    for folder in (package.parent / "pillow.libs", package / ".dylibs"):
        for path in folder.glob("libtiff*"):
            return ctypes.CDLL(str(path))
    return None


# Python knows no parameters of C's type `va_list`. On these systems it is passed as an address.
_libtiff: Final[Any] = _loaded_libtiff() if sys.platform in {"linux", "darwin"} else None
if _libtiff is not None:
    _vsnprintf = ctypes.CDLL(None).vsnprintf
    _vsnprintf.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, _POINTER]
    for _function in ("TIFFOpenOptionsAlloc", "TIFFClientOpenExt"):
        if hasattr(_libtiff, _function):
            getattr(_libtiff, _function).restype = _POINTER
    for _function in ("TIFFStripSize64", "TIFFTileSize64"):
        getattr(_libtiff, _function).restype = ctypes.c_uint64
    for _function in ("TIFFReadEncodedStrip", "TIFFReadEncodedTile"):
        getattr(_libtiff, _function).restype = ctypes.c_ssize_t
        getattr(_libtiff, _function).argtypes = [_POINTER, ctypes.c_uint32, _POINTER, ctypes.c_ssize_t]
    _KEPT: Final = _HANDLER(_on_error)
    _libtiff.TIFFSetErrorHandler(_KEPT)
