"""The model store lists, resolves, verifies and prunes versions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from app.errors import ArtifactError, UnknownModelError
from app.store.manifest import MODEL_FILE, FileEntry, Manifest
from app.store.model_store import PIN_FILE, ModelStore, verify_files
from app.store.publishing import hash_file, publish
from tests.support.manifests import manifest, write_files


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    """A store with `digits` 1 to 3 and `cats` 1."""
    for name in ("digits", "cats", "digits", "digits"):
        publish(tmp_path, name, write_files)
    return ModelStore(tmp_path)


def test_names_and_versions_are_listed(store: ModelStore) -> None:
    (store.root / "empty").mkdir()
    (store.root / "README.md").write_text("the contract")
    (store.root / "Not A Model" / "1").mkdir(parents=True)
    assert store.names() == ["cats", "digits"]
    assert store.versions("digits") == [1, 2, 3]
    assert store.versions("empty") == []


def test_a_store_that_does_not_exist_is_empty(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "none")
    assert store.names() == []
    with pytest.raises(UnknownModelError, match="Published there: none"):
        store.resolve("digits")


def test_the_highest_version_is_current_unless_one_is_asked_for(store: ModelStore) -> None:
    assert store.resolve("digits") == store.root / "digits" / "3"
    assert store.resolve("digits", 2) == store.root / "digits" / "2"
    (store.root / "digits" / "10").mkdir()
    assert store.resolve("digits").name == "10"


def test_the_error_for_an_unknown_model_names_those_there_are(store: ModelStore) -> None:
    with pytest.raises(UnknownModelError, match=r"No model 'dogs'.*cats, digits"):
        store.resolve("dogs")
    with pytest.raises(UnknownModelError, match=r"no version 4\. Published versions: 1, 2, 3"):
        store.resolve("digits", 4)


@pytest.mark.parametrize("name", ["..", ".", "", "../digits", "digits/1", "/etc", "digits/../cats", "digits\n", "a\0b"])
def test_no_name_leads_out_of_the_store(store: ModelStore, name: str) -> None:
    inner = ModelStore(store.root / "digits")
    for each in (store, inner):
        assert each.versions(name) == []
        with pytest.raises(UnknownModelError):
            each.resolve(name)
        assert each.prune(name, keep=1).deleted == ()


@pytest.mark.parametrize("version", [0, -1, 10**12])
def test_impossible_versions_are_unknown(store: ModelStore, version: int) -> None:
    with pytest.raises(UnknownModelError):
        store.resolve("digits", version)


def test_pruning_keeps_the_highest_versions(store: ModelStore) -> None:
    assert store.prune("digits", keep=2).deleted == (1,)
    assert store.versions("digits") == [2, 3]
    assert store.prune("digits", keep=1).deleted == (2,)
    assert store.prune("digits", keep=1).deleted == ()
    assert store.prune("dogs", keep=1).deleted == ()
    assert [path.name for path in (store.root / "digits").iterdir()] == ["3"]
    assert store.versions("cats") == [1]


def test_a_version_number_is_not_given_twice_after_pruning(store: ModelStore) -> None:
    store.prune("digits", keep=1)
    assert publish(store.root, "digits", write_files).name == "4"


def test_the_current_version_cannot_be_pruned(store: ModelStore) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        store.prune("digits", keep=0)
    assert store.versions("digits") == [1, 2, 3]


def test_files_as_published_are_verified(store: ModelStore) -> None:
    folder = store.resolve("digits")
    verify_files(folder, Manifest.read(folder))


def test_a_changed_byte_is_found_and_the_file_named(store: ModelStore) -> None:
    folder = store.resolve("digits")
    content = bytearray((folder / MODEL_FILE).read_bytes())
    content[3] ^= 1
    (folder / MODEL_FILE).write_bytes(content)
    with pytest.raises(ArtifactError, match=r"model\.pt is not the file that was published"):
        verify_files(folder, Manifest.read(folder))


def test_a_file_cut_short_is_found(store: ModelStore) -> None:
    folder = store.resolve("digits")
    (folder / "model.onnx").write_bytes(b"twi")
    with pytest.raises(ArtifactError, match=r"model\.onnx .* has 3 bytes .* says 4"):
        verify_files(folder, Manifest.read(folder))


def test_a_size_that_is_not_the_files_is_found(store: ModelStore) -> None:
    folder = store.resolve("digits")
    entry = hash_file(folder / MODEL_FILE)
    wrong = manifest(files={MODEL_FILE: FileEntry(sha256=entry.sha256, size_bytes=entry.size_bytes + 1)})
    with pytest.raises(ArtifactError, match="not the file that was published"):
        verify_files(folder, wrong)


def test_a_missing_file_is_found(store: ModelStore) -> None:
    folder = store.resolve("digits")
    (folder / MODEL_FILE).unlink()
    with pytest.raises(ArtifactError, match=r"model\.pt cannot be read: No such file"):
        verify_files(folder, Manifest.read(folder))


@pytest.mark.parametrize("file_name", ["../../cats/1/model.pt", "/etc/hostname", "a/b", "..", ".", "", "a\0b", "a\\b"])
def test_a_file_name_that_leads_elsewhere_is_refused(store: ModelStore, file_name: str) -> None:
    entry = hash_file(store.resolve("cats") / MODEL_FILE).model_dump()
    text = json.dumps(json.loads(manifest().to_json()) | {"files": {file_name: entry}})
    with pytest.raises(ArtifactError, match="not a plain file name"):
        Manifest.from_json(text, origin="manifest.json")


def test_a_manifest_without_files_verifies_nothing_and_says_so(store: ModelStore) -> None:
    with pytest.raises(ArtifactError, match="lists no files"):
        verify_files(store.resolve("digits"), manifest())


def test_pinned_version_is_current_until_it_is_unpinned(store: ModelStore) -> None:
    store.pin("digits", 1)
    assert store.resolve("digits").name == "1"
    assert store.preferred_versions("digits") == [1]

    store.unpin("digits")
    store.unpin("digits")
    assert store.resolve("digits").name == str(store.versions("digits")[-1])
    assert store.preferred_versions("digits") == store.versions("digits")[::-1]


def test_only_a_published_version_can_be_pinned(store: ModelStore) -> None:
    with pytest.raises(UnknownModelError, match="has no version 999"):
        store.pin("digits", 999)
    with pytest.raises(UnknownModelError, match="No model 'nobody'"):
        store.unpin("nobody")
    assert store.pinned("digits") is None


def test_damaged_pin_is_never_guessed_at(store: ModelStore) -> None:
    (store.root / "digits" / PIN_FILE).write_text("three")
    with pytest.raises(ArtifactError, match="not a version"):
        store.resolve("digits")
    with pytest.raises(ArtifactError, match="not a version"):
        store.prune("digits", keep=1)


def test_prune_keeps_the_pinned_version(store: ModelStore) -> None:
    oldest, *_, newest = store.versions("digits")
    store.pin("digits", oldest)
    store.prune("digits", keep=1)
    assert store.versions("digits") == [oldest, newest]
