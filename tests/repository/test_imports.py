"""The contracts on imports hold and are checked; the service needs no library that only training needs."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
APP = sorted((REPOSITORY / "app").rglob("*.py"))
TRAINING = sorted((REPOSITORY / "training").rglob("*.py"))


def relative(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def modules_imported_by(path: Path) -> set[str]:
    """Returns the full names of the modules that a file imports, anywhere in it."""
    package = ".".join(path.relative_to(REPOSITORY).parent.parts)
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = f"{package}.{node.module or ''}".rstrip(".") if node.level else node.module or ""
            if module == "app":  # `from app import decode` names a module
                found |= {f"app.{alias.name}" for alias in node.names}
            else:
                found.add(module)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            found |= {ast.literal_eval(argument) for argument in node.args if isinstance(argument, ast.Constant)}
    return found


def top_level(modules: set[str]) -> set[str]:
    return {module.partition(".")[0] for module in modules}


def importable_names(requirements: list[str]) -> set[str]:
    """Returns what one can import from the distributions that the requirements name."""
    distributions = {normalised(match[0]) for entry in requirements if (match := re.match(r"[\w.-]+", entry))}
    return {
        package
        for package, owners in distributions_of_packages().items()
        if distributions & {normalised(owner) for owner in owners}
    }


@cache
def distributions_of_packages() -> Mapping[str, list[str]]:
    """Returns who brings which importable name; it reads the metadata of everything that is installed."""
    return importlib.metadata.packages_distributions()


def normalised(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


@pytest.fixture(scope="module")
def project() -> dict[str, list[str]]:
    """The requirements in pyproject.toml: `serving`, and every other; among those, single extras."""
    table = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [entry for extra in table["optional-dependencies"].values() for entry in extra]
    named = {extra: table["optional-dependencies"][extra] for extra in ("telemetry", "heic", "signing", "torch")}
    others = [entry for entry in extras if not entry.startswith(f"{table['name']}[")]  # an extra may name another one
    return {"serving": table["dependencies"], "others": others} | named


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs the contracts of pyproject.toml, as `make lint` does, on the checkout in a folder."""
    program = Path(sys.executable).with_name("lint-imports")
    return subprocess.run(
        [program, "--no-cache"], cwd=folder, capture_output=True, text=True, timeout=120, check=False,
        env=os.environ | {"PYTHONPATH": str(folder)},
    )  # fmt: skip


def copy_of_checkout(folder: Path) -> Path:
    """Copies the code and its contracts, to plant wrong imports in."""
    for package in ("app", "training"):
        shutil.copytree(REPOSITORY / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPOSITORY / "pyproject.toml", folder)
    return folder


@pytest.mark.slow
def test_the_contracts_on_imports_are_kept(tmp_path: Path) -> None:
    linted = lint_imports(copy_of_checkout(tmp_path))

    assert linted.returncode == 0, linted.stdout
    assert "Contracts: 6 kept, 0 broken." in linted.stdout


# File, import against the order, and what import-linter says of it.
PLANTED = (
    ("app/images/decode.py", "import app.api.problems", "app.images is not allowed to import app.api"),
    ("app/serving/service.py", "from app.main import create_app", "app.serving is not allowed to import app.main"),
    ("app/commands/predict.py", "import app.server.tls", "app.commands is not allowed to import app.server"),
    ("app/errors.py", "import training.errors", "app is not allowed to import training"),
    ("training/data/scan.py", "import app.settings", "training is not allowed to import app.settings"),
    ("training/data/scan.py", "import training.run", "training.data is not allowed to import training.run"),
    ("app/models/loader.py", "import fastapi", "app.models is not allowed to import fastapi"),
    ("app/images/resize.py", "import torch", "app is not allowed to import torch"),
)


@pytest.mark.slow
def test_every_import_against_the_order_is_found(tmp_path: Path) -> None:
    checkout = copy_of_checkout(tmp_path)
    for file, planted, _ in PLANTED:
        with (checkout / file).open("a", encoding="utf-8") as code:
            code.write(f"\n\ndef _planted() -> None:\n    {planted}\n")

    linted = lint_imports(checkout)

    assert linted.returncode == 1
    assert "Contracts: 0 kept, 6 broken." in linted.stdout
    assert [broken for _, _, broken in PLANTED if broken not in linted.stdout] == []


