"""The documentation says what the code does: its tables, its links, its commands, its examples."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from app.__main__ import _SERVICE, _TRAINING
from app.api.problems import PROBLEMS
from app.inference.golden_check import MAX_GOLDEN_DEVIATION
from app.settings import Settings
from app.store.manifest import Manifest
from docs.generate_settings import settings_page
from tests.support.live import live_server
from tests.support.pages import code_blocks, section, table_rows, without_comments
from training.__main__ import Training

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    page
    for page in ROOT.rglob("*.md")
    if not any(
        part.startswith(".") or part in {"node_modules", "runs", "mlruns"} for part in page.parts[len(ROOT.parts) :]
    )
)
README = (ROOT / "README.md").read_text(encoding="utf-8")
HTTP = (ROOT / "docs" / "http.md").read_text(encoding="utf-8")
ARTIFACT = (ROOT / "docs" / "artifact.md").read_text(encoding="utf-8")

page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def fields_of(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yields the dotted names of a schema's leaves."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from fields_of(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def test_settings_page_is_what_the_generator_writes() -> None:
    assert (ROOT / "docs" / "settings.md").read_text(encoding="utf-8") == settings_page()


def test_settings_page_has_every_setting_once() -> None:
    rows = table_rows((ROOT / "docs" / "settings.md").read_text(encoding="utf-8"))
    options = [row[0].strip("`-").replace("-", "_") for row in rows if row[0].startswith("`--")]

    assert options == list(Settings.model_fields)


def test_error_table_is_the_errors() -> None:
    rows = table_rows(section(HTTP, "Errors"))

    assert [row[:3] for row in rows] == [[str(p.status), f"`{code}`", p.title] for code, p in PROBLEMS.items()]
    assert all(row[3] for row in rows)


def test_manifest_table_is_the_manifest() -> None:
    rows = table_rows(section(ARTIFACT, "The manifest"))

    assert [row[0].strip("`") for row in rows] == list(fields_of(Manifest))
    assert all(row[1] for row in rows)


def test_stated_bound_of_the_golden_check_is_the_bound() -> None:
    assert f"at most {MAX_GOLDEN_DEVIATION:g}" in section(ARTIFACT, "The golden check")


@page
def test_links_lead_somewhere(page: Path) -> None:
    text = without_comments(page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        linked = page.parent / path if path else page
        assert linked.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", without_comments(linked.read_text(encoding="utf-8")), re.M)
            assert anchor in {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}, target


@page
def test_files_that_are_named_exist(page: Path) -> None:
    if page == ROOT / "benchmarks" / "NOTES.md":
        return  # a lab book also tells of files that are gone
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"`((?:\.ci|app|benchmarks|configs|deploy|docs|tests|training)/[\w./-]*)`", text)

    assert [path for path in named if not (ROOT / path).exists()] == []


@page
def test_commands_and_variables_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"^```\w*\n.*?^```|`[^`\n]+`", text, re.M | re.S))
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    training_commands = {name.replace("_", "-") for name in Training.model_fields}

    assert set(re.findall(r"\bmake ([a-z][a-z-]*)", code)) <= targets
    assert set(re.findall(r"(?:-m app|image-predictor) ([a-z]+(?:-[a-z]+)*)\b(?! \.)", code)) <= {
        *_SERVICE,
        *_TRAINING,
        "cd",
    }
    assert set(re.findall(r"-m training ([a-z-]+)", code)) <= training_commands
    assert set(re.findall(r"\bPREDICTOR_(\w+)", code)) <= {name.upper() for name in Settings.model_fields} | {"*"}


@pytest.fixture(scope="module")
def service(imagenet_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a service with the default model."""
    with live_server(tmp_path_factory.mktemp("docs") / "log", model_store=imagenet_store) as server:
        server.wait_until_ready()
        yield server.url


@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
def test_curl_examples_are_answered(service: str) -> None:
    commands = code_blocks(section(README, "curl"), "sh")[0].splitlines()

    for command in commands:
        arguments = shlex.split(command.replace("localhost:8000", service), comments=True)
        answered = subprocess.run([*arguments, "-sS", "--fail-with-body"], cwd=ROOT, capture_output=True, text=True)
        assert answered.returncode == 0, (command, answered.stdout, answered.stderr)
        answer = json.loads(answered.stdout)
        first = answer["results"][0] if "results" in answer else answer
        assert first["predictions"][0]["class_name"] == "tiger cat"
        assert len(first["predictions"]) == (1000 if "top_k=1000" in command else 5)


@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
def test_first_answer_is_the_one_that_is_shown(service: str) -> None:
    start = section(README, "Start")
    shown = json.loads(code_blocks(start, "json")[0])
    command = code_blocks(start, "sh")[1].replace("localhost:8000", service)
    answer = json.loads(subprocess.run([*shlex.split(command), "-sS"], cwd=ROOT, capture_output=True).stdout)

    for got, promised in zip(answer["predictions"], shown["predictions"], strict=True):
        assert got.pop("probability") == pytest.approx(promised.pop("probability"), abs=1e-3)
    assert answer == shown


def test_python_example_prints_what_is_shown(service: str) -> None:
    example = section(README, "Python")
    code = code_blocks(example, "python")[0].replace("http://localhost:8000", service)
    printed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout

    shown = code_blocks(example, "text")[0].splitlines()
    for line, promised in zip(printed.splitlines(), shown, strict=True):
        probability, class_name = line.split(maxsplit=1)
        assert class_name == promised.split(maxsplit=1)[1]
        assert float(probability) == pytest.approx(float(promised.split()[0]), abs=1e-3)


@pytest.mark.slow
def test_own_model_example_makes_a_model_that_is_served(tmp_path: Path) -> None:
    code = code_blocks(section(README, "Your own model"), "python")[0]
    (tmp_path / "own_model.py").write_text(code, encoding="utf-8")
    subprocess.run([sys.executable, "-W", "ignore", "own_model.py"], cwd=tmp_path, check=True)

    photo = ROOT / "training" / "golden" / "cat.jpg"
    command = [sys.executable, "-m", "app", "predict", "--model", str(tmp_path / "my_model.pt"), "--json", str(photo)]
    answer = json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout)
    assert answer["model"] == "my_model"
    assert {prediction["class_name"] for prediction in answer["predictions"]} == {"cat", "dog"}


def test_artifact_example_needs_torch_alone(imagenet_store: Path) -> None:
    code = code_blocks(section(ARTIFACT, "The Predictor"), "python")[0].replace("model_store", str(imagenet_store))
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], cwd=imagenet_store, capture_output=True, text=True
    )

    assert run.stdout.strip(), run.stderr
