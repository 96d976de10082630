"""Packs the handler and the model, and runs TorchServe on them, in the folder where it is started.

MODEL=model.pt python server.py 8000     POST /predictions/model with the image as the body
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from classify import CORES, MAX_BATCH_SIZE

_HERE = Path(__file__).resolve().parent
_BIN = Path(sys.executable).parent
_MODELS = """{"model": {"1.0": {"defaultVersion": true, "marName": "model.mar", "minWorkers": %d, "maxWorkers": %d,
"batchSize": %d, "maxBatchDelay": 10, "responseTimeout": 120}}}"""


def main(port: int) -> None:
    """Becomes the server."""
    subprocess.run(
        [
            _BIN / "torch-model-archiver", "--model-name", "model", "--version", "1.0", "--force",
            "--serialized-file", os.environ["MODEL"], "--handler", _HERE / "handler.py",
            "--extra-files", _HERE.parent / "classify.py", "--export-path", Path.cwd(),
        ],
        check=True,
    )  # fmt: skip
    models = (_MODELS % (CORES, CORES, MAX_BATCH_SIZE)).replace("\n", " ")
    Path("config.properties").write_text(
        f"inference_address=http://127.0.0.1:{port}\n"
        f"management_address=http://127.0.0.1:{port + 1}\n"
        f"metrics_address=http://127.0.0.1:{port + 2}\n"
        f"grpc_inference_port={port + 3}\n"
        f"grpc_management_port={port + 4}\n"
        "load_models=model.mar\n"
        "disable_system_metrics=true\n"
        f"models={models}\n",
        encoding="utf-8",
    )
    temporary = Path("temporary").absolute()  # where it unpacks, and leaves it
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    os.environ["TEMP"] = str(temporary)
    server = [
        "torchserve", "--start", "--foreground", "--no-config-snapshots", "--disable-token-auth",
        "--model-store", str(Path.cwd()), "--ts-config", "config.properties",
    ]  # fmt: skip
    os.execv(_BIN / "torchserve", server)


if __name__ == "__main__":
    main(int(sys.argv[1]))