@pytest.mark.slow
def test_a_package_without_a_place_in_the_order_breaks_a_contract(tmp_path: Path) -> None:
    checkout = copy_of_checkout(tmp_path)
    (checkout / "app" / "utilities").mkdir()
    (checkout / "app" / "utilities" / "__init__.py").write_text("")

    linted = lint_imports(checkout)

    assert linted.returncode != 0
    assert "utilities" in linted.stdout + linted.stderr


@pytest.mark.parametrize("path", APP, ids=relative)
def test_the_service_imports_only_what_it_is_installed_with(path: Path, project: dict[str, list[str]]) -> None:
    # An extra is imported by one file, when it is asked for or where it is installed, as the last tests show.
    extra = {
        "tracing.py": "telemetry",
        "heic.py": "heic",
        "signing.py": "signing",
        "signatures.py": "signing",
        "torchscript_engine.py": "torch",
        "cuda_engine.py": "torch",
    }.get(path.name)
    optional = importable_names(project[extra]) if extra else set()
    allowed = optional | importable_names(project["serving"]) | sys.stdlib_module_names | {"app", "__future__"}
    assert top_level(modules_imported_by(path)) <= allowed


@pytest.mark.parametrize("path", [*APP, *TRAINING], ids=relative)
def test_nothing_imports_the_tests(path: Path) -> None:
    assert not top_level(modules_imported_by(path)) & {"tests", "pytest"}


def test_these_tests_see_imports_of_every_kind(tmp_path: Path) -> None:
    assert modules_imported_by(REPOSITORY / "training" / "export" / "export.py") >= {"app.store.manifest", "torch"}
    assert "timm" in modules_imported_by(REPOSITORY / "training" / "networks" / "efficientnet_lite0.py"), (
        "one inside a function"
    )
    assert importable_names(["pillow>=11", "python-multipart>=0.0.18"]) >= {"PIL", "python_multipart"}


_IMPORT_THE_SERVICE = """
import pkgutil, sys, threading
import app
for module in pkgutil.walk_packages(app.__path__, "app."):
    if not module.name.endswith("__main__"):
        __import__(module.name)
assert threading.active_count() == 1, threading.enumerate()
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""


@pytest.mark.slow
def test_importing_the_service_reads_no_settings_starts_nothing_and_loads_no_training_library(
    project: dict[str, list[str]], tmp_path: Path
) -> None:
    nonsense = {f"PREDICTOR_{name}": "nonsense" for name in ("PORT", "DEVICE", "MAX_PIXELS", "MODEL_STORE")}
    finished = subprocess.run(
        [sys.executable, "-c", _IMPORT_THE_SERVICE],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=tmp_path,
        env=os.environ | nonsense | {"PYTHONPATH": str(REPOSITORY)},
    )
    assert finished.returncode == 0, finished.stderr
    loaded = set(finished.stdout.split())
    assert "fastapi" in loaded
    service = [entry for extra in ("serving", "torch", "signing") for entry in project[extra]]
    needed_only_elsewhere = importable_names(project["others"]) - importable_names(service)
    assert {"timm", "torchvision", "skimage"} <= needed_only_elsewhere
    # torch, which its engines load, itself looks for these, if they are there.
    optional_for_torch = {"onnx", "onnxscript", "onnxruntime", "yaml", "scipy", "mypy", "matplotlib", "networkx"}
    optional = optional_for_torch | {"pi_heif", "_pi_heif"}  # loaded where it is installed
    # FastAPI brings OpenTelemetry's API along; that nothing else of it is loaded is tested with the traces.
    assert loaded & needed_only_elsewhere - optional - {"opentelemetry"} == set()
    assert "training" not in loaded
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("package", "title"), [("app", "The service"), ("training", "Training")])
def test_the_page_on_architecture_tells_the_order_that_is_checked(package: str, title: str) -> None:
    contracts = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    (layers,) = (each["layers"] for each in contracts["contracts"] if each.get("containers") == [package])
    page = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.*?`) \|", page.split(f"## {title}\n")[1].split("\n### ")[0], re.M)

    assert [row.replace("`", "").split(", ") for row in rows] == [layer.split(" | ") for layer in layers]
    drawn = (REPOSITORY / "docs" / "architecture.svg").read_text(encoding="utf-8")
    for layer in layers:
        for room in layer.split(" | "):
            assert f">{room}</text>" in drawn
