"""Writes docs/settings.md from the groups of app/settings/; run by `make docs`.

a group's class -> title and text from its docstring -> a table of its fields -> the page
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from app.command_line import COMMANDS
from app.settings import Settings

_HEAD = """\
# Settings

<!-- Written by `make docs` from app/settings/: change the settings there. -->

Every setting is an option of `image-predictor serve` and an environment variable. An option wins over its variable.
`make serve` takes the variables. `python -m app` is the same command as `image-predictor`. An empty variable
counts as not set. So does `PREDICTOR_PORT=tcp://...`, which Kubernetes makes for a Service `predictor`; that is logged.

```sh
.venv/bin/image-predictor serve --max-batch-size 32
PREDICTOR_MAX_BATCH_SIZE=32 make serve
```

- Settings for small and large machines: [operations.md](operations.md#settings-for-small-and-large)
- Engines, precision, streams and batches: [performance.md](performance.md)
- Limits and timeouts: [limits.md](limits.md)
- The number of workers: [workers.md](workers.md)
- Keys, HTTPS and signed models: [security.md](security.md)

Each section below names the commands that take its settings.
"""
# The first suffix that fits a setting's name tells its unit.
_UNITS = {
    "_ms": "ms",
    "_bytes_per_s": "bytes/s",
    "_s": "s",
    "_bytes": "bytes",
    "_mb": "MB",
    "_pixels": "pixels",
    "_threads": "threads",
    "threads_per_stream": "threads",
    "streams": "batches",
    "max_batch_size": "images",
    "_images": "images",
    "_images_per_request": "images",
}


def settings_page() -> str:
    """Returns the text of docs/settings.md."""
    classes = [each for each in reversed(Settings.__mro__) if issubclass(each, BaseSettings)]
    return "\n".join([_HEAD, *(line for each in classes for line in _section(each))])


def _section(group: type[BaseSettings]) -> Iterator[str]:
    names = [name for name in group.__annotations__ if name in Settings.model_fields]
    if not names:
        return
    title, *paragraphs = inspect.cleandoc(group.__doc__ or "").split("\n\n")
    commands = ", ".join(f"`{name}`" for name, command in COMMANDS.items() if issubclass(command, group))
    yield f"## {title.removesuffix('.')}\n"
    for paragraph in [*paragraphs, f"Commands: {commands}."]:
        yield f"{paragraph}\n"
    yield "| option | environment variable | default | unit | meaning |"
    yield "|---|---|---|---|---|"
    for name in names:
        yield _row(name, Settings.model_fields[name])
    yield ""


def _row(name: str, field: FieldInfo) -> str:
    default = "" if field.default in ("", None) or field.default_factory else f"`{field.default}`"
    unit = next((unit for suffix, unit in _UNITS.items() if name.endswith(suffix)), "")
    option, variable = f"--{name.replace('_', '-')}", f"PREDICTOR_{name.upper()}"
    return f"| `{option}` | `{variable}` | {default} | {unit} | {field.description} |"


if __name__ == "__main__":
    Path(__file__).with_name("settings.md").write_text(settings_page(), encoding="utf-8")
