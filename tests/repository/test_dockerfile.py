"""The Dockerfile, as far as it can be checked without Docker: what goes in, who runs it, how its health is asked."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

import pytest

from app.command_line import COMMANDS
from app.settings import Settings
from tests.support.live import live_server

ROOT = Path(__file__).parents[2]
IGNORED = [
    line for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line and line[0] != "#"
]
DOCKER_STOP_S = 10


class Instruction(NamedTuple):
    stage: str
    keyword: str
    value: str


def read_dockerfile() -> list[Instruction]:
    """Returns the instructions, continued lines joined; the last stage, which has no name, is called `image`."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(encoding="utf-8"), flags=re.M)
    instructions = []
    stage = ""
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        keyword, _, value = line.partition(" ")
        if keyword == "FROM":
            stage = value.partition(" AS ")[2] or "image"
        if keyword:
            instructions.append(Instruction(stage, keyword, value.strip()))
    return instructions


INSTRUCTIONS = read_dockerfile()


def values(keyword: str, stage: str = "runtime") -> list[str]:
    return [found.value for found in INSTRUCTIONS if (found.stage, found.keyword) == (stage, keyword)]


def health_command() -> list[str]:
    (check,) = values("HEALTHCHECK")
    command: list[str] = json.loads(check.partition("CMD ")[2])
    assert command[0] == "python"
    return [sys.executable, *command[1:]]


def health_status(port: str) -> int:
    # A proxy in the environment, as Docker's configuration may put there, must not be asked.
    environment = {**os.environ, "PREDICTOR_PORT": port, "http_proxy": "http://127.0.0.1:9"}
    return subprocess.run(health_command(), env=environment, capture_output=True, timeout=10).returncode


def is_ignored(path: Path) -> bool:
    """Whether .dockerignore keeps a path of the context out; covers the kinds of patterns that it has."""
    for part in (path, *path.parents):
        for pattern in IGNORED:
            if pattern.startswith("**/") and fnmatch(part.name, pattern[3:]):
                return True
            if "/" not in pattern and part.parent == Path() and fnmatch(part.name, pattern):
                return True
    return False


def sources_from_context() -> Iterator[Path]:
    defaults = dict(found.value.split("=", 1) for found in INSTRUCTIONS if found.keyword == "ARG")
    for found in INSTRUCTIONS:
        if found.keyword == "COPY" and not found.value.startswith("--from="):
            *sources, _ = re.sub(r"\$\{(\w+)\}", lambda name: defaults[name[1]], found.value).split()
            yield from map(Path, sources)


@pytest.mark.parametrize(("image", "has_torch"), [("image", False), ("cuda", True)])
def test_images_take_finished_folders_from_named_stages_only(image: str, has_torch: bool) -> None:
    stages = {found.stage for found in INSTRUCTIONS}
    sources = [re.match(r"--from=(\w+) /", value) for value in values("COPY", image)]

    assert len(sources) == 3
    assert all(source and source[1] in stages for source in sources)
    assert [found.keyword for found in INSTRUCTIONS if found.stage == image] == ["FROM", "COPY", "COPY", "COPY"]
    assert ("--from=torch /opt/venv /opt/venv" in values("COPY", image)) == has_torch
    assert not any("pip" in value or "apt" in value for value in values("RUN"))


def test_image_runs_as_a_user_known_by_number_and_not_as_root() -> None:
    (user,) = values("USER")

    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", user)  # Kubernetes' runAsNonRoot can only check numbers


def test_default_image_has_no_torch_and_each_image_proves_its_model_with_what_it_has() -> None:
    installed = " ".join(values("RUN", "dependencies") + values("RUN", "models"))
    assert not re.search(r"\btorch\b", installed)
    assert values("RUN", "models") == values("RUN", "cuda_models")
    bases = {found.stage: found.value.split()[0] for found in INSTRUCTIONS if found.keyword == "FROM"}
    assert (bases["models"], bases["cuda_models"], bases["torch"]) == ("dependencies", "torch", "dependencies")


def test_everything_that_is_copied_is_there_and_not_ignored() -> None:
    sources = list(sources_from_context())

    assert {Path("app"), Path("training"), Path("model_store"), Path("pyproject.toml")} <= set(sources)
    for source in sources:
        assert (ROOT / source).exists(), source
        assert not is_ignored(source), source
    for file in ("app/api/index.html", "training/golden/cat.jpg", "model_store/imagenet/1/model.pt"):
        assert not is_ignored(Path(file)), file


