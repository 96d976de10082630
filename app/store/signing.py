"""Signing models: where they are published, never where they are served.

new_signing_key -> a private key for whoever publishes, a public one for every service -> sign_version -> manifest.sig
"""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from app.errors import ArtifactError
from app.store.manifest import MANIFEST_FILE, SIGNATURE_FILE, Manifest
from app.store.model_store import check_place, verify_files
from app.store.publishing import locked, write_atomically
from app.store.signatures import SignatureError


def new_signing_key(path: Path) -> str:
    """Writes a new private key, as unencrypted PEM that only its owner may read.

    Returns:
        the public key, as PEM.

    Raises:
        SignatureError: the file is there already, or cannot be written.
    """
    key = Ed25519PrivateKey.generate()
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise SignatureError(f"{path} cannot be written: {error.strerror}.") from error
    with os.fdopen(descriptor, "wb") as file:
        file.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def read_private_key(path: Path) -> Ed25519PrivateKey:
    """Reads an unencrypted PEM file.

    Raises:
        SignatureError: it is missing, or holds no Ed25519 private key.
    """
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise SignatureError(f"{path} cannot be read: {error.strerror}.") from error
    except (TypeError, ValueError, UnsupportedAlgorithm) as error:  # TypeError: it is encrypted
        raise SignatureError(f"{path} holds no unencrypted private key in PEM.") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise SignatureError(f"{path} holds a private key that is not an Ed25519 one.")
    return key


def sign_version(folder: Path, key: Ed25519PrivateKey) -> Path:
    """Signs a published version, after its files have been compared with its manifest; an older signature is replaced.

    Returns:
        the file of the signature, which appears whole or not at all.

    Raises:
        ArtifactError: the version is damaged, or the store cannot be written: nothing has been signed.
    """
    try:
        signed = (folder / MANIFEST_FILE).read_bytes()
        manifest = Manifest.from_json(signed, origin=str(folder / MANIFEST_FILE))
        check_place(folder, manifest)
        with locked(folder):
            verify_files(folder, manifest)
            write_atomically(signature_file := folder / SIGNATURE_FILE, key.sign(signed))
            return signature_file
    except OSError as error:
        raise ArtifactError(f"{folder} cannot be signed: {error.strerror}.") from error
