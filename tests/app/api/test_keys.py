"""API keys are made, written to a file, found in it, and changed while the service runs."""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path

import pytest

from app.__main__ import main
from app.api.keys import KeyFileError, KeyRing, new_key, parse_keys


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The clock that key rings look at: its only element."""
    clock = [100.0]
    monkeypatch.setattr("app.api.keys.time.monotonic", lambda: clock[0])
    return clock


def test_new_keys_are_long_random_and_known_by_their_hash_alone() -> None:
    key, line = new_key("shop")
    other, _ = new_key("shop")

    assert key != other
    assert len(key) == len("ipk_") + 43  # 256 bits in base64
    assert line == f"shop:{hashlib.sha256(key.encode()).hexdigest()}"


def test_ring_finds_each_key_by_its_name_and_no_other(tmp_path: Path) -> None:
    (shop, shop_line), (app, app_line) = new_key("shop"), new_key("app", "metrics")
    file = tmp_path / "keys"
    file.write_text(f"# clients\n\n{shop_line}  # since May\n{app_line}\n")
    _, listed_line = listed = new_key("listed")
    ring = KeyRing(file, f"{listed_line},")

    found = [ring.find(key) for key in (shop, app, listed[0])]
    assert [key and (key.name, key.role) for key in found] == [("shop", ""), ("app", "metrics"), ("listed", "")]
    for wrong in ("", shop[:-1], shop + "x", shop_line.partition(":")[2], "shop", "caf\u00e9", "\udcff"):
        assert ring.find(wrong) is None


def test_keys_change_without_a_restart(tmp_path: Path, seconds: list[float]) -> None:
    (old, old_line), (new, new_line) = new_key("shop"), new_key("shop")
    file = tmp_path / "keys"
    file.write_text(old_line)
    ring = KeyRing(file)
    file.write_text(f"{old_line}\n{new_line}\n")

    assert ring.find(new) is None  # looked at once a second, not for every request
    seconds[0] += 1
    assert ring.find(old)
    assert ring.find(new)

    replacement = tmp_path / "replacement"
    replacement.write_text(new_line)
    replacement.replace(file)
    seconds[0] += 1
    assert ring.find(old) is None
    assert ring.find(new)


@pytest.mark.parametrize("damage", ["", "shop:123\n", "gone", b"\xff\xfe\xfd"])
def test_damaged_file_leaves_the_last_good_keys_and_is_told_once(
    tmp_path: Path, seconds: list[float], damage: str | bytes, caplog: pytest.LogCaptureFixture
) -> None:
    key, line = new_key("shop")
    file = tmp_path / "keys"
    file.write_text(line)
    ring = KeyRing(file)
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(damage.encode() if isinstance(damage, str) else damage)

    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            seconds[0] += 1
            assert ring.find(key)
    assert len(caplog.records) == 1
    assert str(file) in caplog.text

    other, other_line = new_key("other")
    file.write_text(other_line)
    seconds[0] += 1
    assert ring.find(other)
    assert not ring.find(key)


def test_key_put_where_its_hash_belongs_is_refused_and_not_repeated() -> None:
    key, _ = new_key("shop")
    with pytest.raises(KeyFileError, match="line 2") as error:
        parse_keys(f"# clients\nshop:{key}", origin="keys")

    assert key not in error.value.detail


@pytest.mark.parametrize("text", ["", "# nothing\n", "shop", f":{'0' * 64}", f"shop:{'0' * 63}", f"a b:{'0' * 64}",
                                  f"shop:{'0' * 64}:root"])  # fmt: skip
def test_text_without_good_keys_is_refused(text: str) -> None:
    with pytest.raises(KeyFileError, match="new-key"):
        parse_keys(text, origin="keys")


def _run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr("sys.argv", ["image-predictor", *arguments])
    main()


def test_command_shows_a_key_and_its_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    _run(monkeypatch, "new-key", "shop", "--metrics")
    key, line = (text.split()[-1] for text in capsys.readouterr().out.splitlines())

    found = KeyRing(None, line).find(key)
    assert found
    assert (found.name, found.role) == ("shop", "metrics")


def test_command_appends_to_a_file_that_ends_without_a_newline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first, line = new_key("first")
    file = tmp_path / "keys"
    file.write_text(line)
    _run(monkeypatch, "new-key", "second", "--append", str(file))
    second = capsys.readouterr().out.strip()

    ring = KeyRing(file)
    assert ring.find(first)
    assert ring.find(second)


@pytest.mark.parametrize("arguments", [["no name"], ["x", "--append", f"{os.sep}nowhere{os.sep}keys"]])
def test_command_that_cannot_says_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        _run(monkeypatch, "new-key", *arguments)

    assert exit_info.value.code == 2
    assert arguments[-1] in capsys.readouterr().err
