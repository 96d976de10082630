"""Settings come from flags, else from the environment, else from their defaults, and are checked at start."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from app.__main__ import main
from app.settings import Settings
from app.system.cores import usable_cores
from app.system.environment import tell_ignored_variables


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Runs the command line in this process; returns the exit status and what was printed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["image-predictor", *arguments])
        with pytest.raises(SystemExit) as exit_info:
            main()
    captured = capsys.readouterr()
    return int(exit_info.value.code or 0), captured.out + captured.err


def test_help_shows_every_setting_with_default_and_variable(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    text = " ".join(run(capsys, "serve", "--help")[1].split())

    for name, field in Settings.model_fields.items():
        flag = f"--{name.replace('_', '-')}"
        assert flag in text
        assert f"PREDICTOR_{name.upper()}" in text
        assert field.description
        assert " ".join(field.description.split()) in text
        if field.default not in ("", None) and not field.default_factory:
            assert f"(default: {field.default})" in text


def test_environment_sets_what_flags_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREDICTOR_PORT", "9001")
    monkeypatch.setenv("PREDICTOR_MODEL", "a, b/2")

    assert Settings().port == 9001
    assert Settings(port=9002).port == 9002
    assert Settings().model_references == ("a", "b/2")


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("PREDICTOR_PORT", "99999", "less than or equal to 65535"),
        ("PREDICTOR_DEVICE", "tpu", "'tpu' is no device"),
        ("PREDICTOR_FORMATS", "jpeg,jxl", "JXL is no format"),
        ("PREDICTOR_REQUEST_TIMEOUT_S", "0", "greater than 0"),
        ("PREDICTOR_MODEL", " ", "match"),
        ("PREDICTOR_PORT", "http://10.0.0.1:8000", "valid integer"),
        ("PREDICTOR_CORS_ORIGINS", "shop.example", "'shop.example' has no scheme"),
        ("PREDICTOR_CORS_ORIGINS", "https://shop.example/app", "more than scheme, host and port"),
        ("PREDICTOR_CORS_ORIGINS", "*,https://*.example", "a * in its host"),
    ],
)
def test_impossible_setting_ends_the_start_with_its_name_and_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], variable: str, value: str, reason: str
) -> None:
    monkeypatch.setenv(variable, value)
    status, text = run(capsys, "serve")

    assert status == 2
    assert variable in text
    assert reason in text


@pytest.mark.parametrize("name", Settings.model_fields)
def test_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    default = getattr(Settings(), name)
    monkeypatch.setenv(f"PREDICTOR_{name.upper()}", "")

    assert getattr(Settings(), name) == default


@pytest.mark.parametrize("link", ["tcp://10.0.0.1:8000", "udp://10.0.0.1:53", "TCP://[fd00::1]:8000"])
def test_variable_of_a_service_is_ignored_and_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, link: str
) -> None:
    tell_ignored_variables()
    assert not caplog.messages

    monkeypatch.setenv("PREDICTOR_PORT", link)
    monkeypatch.setenv("PREDICTOR_PORT_8000_TCP", link)
    tell_ignored_variables()

    assert Settings().port == 8000
    assert Settings(port=9002).port == 9002
    assert len(caplog.messages) == 1
    assert f"PREDICTOR_PORT={link} is ignored" in caplog.messages[0]


def test_two_files_of_one_name_end_the_start(capsys: pytest.CaptureFixture[str]) -> None:
    status, text = run(capsys, "serve", "--model", "a/best.pt,b/best.pt")

    assert status == 2
    assert text.startswith("a/best.pt and b/best.pt are both named 'best', and a request chooses a model by its name")


def test_tilde_in_a_path_is_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    monkeypatch.setenv("PREDICTOR_MODEL", "~/x.pt")
    monkeypatch.setenv("PREDICTOR_MODEL_STORE", "~/models")
    monkeypatch.setenv("PREDICTOR_API_KEYS_FILE", "~/keys")

    settings = Settings()
    assert settings.model_references == ("/home/ann/x.pt",)
    assert (settings.model_store, settings.api_keys_file) == (Path("/home/ann/models"), Path("/home/ann/keys"))


def test_settings_cannot_change() -> None:
    with pytest.raises(ValidationError):
        Settings().port = 1


def test_all_cores_are_used_unless_some_are_asked_for() -> None:
    assert Settings().core_count == usable_cores()
    assert Settings(cores=3).core_count == 3


def test_memory_for_bodies_must_hold_the_largest_one() -> None:
    with pytest.raises(ValidationError, match="raise max_pending_bytes or lower max_body_bytes"):
        Settings(max_body_bytes=2_000, max_pending_bytes=1_000)