@pytest.mark.parametrize("path", [".git/HEAD", ".venv/bin/python", "app/__pycache__/main.pyc", "tests/test_docs.py"])
def test_what_the_build_does_not_need_is_ignored(path: str) -> None:
    assert is_ignored(Path(path))


def test_package_needs_no_file_that_the_service_stage_has_not() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    copied = {
        word for stage in ("dependencies", "service") for value in values("COPY", stage) for word in value.split()
    }

    assert {project["readme"], *project["license-files"], "pyproject.toml", "app"} <= copied
    assert "training" not in copied


def test_command_is_one_that_the_package_has() -> None:
    (command,) = values("CMD")
    program, subcommand = json.loads(command)
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]

    assert program in scripts
    assert subcommand in COMMANDS


@pytest.mark.slow
def test_image_starts_as_sagemaker_starts_it(tmp_path: Path) -> None:
    """SageMaker replaces the command with `serve`, which must be on the path."""
    (command,) = (value for value in values("RUN") if "/usr/local/bin/serve" in value)
    script = command.partition(" && ")[0].strip("\\ \n")
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "image-predictor").write_text('#!/bin/sh\necho "$@"\n')
    subprocess.run(["sh", "-c", script.replace("/usr/local/bin", str(folder))], check=True)
    for each in folder.iterdir():
        each.chmod(0o755)

    environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
    told = subprocess.run(["serve", "--port", "1"], env=environment, capture_output=True, text=True, check=True)
    assert told.stdout == "serve --port 1\n"


def test_environment_is_valid_settings() -> None:
    variables = dict(re.findall(r"PREDICTOR_(\w+)=(\S+)", values("ENV")[0]))
    settings = Settings(**{name.lower(): value for name, value in variables.items() if "$" not in value})

    assert {name.lower() for name in variables} <= set(Settings.model_fields)
    assert settings.host == "0.0.0.0"
    assert str(settings.port) in values("EXPOSE")
    assert settings.drain_delay_s + settings.drain_timeout_s < DOCKER_STOP_S
    assert values("STOPSIGNAL") == ["SIGTERM"]


def test_build_arguments_have_one_default_each() -> None:
    arguments = {tuple(found.value.split("=", 1)) for found in INSTRUCTIONS if found.keyword == "ARG"}

    assert sorted(name for name, _ in arguments) == ["EXTRAS", "MODEL", "MODEL_STORE", "PYTHON_IMAGE", "TORCH_INDEX"]


@pytest.mark.slow
@pytest.mark.parametrize(("extras", "added"), [("", False), ("telemetry", True)])
def test_extras_are_installed_if_they_are_asked_for(tmp_path: Path, extras: str, added: bool) -> None:
    """The program that lists what is installed, taken out of the Dockerfile and run."""
    (listing,) = re.findall(r'python -c "(import os, tomllib; .*?)" &&', " ".join(values("RUN", "dependencies")))
    (tmp_path / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    subprocess.run([sys.executable, "-c", listing], cwd=tmp_path, env=os.environ | {"EXTRAS": extras}, check=True)
    serving = (tmp_path / "serving.txt").read_text(encoding="utf-8").splitlines()

    assert any(line.startswith("openvino>=") for line in serving)
    assert not any(line.startswith("torch") for line in serving)
    pretrained = (tmp_path / "pretrained.txt").read_text(encoding="utf-8").splitlines()
    assert any(line.startswith("timm") for line in pretrained)
    assert not any(line.startswith("image-predictor") for line in pretrained)
    assert any(line.startswith("opentelemetry-sdk") for line in serving) is added


def test_healthcheck_follows_readiness(imagenet_store: Path, tmp_path: Path) -> None:
    with live_server(tmp_path / "log", model_store=imagenet_store) as server:
        server.wait_until_ready()
        port = server.url.rpartition(":")[2]
        assert health_status(port) == 0
    assert health_status(port) != 0  # nothing listens there any more


@pytest.mark.slow
def test_healthcheck_fails_while_no_model_serves(tmp_path: Path) -> None:
    with live_server(tmp_path / "log", model_store=tmp_path) as server:
        assert health_status(server.url.rpartition(":")[2]) == 1
