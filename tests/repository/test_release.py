"""`make release`: what it leaves behind when it succeeds, and that it leaves nothing behind when it refuses."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CHANGELOG = """# Changelog

## [Unreleased]

### Added

- A thing.

## [0.2.0] - 2026-01-31

- An older thing.
"""

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not shutil.which("git"), reason="needs git")]


class Repository:
    """A git repository with this project's packages and its release script, of which 0.2.0 is the last release."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for file in ("pyproject.toml", "README.md", "LICENSE", "NOTICE", ".gitignore", ".ci/release", "Makefile"):
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / file, folder / file)
        for package in ("app", "training"):
            shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
        self.write("CHANGELOG.md", CHANGELOG)
        self.set_version("0.2.0")
        self.git("init", "--initial-branch", "main")
        self.commit()

    def git(self, *arguments: str) -> str:
        command = ["git", *arguments]
        return subprocess.run(
            command, cwd=self.folder, env=_environment(), capture_output=True, text=True, check=True
        ).stdout

    def commit(self) -> None:
        self.git("add", "--all")
        self.git("commit", "--message", "A change")

    def write(self, file: str, text: str) -> None:
        (self.folder / file).write_text(text)

    def set_version(self, version: str) -> None:
        pyproject = (self.folder / "pyproject.toml").read_text()
        self.write("pyproject.toml", re.sub('^version = ".*"', f'version = "{version}"', pyproject, flags=re.M))

    def release(self, *version: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, ".ci/release", *version]
        return subprocess.run(command, cwd=self.folder, env=_environment(), capture_output=True, text=True, check=False)

    def state(self) -> tuple[str, ...]:
        """What a release may change: commits, tags, worktrees, files."""
        built = sorted(str(path) for path in self.folder.glob("dist/*"))
        seen = [self.git(*arguments) for arguments in (("log",), ("tag",), ("worktree", "list"), ("status", "--short"))]
        return (*seen, *built)


def _environment() -> dict[str, str]:
    """Git's own settings of this machine (a name, hooks, signatures) must not matter."""
    nobody = {
        f"GIT_{role}_{what}": "nobody@localhost" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
    }
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return kept | nobody | {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "repository")


def test_release_cuts_the_changelog_sets_the_version_commits_tags_and_builds(repository: Repository) -> None:
    stale = repository.folder / "build" / "lib" / "app" / "removed_long_ago.py"
    stale.parent.mkdir(parents=True)
    stale.touch()

    done = repository.release("0.10.0")

    assert done.returncode == 0, done.stderr
    changelog = (repository.folder / "CHANGELOG.md").read_text()
    assert re.sub(r"\d{4}-\d\d-\d\d", "DATE", changelog) == CHANGELOG.replace("2026-01-31", "DATE").replace(
        "## [Unreleased]\n", "## [Unreleased]\n\n## [0.10.0] - DATE\n"
    )
    assert tomllib.loads((repository.folder / "pyproject.toml").read_text())["project"]["version"] == "0.10.0"
    assert repository.git("status", "--porcelain") == ""
    assert repository.git("log", "-1", "--format=%s").strip() == "Release 0.10.0"
    assert repository.git("rev-parse", "v0.10.0^{commit}") == repository.git("rev-parse", "main")
    assert repository.git("cat-file", "-t", "v0.10.0").strip() == "tag"  # annotated, so that --follow-tags takes it
    assert len(repository.git("worktree", "list").splitlines()) == 1

    wheel = repository.folder / "dist" / "image_predictor-0.10.0-py3-none-any.whl"
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith(("app/", "training/"))}
    assert packed == set(repository.git("ls-files", "app", "training").splitlines())
    with tarfile.open(wheel.with_name("image_predictor-0.10.0.tar.gz")) as source:
        assert {f"image_predictor-0.10.0/{name}" for name in packed} <= set(source.getnames())
    assert wheel.name in done.stdout
    assert "Nothing was uploaded" in done.stdout


def test_released_twice_the_second_needs_entries_of_its_own(repository: Repository) -> None:
    assert repository.release("0.3.0").returncode == 0

    again = repository.release("0.4.0")

    assert again.returncode == 1
    assert 'no entry under "## [Unreleased]"' in again.stderr


@pytest.mark.parametrize(
    ("version", "sentence"),
    [
        ("1.0", "'1.0' is not a version such as 0.2.0"),
        ("v1.0.0", "is not a version"),
        ("1.0.0rc1", "is not a version"),
        ("01.0.0", "is not a version"),
        ("", "Say which one: make release VERSION=0.2.0"),
        ("0.2.0", "0.2.0 is not higher than 0.2.0, the last release in CHANGELOG.md"),
        ("0.1.9", "0.1.9 is not higher than 0.2.0"),
    ],
)
def test_version_that_cannot_be_is_refused(repository: Repository, version: str, sentence: str) -> None:
    _assert_refused(repository, version, sentence)


@pytest.mark.parametrize("file", ["CHANGELOG.md", "new.txt"])
def test_changed_or_new_file_is_refused(repository: Repository, file: str) -> None:
    repository.write(file, CHANGELOG + "- Not committed.\n")

    _assert_refused(repository, "0.3.0", "files that are changed or new")


def test_tag_that_exists_is_refused(repository: Repository) -> None:
    repository.git("tag", "v0.3.0")

    _assert_refused(repository, "0.3.0", "the tag v0.3.0 exists already")


@pytest.mark.parametrize("changelog", ["# Changelog\n", CHANGELOG.replace("- A thing.\n", "")])
def test_changelog_without_entries_is_refused(repository: Repository, changelog: str) -> None:
    repository.write("CHANGELOG.md", changelog)
    repository.commit()

    _assert_refused(repository, "0.3.0", 'no entry under "## [Unreleased]"')


def test_version_lower_than_that_of_the_project_is_refused(repository: Repository) -> None:
    repository.set_version("1.0.0")
    repository.commit()

    _assert_refused(repository, "0.3.0", "0.3.0 is lower than 1.0.0, the version in pyproject.toml")


def test_failed_build_leaves_everything_as_it_was(repository: Repository) -> None:
    pyproject = (repository.folder / "pyproject.toml").read_text()
    repository.write("pyproject.toml", pyproject.replace('name = "image-predictor"', 'name = "not a name"'))
    repository.commit()

    _assert_refused(repository, "0.3.0", "the build failed")


def test_failed_tag_leaves_everything_as_it_was(repository: Repository) -> None:
    repository.git("config", "tag.gpgSign", "true")
    repository.git("config", "gpg.program", "false")

    _assert_refused(repository, "0.3.0", "git tag")


def _assert_refused(repository: Repository, version: str, sentence: str) -> None:
    before = repository.state()

    refused = repository.release(version)

    assert refused.returncode == 1
    assert refused.stderr.startswith("Not released: ")
    assert sentence in refused.stderr
    assert repository.state() == before


def test_changelog_of_this_project_can_be_cut() -> None:
    headings = re.findall(r"^## .*", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)

    assert headings[0] == "## [Unreleased]"
    assert all(re.fullmatch(r"## \[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", heading) for heading in headings[1:])
