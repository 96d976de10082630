"""A manifest survives writing and reading, and what is wrong with one is told by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from app.errors import ArtifactError
from app.store.manifest import (
    MANIFEST_FILE,
    MODEL_FILE,
    FileEntry,
    GoldenExample,
    GoldenExamples,
    Manifest,
)
from tests.support.manifests import manifest


def test_a_manifest_survives_writing_and_reading() -> None:
    original = manifest(files={MODEL_FILE: FileEntry(sha256="ab" * 32, size_bytes=5)})
    assert Manifest.from_json(original.to_json(), origin="test") == original


def test_names_beyond_ascii_are_readable_in_the_file() -> None:
    assert "zwölf" in manifest().to_json()


def test_fields_of_later_releases_are_ignored() -> None:
    later = json.loads(manifest().to_json())
    later["carbon_footprint_g"] = 12
    later["architecture"]["inventor"] = "somebody"
    assert Manifest.from_json(json.dumps(later), origin="test") == manifest()


@pytest.mark.parametrize(
    "path",
    [("name",), ("class_names",), ("preprocessing", "image_size"), ("architecture", "name"), ("fidelity",)],
    ids=".".join,
)
def test_a_missing_field_is_named_with_the_file(tmp_path: Path, path: tuple[str, ...]) -> None:
    fields = json.loads(manifest().to_json())
    holder = fields
    for key in path[:-1]:
        holder = holder[key]
    del holder[path[-1]]
    (tmp_path / MANIFEST_FILE).write_text(json.dumps(fields), encoding="utf-8")
    with pytest.raises(ArtifactError) as caught:
        Manifest.read(tmp_path)
    assert ".".join(path) in caught.value.detail
    assert str(tmp_path / MANIFEST_FILE) in caught.value.detail


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"format_version": 3}, "format_version"),
        ({"version": 0}, "version"),
        ({"class_names": []}, "class_names"),
        ({"name": "../evil"}, "name"),
        ({"files": {MODEL_FILE: {"sha256": "ab", "size_bytes": 1}}}, "files.model.pt.sha256"),
        ({"files": {MODEL_FILE: {"sha256": "ab" * 32, "size_bytes": -1}}}, "files.model.pt.size_bytes"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_field_is_named(changes: dict[str, Any], named: str) -> None:
    text = json.dumps(json.loads(manifest().to_json()) | changes)
    with pytest.raises(ArtifactError, match=named):
        Manifest.from_json(text, origin="test")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b"[]", b'"text"'])
def test_what_is_no_manifest_is_an_artifact_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / MANIFEST_FILE).write_bytes(content)
    with pytest.raises(ArtifactError, match="is not a valid manifest"):
        Manifest.read(tmp_path)


def test_a_missing_manifest_is_an_artifact_error(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="cannot be read"):
        Manifest.read(tmp_path)


def test_golden_examples_survive_as_text() -> None:
    image = bytes(range(256)) * 10
    examples = GoldenExamples(
        examples=(GoldenExample.model_construct(image=image, probabilities=(0.1, 0.2, 0.7000000001)),)
    )
    reread = GoldenExamples.model_validate_json(examples.model_dump_json())
    assert reread.examples[0].image == image
    assert reread.examples[0].probabilities == (0.1, 0.2, 0.7000000001)
