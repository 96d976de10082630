"""Runs the service with a model so small that it is never the limit: for `benchmarks.fuzz` and `benchmarks.soak`.

a store in a temporary folder -> `python -m app serve` -> ready -> what is to be done with it -> both are gone
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.colours import export_colours
from tests.support.live import LiveServer, live_server


@contextmanager
def small_service(**settings: object) -> Iterator[LiveServer]:
    """Publishes the model, starts the service, waits until it is ready, and ends it afterwards.

    Args:
        settings: values by their names in `app.settings.Settings`, without the model and its store.
    """
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of TorchScript's deprecation
            export_colours(store)
        with live_server(Path(folder) / "log", model="colours", model_store=store, **settings) as server:
            server.wait_until_ready()
            yield server


def tracebacks(server: LiveServer) -> int:
    """Returns how many tracebacks the service has logged so far."""
    return server.log.read_text().count("Traceback")
