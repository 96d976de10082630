"""What is done before there is a worker: the settings are checked, and the address is bound.

It needs neither the web framework nor what the models need, so that a start waits for none of them.
"""

from __future__ import annotations

import logging
import signal
import socket
import sys
from typing import Final, NamedTuple

from app.api.keys import KeyRing
from app.errors import PredictorError
from app.settings import Settings
from app.store.signatures import TrustedKeys
from app.telemetry import tracing

logger = logging.getLogger("app.server")

SAME_SIGNAL_S: Final = 1.0
"""A signal that comes again within this time counts once: it was sent to the whole group, and passed on."""
CANNOT_START: Final = 2
"""Exit status of a worker, and then of the service, when starting again would not help."""
STOP_SIGNALS: Final = {signal.SIGTERM, signal.SIGINT} | (
    {signal.SIGHUP, signal.SIGQUIT} if sys.platform != "win32" else set()
)
_BACKLOG: Final = 2048


def check_start(settings: Settings) -> None:
    """Checks the keys and the extras that settings ask for, so that a fault ends the start; each process reads its own.

    Raises:
        KeyFileError: a file of API keys cannot be read or used.
        SignatureError: the file of trusted keys cannot be read or used.
        TelemetryError: traces are asked for, and the extra `telemetry` is not installed.
    """
    KeyRing.of_clients(settings)
    KeyRing.of_admins(settings)
    TrustedKeys.configured(settings.trusted_keys)
    if settings.otlp_endpoint:
        tracing.check_installed()


class Listening(NamedTuple):
    """The sockets that a service listens on; connections wait in their backlogs until a worker takes them.

    Attributes:
        requests: the socket of the service's own interface.
        management: the socket of TorchServe's management interface; None without one.
        metrics: the socket of the metrics alone; None without one.
    """

    requests: socket.socket
    management: socket.socket | None = None
    metrics: socket.socket | None = None

    def close(self) -> None:
        """Closes them in this process."""
        for listening in self:
            if listening is not None:
                listening.close()


def listen_on_all(settings: Settings, *, scheme: str) -> Listening:
    """Returns the sockets that the settings ask for.

    Args:
        settings: the settings of the service.
        scheme: `http` or `https`, for the addresses that are logged.

    Raises:
        AddressError: an address is taken, or not this machine's.
    """
    host = settings.host
    requests = listen(host, settings.port)
    _tell_address(requests, scheme)
    management = listen(host, settings.management_port, "--management-port") if settings.management_port else None
    metrics = listen(host, settings.metrics_port, "--metrics-port") if settings.metrics_port else None
    return Listening(requests, management, metrics)


def listen(host: str, port: int, option: str = "--port") -> socket.socket:
    """Returns a listening socket.

    Args:
        host: the address to listen on; one with a colon is IPv6.
        port: the port to listen on; 0 for a free one that the system picks.
        option: the option that sets the port, for the error's sentence.

    Raises:
        AddressError: the address is taken, or not this machine's.
    """
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a restart need not wait for old connections
    try:
        listening.bind((host, port))
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        raise AddressError(
            f"Cannot listen on {host}, port {port}: {error.strerror}. Choose another with {option} or --host"
            + (" (`make serve PORT=8001`)." if option == "--port" else ".")
        ) from error
    return listening


def _tell_address(listening: socket.socket, scheme: str) -> None:
    host, port = listening.getsockname()[:2]
    url = f"{scheme}://{'localhost' if host in ('127.0.0.1', '0.0.0.0') else host}:{port}"
    logger.info("Listening on %s  (try it in a browser; API at %s/docs)", url, url)
    logger.info("Classify with:  curl -F file=@photo.jpg %s/predict", url)


class AddressError(PredictorError):
    """The service cannot listen on the address that it was given."""
