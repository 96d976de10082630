"""Names stay different from each other when they are made printable, and are the same however accents are coded."""

from __future__ import annotations

import os
import unicodedata

import pytest

from app.images.clutter import is_clutter
from training.data.names import class_name, printable


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (b"photo 1.jpg", "photo 1.jpg"),
        ("日本語.jpg".encode(), "日本語.jpg"),
        (b"caf\xe9.jpg", "caf\\xe9.jpg"),
        (b"caf\\xe9.jpg", "caf\\\\xe9.jpg"),
        (b"a\nb", "a\\u000ab"),
        (b"\xc2\x85", "\\u0085"),
        (b"\x85", "\\x85"),
        ("a\u2028b".encode(), "a\\u2028b"),
        ("a\u3000b".encode(), "a\u3000b"),
    ],
)
def test_names_become_printable(name: bytes, expected: str) -> None:
    assert printable(os.fsdecode(name)) == expected
    expected.encode()


def test_different_names_stay_different() -> None:
    pieces = [bytes([number]) for number in range(1, 256)] + [b"\\x80", b"\\u0080", b"\\", b"\\\\", b"\xc2\x80"]
    names = {os.fsdecode(left + right) for left in pieces for right in pieces}
    assert len({printable(name) for name in names}) == len(names)


def test_accents_are_compared_in_one_form() -> None:
    assert class_name(unicodedata.normalize("NFD", "Größe")) == "Größe"


@pytest.mark.parametrize(
    "name",
    [".DS_Store", "._a.jpg", ".hidden", "Thumbs.db", "THUMBS.DB", "desktop.ini", "@eaDir", "__MACOSX", "#recycle",
     "@Recycle", ".AppleDouble", "$RECYCLE.BIN", "System Volume Information", "lost+found", "@SynoResource", "Icon\r",
     ".@__thumb", "~$letter.docx", "#snapshot", "ehthumbs.db", ".Trash-1000", ".Spotlight-V100"],
)  # fmt: skip
def test_what_systems_leave_is_clutter(name: str) -> None:
    assert is_clutter(name)


@pytest.mark.parametrize("name", ["cat.jpg", "@home", "#1.jpg", "thumbs", "recycle", "MACOSX", "~a.jpg", "desktop.png"])
def test_what_people_name_is_not(name: str) -> None:
    assert not is_clutter(name)
