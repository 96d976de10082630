"""The dependency audit: fails for a known vulnerability, and for nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

AUDIT = Path(__file__).parents[2] / ".ci" / "audit"

FAKE = """
import json, pathlib, sys
requirements = pathlib.Path(sys.argv[sys.argv.index("--requirement") + 1])
answers = json.loads(pathlib.Path(__file__).with_name("answers.json").read_text())
print(answers["all" if requirements.name == "constraints.txt" else "one"])
"""

SOUND = {"name": "sound", "version": "1.0", "vulns": []}
FLAWED = {
    "name": "flawed",
    "version": "2.1",
    "vulns": [{"id": "PYSEC-2019-217", "fix_versions": ["2.2"], "aliases": []}],
}
UNKNOWN = {"name": "unknown", "skip_reason": "Dependency not found on PyPI"}


def _audit(tmp_path: Path, *, one: object, all_: object) -> subprocess.CompletedProcess[str]:
    """Runs the audit with a pip-audit that gives these answers about the package known to be vulnerable, and all."""
    package = tmp_path / "pip_audit"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(FAKE)
    answers = {
        name: json.dumps({"dependencies": answer, "fixes": []}) if isinstance(answer, list) else str(answer)
        for name, answer in {"one": one, "all": all_}.items()
    }
    (package / "answers.json").write_text(json.dumps(answers))
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    return subprocess.run([sys.executable, str(AUDIT)], env=environment, capture_output=True, text=True, check=False)


def test_known_vulnerability_fails_the_audit_and_is_named(tmp_path: Path) -> None:
    result = _audit(tmp_path, one=[FLAWED], all_=[SOUND, FLAWED, UNKNOWN])

    assert result.returncode == 1
    assert "flawed 2.1: PYSEC-2019-217; fixed in 2.2" in result.stdout
    assert "not audited: unknown" in result.stdout
    assert "2 packages audited, 1 of them vulnerable" in result.stdout


def test_sound_packages_pass_the_audit(tmp_path: Path) -> None:
    result = _audit(tmp_path, one=[FLAWED], all_=[SOUND])

    assert result.returncode == 0
    assert "NOT AUDITED" not in result.stdout


@pytest.mark.parametrize(
    ("one", "all_"),
    [
        ("no answer", [SOUND]),
        ([UNKNOWN], [UNKNOWN]),  # a mirror without advisories: pip-audit finds nothing there, and is content
        ([SOUND], [SOUND]),
        ([FLAWED], "no answer"),
    ],
)
def test_audit_that_cannot_be_made_says_so_and_fails_nothing(tmp_path: Path, one: object, all_: object) -> None:
    result = _audit(tmp_path, one=one, all_=all_)

    assert result.returncode == 0
    assert "NOT AUDITED" in result.stdout
