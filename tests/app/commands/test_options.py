"""The command line names what is wrong and what is nearest, and completes itself in a shell."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from app.__main__ import _SERVICE, _TRAINING, main
from app.command_line import COMMANDS
from app.settings import Settings
from training.__main__ import Training


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Runs the command line in this process; returns the exit status, what was printed, and what was complained."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["image-predictor", *arguments])
        with pytest.raises(SystemExit) as exit_info:
            main()
    return int(exit_info.value.code or 0), *capsys.readouterr()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["serv"], "There is no command serv. Did you mean serve? There are: serve, "),
        (["xyzzy"], "There is no command xyzzy. There are: serve, "),
        (["serve", "--prt", "1"], "There is no option --prt. Did you mean --port? `image-predictor serve --help`"),
        (["serve", "--prt=1"], "There is no option --prt. Did you mean --port? `image-predictor serve --help`"),
        (["predict", "--topk", "3", "a.jpg"], "There is no option --topk. Did you mean --top-k? "),
        (["serve", "--xyzzy"], "There is no option --xyzzy. `image-predictor serve --help` shows the options."),
        (["models", "all"], "all is one argument too many. `image-predictor models --help` shows the options."),
        (["serve", "--port"], "Argument --port: expected one argument. `image-predictor serve --help`"),
        (["predict"], "The following arguments are required: PATHS. `image-predictor predict --help`"),
        (["serve", "--port", "x"], "--port (PREDICTOR_PORT): Input should be a valid integer"),
        (["pin", "imagenet", "0"], "VERSION: Input should be greater than or equal to 1"),
    ],
)
def test_wrong_call_is_one_line_that_names_the_nearest(
    capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    status, printed, complaint = run(capsys, *arguments)

    assert status == 2
    assert complaint.startswith(sentence)
    assert complaint.count("\n") == 1
    assert not printed


def test_help_shows_the_options_in_groups(capsys: pytest.CaptureFixture[str]) -> None:
    status, text, _ = run(capsys, "serve", "--help")

    assert status == 0
    titles = [line for line in text.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert titles == [
        "options:",
        "Model store:",
        "Models, computation and images:",
        "HTTP, limits and timeouts:",
        "Protocols of other servers:",
        "Workers, upgrades and shutdown:",
        "Keys and TLS:",
        "Logs and traces:",
    ]
    keys = text.split("Keys and TLS:")[1].split("Logs and traces:")[0]
    assert "--api-keys-file" in keys
    assert "--port" not in keys


def test_every_command_is_known_before_its_options_are() -> None:
    """`image-predictor --help` answers before anything is imported."""
    assert set(_SERVICE) == set(COMMANDS)
    named = {field.alias or name.replace("_", "-") for name, field in Training.model_fields.items()}
    assert set(_TRAINING) == named


def test_command_of_training_is_handed_over(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "training.__main__", raising=False)
    status, text, _ = run(capsys, "evaluate", "--help")

    assert status == 0
    assert text.startswith("usage: image-predictor evaluate")


@pytest.mark.parametrize(
    ("command", "missing", "extra"),
    [("train", "yaml", "training"), ("new-signing-key", "cryptography", "signing")],
)
def test_package_that_is_missing_is_named_with_its_extra(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str, missing: str, extra: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ModuleNotFoundError(f"No module named '{missing}'", name=f"{missing}.part")

    monkeypatch.setattr("runpy.run_module", fail)
    monkeypatch.setattr("app.command_line.run", fail)
    monkeypatch.setattr("app.__main__.find_spec", lambda _: None)
    sentence = f"{command} needs {missing}, which is not installed: pip install 'image-predictor[{extra}]'.\n"

    assert run(capsys, command)[::2] == (2, sentence)


def test_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--version")[:2] == (0, f"image-predictor {version('image-predictor')}\n")


def test_variable_of_another_program_sets_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JSON", "nonsense")
    assert run(capsys, "predict", "--model-store", "nowhere", "missing.jpg")[2].startswith("There is no file or folder")


@pytest.mark.slow
def test_bash_completes_commands_and_options(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    _, script, _ = run_completion(capsys, "bash")
    (tmp_path / "completion.bash").write_text(script)

    def completed(*words: str) -> set[str]:
        given = " ".join(f"'{word}'" for word in words)
        asked = (
            f"source '{tmp_path}/completion.bash'; COMP_WORDS=(image-predictor {given}); COMP_CWORD={len(words)}; "
            "function_name=$(complete -p image-predictor | sed 's/.*-F \\([^ ]*\\) .*/\\1/'); "
            '$function_name; echo "${COMPREPLY[@]}"'
        )
        done = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, timeout=60, check=True)
        return set(done.stdout.split())

    assert completed("ser") == {"serve"}
    assert {"predict", "prune", "pin"} >= completed("p") >= {"predict", "prune"}
    options = completed("serve", "--")
    assert {f"--{name.replace('_', '-')}" for name in Settings.model_fields} <= options
    assert completed("serve", "--por") == {"--port"}


def run_completion(capsys: pytest.CaptureFixture[str], shell: str) -> tuple[int, str, str]:
    """Prints the completion of a shell; unlike other commands, it ends by itself."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["image-predictor", "completion", shell])
        main()
    return 0, *capsys.readouterr()


@pytest.mark.parametrize("shell", ["zsh", "fish", "tcsh"])
def test_other_shells_have_their_scripts(capsys: pytest.CaptureFixture[str], shell: str) -> None:
    script = run_completion(capsys, shell)[1]
    assert "min-upload-bytes-per-s" in script
