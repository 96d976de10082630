"""No representation of an object contains what a client sent: an error's text or a log line would format it whole."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator

import app

_BYTES = re.compile(r"(^|[| ]|dict\[|list\[)(bytes|bytearray|memoryview|Item)\b")


def _classes() -> Iterator[type]:
    for module in pkgutil.walk_packages(app.__path__, "app."):
        if not module.name.endswith("__main__"):
            for value in vars(importlib.import_module(module.name)).values():
                if inspect.isclass(value) and value.__module__ == module.name:
                    yield value


def test_no_representation_contains_bytes() -> None:
    shown = set()
    for kind in _classes():
        if dataclasses.is_dataclass(kind):
            is_shown = kind.__dataclass_params__.repr  # type: ignore[attr-defined]
            names = {field.name: field.type for field in dataclasses.fields(kind) if field.repr and is_shown}
        else:
            names = inspect.get_annotations(kind) if hasattr(kind, "_fields") else {}
        shown |= {f"{kind.__name__}.{name}" for name, of in names.items() if _BYTES.search(str(of))}

    assert shown == set()
