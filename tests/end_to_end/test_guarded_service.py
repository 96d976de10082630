"""The service with keys behaves as its own OpenAPI document says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from app.api.keys import new_key
from tests.support.colours import export_colours
from tests.support.live import live_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]


def test_guarded_service_keeps_its_own_schema(tmp_path: Path) -> None:
    """As the open one does; among the checks is that what is said to need a key refuses requests without one."""
    export_colours(tmp_path / "store")
    key, line = new_key("schemathesis")
    (tmp_path / "keys").write_text(line)
    authorization = f"Authorization: Bearer {key}"
    with live_server(
        tmp_path / "log", model="colours", model_store=tmp_path / "store", api_keys_file=tmp_path / "keys"
    ) as server:
        server.wait_until_ready()
        command = ["run", f"{server.url}/openapi.json", "--checks", "all", "--max-examples", "5", "--seed", "7"]
        # It takes the key for a header that is not allowed; refusing bad requests is the open service's test.
        command += ["--exclude-checks", "negative_data_rejection"]
        result = subprocess.run(
            [str(Path(sys.executable).parent / "schemathesis"), *command, "--no-color", "--header", authorization],
            cwd=Path(__file__).parents[2],  # where schemathesis.toml is
            capture_output=True,
            text=True,
            timeout=150,
            check=False,
        )

        assert result.returncode == 0, result.stdout + result.stderr
        assert key not in server.log.read_text()
