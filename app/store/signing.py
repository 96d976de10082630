"""Makes signing keys and signs models. This is done where models are published, never where they are served.

new_signing_key -> a private key for the publisher, a public key for every service -> sign_version -> manifest.sig
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
from app.store.manifest import MANIFEST_FILE, MAX_MANIFEST_BYTES, SIGNATURE_FILE, Manifest
from app.store.model_store import check_place, verify_files
from app.store.publishing import locked, write_atomically
from app.store.regular_files import read_small
from app.store.signatures import SignatureError


def new_signing_key(path: Path) -> str:
    """Makes a pair of keys and writes the private key, as unencrypted PEM that only its owner may read.

    Args:
        path: the file to write the private key to.

    Returns:
        the public key, as PEM.

    Raises:
        SignatureError: the file exists already, or cannot be written.
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
    """Reads a private key from an unencrypted PEM file.

    Raises:
        SignatureError: the file cannot be read, or holds no unencrypted Ed25519 private key.
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
    """Compares the files of a published version with its manifest, then signs the manifest.

    Args:
        folder: the folder of the version. An older signature in it is replaced.
        key: the publisher's private key.

    Returns:
        the file of the signature.

    Raises:
        ArtifactError: the version is damaged, or the store cannot be written. Nothing has been signed then.
    """
    try:
        signed = read_small(folder / MANIFEST_FILE, max_bytes=MAX_MANIFEST_BYTES)
        manifest = Manifest.from_json(signed, origin=str(folder / MANIFEST_FILE))
        check_place(folder, manifest)
        with locked(folder):
            verify_files(folder, manifest)
            write_atomically(signature_file := folder / SIGNATURE_FILE, key.sign(signed))
            return signature_file
    except OSError as error:
        raise ArtifactError(f"{folder} cannot be signed: {error.strerror}.") from error
