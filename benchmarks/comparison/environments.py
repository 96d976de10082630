"""Makes a virtual environment for each peer: its own packages first, torch and the rest from the project's.

benchmarks/peers/<peer>/requirements.txt -> .bench/venv/<peer>, made once

torch takes 5 GB a copy in its CUDA build, so that the environments share the project's by a path file, as the
Makefile's importer does.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PEERS = ROOT / "benchmarks" / "peers"
BENCH = ROOT / ".bench"
"""What the benchmark makes: environments, models, images, logs. Ignored by git; safe to delete."""


class InstallError(Exception):
    """A peer cannot be installed here."""


def python_of(peer: str) -> Path:
    """Returns the interpreter of a peer's environment."""
    return _folder(peer) / "bin" / "python"


def install(peer: str) -> None:
    """Makes a peer's environment, if it is not there as its requirements say.

    Raises:
        InstallError: pip fails, or a program that it needs is missing.
    """
    if peer == "torchserve" and shutil.which("java") is None:
        raise InstallError("TorchServe needs Java: apt-get install default-jre-headless")
    requirements = PEERS / peer / "requirements.txt"
    installed = _folder(peer) / requirements.name
    if installed.exists() and installed.read_bytes() == requirements.read_bytes():
        return
    print(f"Installing {peer}", flush=True)
    _run(sys.executable, "-m", "venv", "--clear", str(_folder(peer)))
    python = str(python_of(peer))
    site_packages = Path(_run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    (site_packages / "project.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    _run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(requirements))
    shutil.copy(requirements, installed)


def version_of(peer: str) -> str:
    """Returns the pinned version of a peer."""
    first = (PEERS / peer / "requirements.txt").read_text(encoding="utf-8").splitlines()[0]
    return first.partition("==")[2]


def _folder(peer: str) -> Path:
    return BENCH / "venv" / peer


def _run(*command: str) -> str:
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise InstallError(f"{' '.join(command)} failed: {last}") from error
