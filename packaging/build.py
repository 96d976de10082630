"""Builds the wheels: `make wheels`, or `python packaging/build.py FOLDER`. Nothing is uploaded.

image-predictor: the service and training; image-predictor-imagenet: the default model. constraints.txt, beside them,
has the versions that this release was tested with: `pip install -c constraints.txt image-predictor`.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DEFAULT_MODEL = "imagenet"


def main() -> None:
    """Writes both wheels and the constraints to the folder that the command line names."""
    destination = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as folder:
        # Copies, because setuptools builds in the folder and takes what an earlier build has left there.
        service, model = Path(folder) / "service", Path(folder) / "model"
        service.mkdir()
        for name in ("app", "training"):
            shutil.copytree(ROOT / name, service / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
            shutil.copy(ROOT / name, service)
        shutil.copytree(ROOT / "packaging" / DEFAULT_MODEL, model, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "LICENSE", model)
        shutil.copytree(
            ROOT / "model_store" / DEFAULT_MODEL,
            model / "image_predictor_imagenet" / "model_store" / DEFAULT_MODEL,
            ignore=shutil.ignore_patterns(".*", "pinned"),
        )
        for project in (service, model):
            subprocess.run(
                [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps",
                 "--wheel-dir", str(destination), str(project)],
                check=True,
            )  # fmt: skip
    shutil.copy(ROOT / "constraints.txt", destination)
    for wheel in sorted(destination.glob("*.whl")):
        print(f"{wheel}  {wheel.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
