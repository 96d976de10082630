"""`image-predictor models`, `prune`, `pin` and `unpin` list, thin out and pin the versions in a store."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from app.__main__ import main
from app.store.manifest import MANIFEST_FILE, MODEL_FILE
from app.store.model_store import ModelStore
from app.store.signing import new_signing_key
from tests.support.colours import export_colours

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(store_root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command on the store; returns the exit status and what was printed."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("PREDICTOR_MODEL_STORE", str(store_root))

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["image-predictor", *arguments])
        status = 0
        try:
            main()
        except SystemExit as exit_:
            status = int(exit_.code or 0)
        return status, "".join(capsys.readouterr())

    return run


def test_models_lists_versions_and_tells_of_damage(run: Run, store_root: Path) -> None:
    export_colours(store_root)
    (store_root / "colours" / "1" / "manifest.json").write_text("{}")
    status, text = run("models")

    assert status == 0
    rows = [line.split() for line in text.splitlines() if "colours" in line]
    assert [row[3] for row in rows] == ["2", "1"]
    assert "mostly-colour" in text
    assert "is not a valid manifest" in text


def test_models_as_json_is_a_line_for_each_version(run: Run, store_root: Path) -> None:
    export_colours(store_root)
    run("pin", "colours", "2")
    (store_root / "colours" / "1" / "manifest.json").write_text("{}")
    status, text = run("models", "--json")

    assert status == 0
    newest, damaged = (json.loads(line) for line in text.splitlines())
    assert (newest["name"], newest["version"], newest["pinned"]) == ("colours", 2, True)
    assert newest["architecture"] == "mostly-colour"
    assert newest["class_count"] > 1
    files = store_root / "colours" / "2"
    assert newest["size_bytes"] == sum(path.stat().st_size for path in files.iterdir() if path.name != MANIFEST_FILE)
    assert (damaged["version"], damaged["pinned"]) == (1, False)
    assert "is not a valid manifest" in damaged["error"]


def test_prune_keeps_the_newest(run: Run, store_root: Path) -> None:
    for _ in range(3):
        export_colours(store_root)
    status, text = run("prune", "colours", "--keep", "2")

    assert status == 0
    assert "1, 2" in text
    assert ModelStore(store_root).versions("colours") == [3, 4]


def test_prune_never_counts_a_damaged_version(run: Run, store_root: Path) -> None:
    for _ in range(4):
        export_colours(store_root)
    model = store_root / "colours" / "5" / MODEL_FILE
    model.write_bytes(model.read_bytes()[:-1])
    (store_root / "colours" / "4" / MANIFEST_FILE).unlink()
    status, text = run("prune", "colours", "--keep", "1")

    assert status == 0
    assert "Deleted versions: 1, 2." in text
    assert re.search(r"Version 5 does not count, and is left .*model\.pt is not the file that was published", text)
    assert re.search(r"Version 4 does not count, and is left .*manifest\.json cannot be read", text)
    assert ModelStore(store_root).versions("colours") == [3, 4, 5]


def test_prune_deletes_damage_that_is_older_than_what_it_keeps(run: Run, store_root: Path) -> None:
    for _ in range(2):
        export_colours(store_root)
    (store_root / "colours" / "2" / MODEL_FILE).unlink()
    status, text = run("prune", "colours", "--keep", "1")

    assert (status, text) == (0, "Deleted versions: 1, 2.\n")


def test_prune_deletes_nothing_where_too_few_versions_are_whole(run: Run, store_root: Path) -> None:
    for _ in range(2):
        export_colours(store_root)
    (store_root / "colours" / "3" / MANIFEST_FILE).write_text("{}")
    text = run("prune", "colours", "--keep", "2")[1]

    assert "Deleted versions: none." in text
    assert ModelStore(store_root).versions("colours") == [1, 2, 3]


def test_prune_with_trusted_keys_counts_only_what_they_signed(run: Run, store_root: Path, tmp_path: Path) -> None:
    for _ in range(2):
        export_colours(store_root)
    (tmp_path / "trusted.pem").write_text(new_signing_key(tmp_path / "private.pem"))
    run("sign", "colours/2", "--private-key", str(tmp_path / "private.pem"))
    text = run("prune", "colours", "--keep", "1", "--trusted-keys", str(tmp_path / "trusted.pem"))[1]

    assert "Deleted versions: 1." in text
    assert re.search(r"Version 3 does not count, and is left .*is not signed", text)
    assert ModelStore(store_root).versions("colours") == [2, 3]


def test_prune_tells_that_the_pinned_version_is_damaged_and_keeps_it(run: Run, store_root: Path) -> None:
    for _ in range(2):
        export_colours(store_root)
    run("pin", "colours", "1")
    (store_root / "colours" / "1" / MODEL_FILE).unlink()
    text = run("prune", "colours", "--keep", "1")[1]

    assert "Deleted versions: 2." in text
    assert re.search(r"Version 1 does not count, and is left .*model\.pt cannot be read", text)
    assert ModelStore(store_root).versions("colours") == [1, 3]


def test_prune_of_a_store_that_cannot_be_written_says_so(
    run: Run, store_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_colours(store_root)

    def refuse(self: Path, target: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "rename", refuse)  # permissions do not stop root, as whom tests may run

    assert run("prune", "colours", "--keep", "1") == (
        2,
        f"{store_root / 'colours' / '1'} cannot be deleted: Permission denied.\n",
    )


def test_prune_refuses_what_makes_no_sense(run: Run, store_root: Path) -> None:
    assert run("prune", "nobody", "--keep", "1")[0] == 2
    assert run("prune", "colours", "--keep", "0")[0] == 2
    assert run("prune", "colours")[0] == 2
    assert ModelStore(store_root).versions("colours") == [1]


def test_empty_store_is_told(run: Run, tmp_path: Path) -> None:
    assert "no models" in run("models", "--model-store", str(tmp_path / "nothing"))[1]


def test_pin_is_shown_and_kept_and_taken_back(run: Run, store_root: Path) -> None:
    for _ in range(2):
        export_colours(store_root)

    assert run("pin", "colours", "1") == (0, "Model colours is pinned to version 1.\n")
    rows = [line.split() for line in run("models")[1].splitlines() if "colours" in line]
    assert [row[3:5] for row in rows][2] == ["1", "(pinned)"]
    assert "2" in run("prune", "colours", "--keep", "1")[1]
    assert ModelStore(store_root).versions("colours") == [1, 3]
    assert "version 3 is current" in run("unpin", "colours")[1]
    assert run("pin", "colours", "2")[0] == 2
