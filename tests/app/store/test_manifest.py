"""The manifest's schema, and atomic publishing."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import stat
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from app.errors import ArtifactError
from app.store.manifest import (
    MANIFEST_FILE,
    MODEL_FILE,
    Architecture,
    Fidelity,
    FileEntry,
    GoldenExample,
    GoldenExamples,
    Manifest,
    Preprocessing,
    TrainingData,
)
from app.store.model_store import verify_files
from app.store.publishing import TEMPORARY_PREFIX, hash_file, publish, published_versions

REPOSITORY = Path(__file__).parents[3]


def manifest(name: str = "digits", version: int = 1, **changes: Any) -> Manifest:
    """Returns a complete manifest without files."""
    fields: dict[str, Any] = {
        "name": name,
        "version": version,
        "created_at": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        "class_names": ("zero", "eins", "zwölf"),
        "preprocessing": Preprocessing(resize_size=32, image_size=28, mean=(0.1,), std=(0.3,), temperature=1.5),
        "architecture": Architecture(name="tiny-net", parameter_count=1234),
        "training_data": TrainingData(name="digits", licence="CC-BY-4.0", image_count=1797),
        "metrics": {"test_accuracy": 0.987654321},
        "seeds": {"split": 7},
        "library_versions": {"torch": "2.14.1"},
        "fidelity": Fidelity(golden_count=3, max_abs_deviation=1e-7),
    }
    return Manifest(**fields | changes)


def write_files(folder: Path, version: int) -> Manifest:
    """Writes a stand-in for a model, as a publisher would."""
    (folder / MODEL_FILE).write_bytes(b"weights of version %d" % version)
    (folder / "model.onnx").write_bytes(b"twin")
    return manifest(version=version)


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
        ({"format_version": 2}, "format_version"),
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


def test_publishing_gives_the_next_version_with_hashes_of_every_file(tmp_path: Path) -> None:
    first, second = (publish(tmp_path, "digits", write_files) for _ in range(2))
    assert (first, second) == (tmp_path / "digits" / "1", tmp_path / "digits" / "2")
    published = Manifest.read(second)
    assert published.version == 2
    assert published.files.keys() == {MODEL_FILE, "model.onnx"}
    assert published.files[MODEL_FILE] == hash_file(second / MODEL_FILE)
    verify_files(second, published)
    assert published.model_copy(update={"files": {}}) == manifest(version=2)


def test_versions_are_compared_as_numbers(tmp_path: Path) -> None:
    for name in ("9", "10", "2", "007", "0", "-1", "1.5", "latest", TEMPORARY_PREFIX + "x"):
        (tmp_path / "digits" / name).mkdir(parents=True)
    (tmp_path / "digits" / "11").write_text("a file, not a version")
    assert published_versions(tmp_path / "digits") == [2, 9, 10]
    assert published_versions(tmp_path / "none") == []


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_a_failing_publisher_leaves_nothing(tmp_path: Path, failure: type[BaseException]) -> None:
    def write(folder: Path, version: int) -> Manifest:
        write_files(folder, version)
        raise failure

    publish(tmp_path, "digits", write_files)
    with pytest.raises(failure):
        publish(tmp_path, "digits", write)
    assert [path.name for path in (tmp_path / "digits").iterdir()] == ["1"]
    assert publish(tmp_path, "digits", write_files).name == "2"


_PUBLISH_AND_WAIT = """
import sys
from pathlib import Path
from app.store.publishing import publish

def write(folder, version):
    (folder / "model.pt").write_bytes(b"half of it")
    print(folder.name, flush=True)
    sys.stdin.read()

publish(Path(sys.argv[1]), "digits", write)
"""


@pytest.mark.slow
def test_a_killed_publisher_leaves_nothing_to_see_and_the_next_one_cleans_up(tmp_path: Path) -> None:
    publish(tmp_path, "digits", write_files)
    with subprocess.Popen(
        [sys.executable, "-c", _PUBLISH_AND_WAIT, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
    ) as publisher:
        assert publisher.stdout
        leftover = publisher.stdout.readline().strip()
        publisher.send_signal(signal.SIGKILL)
        publisher.wait()
    assert (tmp_path / "digits" / leftover / MODEL_FILE).exists()
    assert published_versions(tmp_path / "digits") == [1]
    assert publish(tmp_path, "digits", write_files).name == "2"
    assert sorted(path.name for path in (tmp_path / "digits").iterdir()) == ["1", "2"]


def _publish_many(store_root: Path, count: int) -> None:
    for _ in range(count):
        publish(store_root, "digits", write_files)


@pytest.mark.slow
def test_publishers_at_once_get_different_versions_and_readers_see_only_whole_ones(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    publishers = [context.Process(target=_publish_many, args=(tmp_path, 20)) for _ in range(2)]
    for publisher in publishers:
        publisher.start()
    seen: set[int] = set()
    while any(publisher.is_alive() for publisher in publishers):
        for version in published_versions(tmp_path / "digits"):
            folder = tmp_path / "digits" / str(version)
            verify_files(folder, Manifest.read(folder))
            seen.add(version)
    for publisher in publishers:
        publisher.join()
    assert [publisher.exitcode for publisher in publishers] == [0, 0]
    assert published_versions(tmp_path / "digits") == list(range(1, 41))
    assert len(seen) > 1, "the reader was never there in time"


def test_a_reader_on_another_thread_never_sees_half_a_version(tmp_path: Path) -> None:
    publish(tmp_path, "digits", write_files)
    at_half, go_on = threading.Event(), threading.Event()

    def write(folder: Path, version: int) -> Manifest:
        (folder / MODEL_FILE).write_bytes(b"half")
        at_half.set()
        assert go_on.wait(30)
        return write_files(folder, version)

    publisher = threading.Thread(target=publish, args=(tmp_path, "digits", write))
    publisher.start()
    assert at_half.wait(30)
    assert published_versions(tmp_path / "digits") == [1]
    go_on.set()
    publisher.join()
    assert published_versions(tmp_path / "digits") == [1, 2]


def test_other_users_can_read_what_was_published(tmp_path: Path) -> None:
    (tmp_path / "digits").mkdir()
    previous = os.umask(0o077)
    try:
        folder = publish(tmp_path, "digits", write_files)
    finally:
        os.umask(previous)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o644}


@pytest.mark.parametrize("name", ["", "..", "../evil", "a/b", ".hidden", "Cats", "kätzchen", "a" * 65, "cats\n", "-x"])
def test_a_name_that_is_no_models_is_refused_before_anything_is_written(tmp_path: Path, name: str) -> None:
    store_root = tmp_path / "store"
    with pytest.raises(ValueError, match="is no name for a model"):
        publish(store_root, name, write_files)
    assert not store_root.exists()
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_cannot_be_made_is_an_os_error(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file")
    with pytest.raises(OSError, match="store"):
        publish(tmp_path / "store", "digits", write_files)
