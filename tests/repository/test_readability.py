"""What keeps the code findable is counted: small files, small folders, docstring entries that can be read alone."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
MAX_LINES = 330
MAX_FILES = 16
PACKAGES = ("app", "training", "benchmarks", "tests/support")
FILES = sorted(
    file for package in PACKAGES for file in (REPOSITORY / package).rglob("*.py") if "peers" not in file.parts
)
# An entry that begins so needs the line above to be understood.
LEANING = re.compile(r"(of|that|whose|likewise|those|as above|the same)\b", re.IGNORECASE)


def relative(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def leaning_entries(code: str) -> Iterator[str]:
    """Yields the entries of `Args` and `Attributes` that cannot be read alone."""
    for node in ast.walk(ast.parse(code)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        docstring = ast.get_docstring(node) or ""
        for section in re.findall(r"^(?:Args|Attributes):\n((?:    .*\n?|\n)+)", docstring, re.M):
            for name, text in re.findall(r"^    ([\w, *]+): (.+)", section, re.M):
                if LEANING.match(text):
                    yield f"{node.name}: {name}: {text}"


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_entry_of_a_docstring_can_be_read_alone(path: Path) -> None:
    assert list(leaning_entries(path.read_text(encoding="utf-8"))) == []


def test_entry_that_leans_on_the_line_above_is_found() -> None:
    entries = "size: of the image.\n        side: the side in pixels."
    code = f'def cut(size, side):\n    """Cuts.\n\n    Args:\n        {entries}\n    """\n'

    assert list(leaning_entries(code)) == ["cut: size: of the image."]


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_file_is_short_enough_to_be_read(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES


@pytest.mark.parametrize("folder", sorted({file.parent for file in FILES}), ids=relative)
def test_folder_is_small_enough_to_be_seen_at_once(folder: Path) -> None:
    assert len([file for file in folder.glob("*.py") if file.name != "__init__.py"]) <= MAX_FILES
