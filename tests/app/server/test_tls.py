"""HTTPS is served with the given certificate, and files that do not fit are refused at start."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from app.commands.bench.http_load import address_of
from app.server.tls import TlsError, tls_options
from app.settings import Settings
from tests.support.colours import colour_image
from tests.support.live import LiveServer, live_server
from tests.support.sockets import head, until

PASSWORD = "correct horse"


class Files:
    """A certificate for 127.0.0.1, its key with and without a password, and the authority, each in a file."""

    def __init__(self, folder: Path) -> None:
        self.authority = trustme.CA()
        issued = self.authority.issue_cert("127.0.0.1")
        self.certificate, self.key, self.locked_key, self.password, self.ca, self.other_key = (
            folder / name for name in ("cert.pem", "key.pem", "locked.pem", "password", "ca.pem", "other.pem")
        )
        self.certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        self.key.write_bytes(issued.private_key_pem.bytes())
        private = load_pem_private_key(issued.private_key_pem.bytes(), password=None)
        encryption = BestAvailableEncryption(PASSWORD.encode())
        self.locked_key.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
        self.password.write_text(f"{PASSWORD}\n")
        self.authority.cert_pem.write_to_path(self.ca)
        self.other_key.write_bytes(self.authority.issue_cert("127.0.0.1").private_key_pem.bytes())

    def client_context(self, *, certified: bool = False) -> ssl.SSLContext:
        """Returns what a client needs that trusts the authority, and perhaps has a certificate of its own."""
        context = ssl.create_default_context(cafile=str(self.ca))
        if certified:
            self.authority.issue_cert("client@example.org").configure_cert(context)
        return context


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("tls"))


@pytest.mark.slow
def test_service_speaks_https_and_lets_only_certified_clients_in(
    files: Files, colours_store: Path, tmp_path: Path
) -> None:
    """Everything at once, since each live server costs seconds: a locked key, client certificates, old protocols."""
    with live_server(
        tmp_path / "log", model="colours", model_store=colours_store, tls_cert_file=files.certificate,
        tls_key_file=files.locked_key, tls_key_password_file=files.password, tls_ca_file=files.ca,
    ) as server:  # fmt: skip
        assert server.url.startswith("https://")
        with httpx.Client(verify=files.client_context(certified=True)) as client:
            answer = client.get(f"{server.url}/health/live")
        assert answer.status_code == 200
        assert "max-age=" in answer.headers["Strict-Transport-Security"]

        with httpx.Client(verify=files.client_context()) as stranger, pytest.raises(httpx.TransportError):
            stranger.get(f"{server.url}/health/live")
        weak = files.client_context(certified=True)
        weak.maximum_version = ssl.TLSVersion.TLSv1_2
        weak.set_ciphers("ECDHE+AES+SHA:!AESGCM:!AESCCM")
        with httpx.Client(verify=weak) as old, pytest.raises(httpx.TransportError):
            old.get(f"{server.url}/health/live")
        with pytest.raises(httpx.TransportError):
            httpx.get(server.url.replace("https", "http") + "/health/live")
        assert PASSWORD not in server.log.read_text()


def test_without_files_there_is_no_https() -> None:
    assert tls_options(Settings()) == {}


def test_good_files_are_passed_on(files: Files) -> None:
    options = tls_options(Settings(tls_cert_file=files.certificate, tls_key_file=files.key))

    assert (options["ssl_certfile"], options["ssl_keyfile"]) == (files.certificate, files.key)
    assert options["ssl_cert_reqs"] == ssl.CERT_NONE


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"tls_cert_file": "certificate"}, "needs --tls-cert-file and --tls-key-file; given: --tls-cert-file"),
        ({"tls_ca_file": "ca"}, "needs --tls-cert-file and --tls-key-file; given: --tls-ca-file"),
        ({"tls_cert_file": "certificate", "tls_key_file": Path("gone.pem")}, "gone.pem cannot be read: No such file"),
        ({"tls_cert_file": "certificate", "tls_key_file": "other_key"}, "other.pem is not the private key of the cert"),
        ({"tls_cert_file": "password", "tls_key_file": "key"}, "cannot be used for HTTPS"),
        ({"tls_cert_file": "certificate", "tls_key_file": "locked_key"}, "--tls-key-password-file where the key has"),
        ({"tls_cert_file": "certificate", "tls_key_file": "locked_key", "tls_key_password_file": "ca"}, "password"),
        ({"tls_cert_file": "certificate", "tls_key_file": "key", "tls_ca_file": "password"}, "holds no certificates"),
    ],
)
def test_files_that_do_not_fit_end_the_start_with_the_reason(
    files: Files, given: dict[str, str | Path], complaint: str
) -> None:
    paths = {name: getattr(files, value) if isinstance(value, str) else value for name, value in given.items()}
    settings = Settings().model_copy(update=paths)
    with pytest.raises(TlsError) as error:
        tls_options(settings)

    assert complaint in error.value.detail


@contextlib.contextmanager
def encrypted(files: Files, store: Path, log: Path, *, max_connections: int) -> Iterator[tuple[LiveServer, ExitStack]]:
    """A service with HTTPS that is ready, and a stack for the connections that a test opens."""
    with (
        live_server(
            log, model="colours", model_store=store, max_connections=max_connections,
            tls_cert_file=files.certificate, tls_key_file=files.key,
        ) as server,
        ExitStack() as opened,
    ):  # fmt: skip
        context = files.client_context()
        until(lambda: httpx.get(f"{server.url}/health/ready", verify=context).status_code == 200)
        yield server, opened


@pytest.mark.slow
def test_connections_that_never_begin_their_handshake_keep_nobody_out(
    files: Files, colours_store: Path, tmp_path: Path
) -> None:
    """They count, the longest waiting makes room for another, and each ends after ten seconds."""
    context = files.client_context()
    with encrypted(files, colours_store, tmp_path / "log", max_connections=20) as (server, opened):
        silent = [opened.enter_context(socket.create_connection(address_of(server.url), 20)) for _ in range(60)]
        began = time.monotonic()
        for _ in range(5):
            assert httpx.get(f"{server.url}/health/live", verify=context).status_code == 200
            assert httpx.post(f"{server.url}/predict", content=colour_image("red"), verify=context).status_code == 200
        assert time.monotonic() - began < 5
        with httpx.Client(verify=context) as client:
            metrics = client.get(f"{server.url}/metrics").text
        assert float(re.findall(r"(?m)^predictor_connections (\S+)$", metrics)[0]) <= 20
        assert float(re.findall(r'(?m)^predictor_connections_closed_total.reason="evicted". (\S+)$', metrics)[0]) >= 40
        assert all(connection.recv(1) == b"" for connection in silent)  # within the time of a handshake
        assert time.monotonic() - began < 15
        assert "Traceback" not in server.log.read_text()


@pytest.mark.slow
def test_probes_are_answered_over_tls_though_every_connection_is_at_work(
    files: Files, colours_store: Path, tmp_path: Path
) -> None:
    context = files.client_context()
    with encrypted(files, colours_store, tmp_path / "log", max_connections=3) as (server, opened):
        for _ in range(3):
            plain = opened.enter_context(socket.create_connection(address_of(server.url), 20))
            busy = opened.enter_context(context.wrap_socket(plain, server_hostname="127.0.0.1"))
            busy.sendall(head(length=1000) + b"x")
        time.sleep(0.5)  # until their heads have come: before, they wait, and make room
        refused = httpx.post(f"{server.url}/predict", content=b"x", verify=context)
        assert refused.status_code == 503
        assert "too many connections" in refused.json()["detail"]

        assert httpx.get(f"{server.url}/health/live", verify=context).status_code == 200
