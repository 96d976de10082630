"""The process around the application: uvicorn, and what a signal does to it.

SIGTERM or SIGINT -> unready at once -> go on answering for `drain_delay_s` -> finish what is open -> exit 0
a second one -> exit at once
"""

from __future__ import annotations

import asyncio
import logging
import socket
from types import FrameType

import uvicorn

from app.errors import PredictorError
from app.main import create_app
from app.protocol import limited_protocol
from app.service import Phase, Service
from app.settings import Settings

logger = logging.getLogger(__name__)


def serve(settings: Settings) -> None:
    """Serves until a signal ends it.

    Raises:
        AddressError: the address is taken, or not this machine's.
    """
    listening = _listen(settings.host, settings.port)
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,  # ours has the request's id
        server_header=False,
        http=limited_protocol(settings, app.state.service.metrics),
        timeout_keep_alive=settings.idle_timeout_s,  # type: ignore[arg-type] # which only ends up in `call_later`
        timeout_graceful_shutdown=max(1, round(settings.drain_timeout_s)),
    )
    _Server(config, app.state.service).run(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a restart need not wait for old connections
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise AddressError(
            f"Cannot listen on {host}, port {port}: {error.strerror}. Choose another with --port or --host "
            "(`make serve PORT=8001`)."
        ) from error
    return listening


class AddressError(PredictorError):
    """The service cannot listen where it should."""


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        for server in self.servers:
            for listening in server.sockets:
                host, port = listening.getsockname()[:2]
                url = f"http://{'localhost' if host in ('127.0.0.1', '0.0.0.0') else host}:{port}"
                logger.info("Listening on %s  (try it in a browser; API at %s/docs)", url, url)
                logger.info("Classify with:  curl -F file=@photo.jpg %s/predict", url)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # uvicorn's own would raise the signal again at the end, and the exit status would not be 0.
        if self._service.phase is not Phase.SERVING or self._loop is None:
            self.should_exit = self.force_exit = True
            return
        self._service.phase = Phase.DRAINING
        self._loop.call_soon_threadsafe(self._loop.call_later, self._service.settings.drain_delay_s, self._close)

    def _close(self) -> None:
        self._service.phase = Phase.CLOSING
        self.should_exit = True
