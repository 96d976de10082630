"""Looks up the versions of installed libraries, which runs and artifacts record."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version


def installed_versions(names: Sequence[str]) -> dict[str, str]:
    """Returns the versions of those packages that are installed, by name."""
    versions = {}
    for name in names:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions
