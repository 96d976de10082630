"""Checks the certificate and the key for HTTPS at the start, and turns them into arguments for uvicorn."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any, Final

from app.errors import PredictorError
from app.settings import Settings

_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Ciphers for TLS 1.2: forward secrecy and authenticated encryption only, as RFC 9325 recommends.

TLS 1.3 has no others.
"""


class TlsError(PredictorError):
    """HTTPS is asked for, and its files are missing or cannot be used."""

    code = "invalid_parameter"


def tls_options(settings: Settings) -> dict[str, Any]:
    """Returns the arguments of `uvicorn.Config` for HTTPS; an empty dict for plain HTTP.

    Args:
        settings: the settings of the service.

    Raises:
        TlsError: a file is missing or cannot be used, or the key is not the certificate's.
    """
    certificate, key = settings.tls_cert_file, settings.tls_key_file
    if certificate is None or key is None:
        given = {"--tls-cert-file": certificate, "--tls-key-file": key, "--tls-ca-file": settings.tls_ca_file,
                 "--tls-key-password-file": settings.tls_key_password_file}  # fmt: skip
        if any(given.values()):
            alone = ", ".join(option for option, path in given.items() if path)
            raise TlsError(f"HTTPS needs --tls-cert-file and --tls-key-file; given: {alone}.")
        return {}
    password = _read(settings.tls_key_password_file).rstrip("\r\n") if settings.tls_key_password_file else ""
    _try_out(certificate, key, password, settings.tls_ca_file)
    return {
        "ssl_certfile": certificate,
        "ssl_keyfile": key,
        "ssl_keyfile_password": password or None,
        "ssl_ciphers": _CIPHERS,
        "ssl_ca_certs": settings.tls_ca_file,
        "ssl_cert_reqs": ssl.CERT_REQUIRED if settings.tls_ca_file else ssl.CERT_NONE,
    }


def _try_out(certificate: Path, key: Path, password: str, authorities: Path | None) -> None:
    for path in (certificate, key, authorities):
        if path is not None:
            _read(path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # Without a password, even an empty one, OpenSSL would ask for it on the terminal.
        context.load_cert_chain(certificate, key, lambda: password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise TlsError(f"{key} is not the private key of the certificate in {certificate}.") from error
        raise TlsError(
            f"{certificate} and {key} cannot be used for HTTPS ({error.reason or error}). PEM files are needed, and "
            "--tls-key-password-file where the key has a password."
        ) from error
    except ValueError as error:  # the password of an encrypted key is too short or too long for OpenSSL
        raise TlsError(f"{key} cannot be opened with the password of --tls-key-password-file: {error}.") from error
    if authorities is not None:
        try:
            context.load_verify_locations(authorities)
        except ssl.SSLError as error:
            raise TlsError(f"{authorities} holds no certificates that can be used: {error.reason or error}.") from error


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise TlsError(f"{path} cannot be read: {error.strerror}.") from error
