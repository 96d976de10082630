"""File and class names: made comparable between systems, and printable whatever bytes they hold.

name of a file, as the system gives it -> composed, printable -> class names, split.json, predictions, report, logs
"""

from __future__ import annotations

import unicodedata

_UNPRINTABLE = ("Cc", "Cs", "Zl", "Zp")  # control characters, bytes that are no UTF-8, ends of lines and paragraphs


def composed(name: str) -> str:
    """Returns a name in Unicode's composed form (NFC). macOS stores an accent apart from its letter, Linux does not."""
    return unicodedata.normalize("NFC", name)


def printable(name: str) -> str:
    r"""Returns a name that can be printed and written as UTF-8; different names stay different.

    A byte that is no UTF-8 becomes `\xe9`, a control character `\u000a`, a backslash two.
    """
    if name.isprintable() and "\\" not in name:
        return name
    return "".join(map(_escape, name))


def class_name(folder_name: str) -> str:
    """Returns the name of the class whose images lie in a folder of this name."""
    return printable(composed(folder_name))


def _escape(character: str) -> str:
    if character == "\\":
        return "\\\\"
    if unicodedata.category(character) not in _UNPRINTABLE:
        return character
    if 0xDC80 <= ord(character) <= 0xDCFF:  # how Python writes the byte 0x80 to 0xFF (PEP 383)
        return f"\\x{ord(character) - 0xDC00:02x}"
    return f"\\u{ord(character):04x}"
