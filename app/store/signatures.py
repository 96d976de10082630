"""Checks that a trusted key has signed a model's manifest.

manifest.json + manifest.sig -> TrustedKeys.read_signed -> the manifest's bytes, which hold the sha256 of every file

One signature covers the whole artifact. It is checked before anything of the version is parsed, because loading a
TorchScript file runs the code that it holds (docs/security.md). The signature is Ed25519 (RFC 8032) over the plain
bytes of the manifest, so any tool can sign and verify:
`openssl pkeyutl -verify -pubin -inkey trusted.pem -rawin -in manifest.json -sigfile manifest.sig`
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from app.errors import ArtifactError
from app.store.manifest import MANIFEST_FILE, MAX_MANIFEST_BYTES, SIGNATURE_FILE, Manifest
from app.store.regular_files import open_regular, read_small

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

_SIGNATURE_BYTES: Final = 64
_MAX_KEYS_BYTES: Final = 1_000_000
_COPIED_AT_ONCE: Final = 1 << 20  # bytes
_PUBLIC_KEY: Final = re.compile(rb"-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----", re.DOTALL)


class SignatureError(ArtifactError):
    """No trusted key has signed a model, or keys cannot be read."""


class TrustedKeys:
    """The public keys whose signatures count.

    Args:
        keys: the keys. The signature of any one of them is enough.
    """

    def __init__(self, keys: Sequence[Ed25519PublicKey]) -> None:
        self._keys = tuple(keys)

    @classmethod
    def configured(cls, path: Path | None) -> TrustedKeys | None:
        """Reads the trusted keys that the settings name.

        Args:
            path: a PEM file of Ed25519 public keys; None if models need no signature.

        Returns:
            the keys; None if `path` is None.

        Raises:
            SignatureError: the file cannot be read, holds no public keys, or holds one that is not an Ed25519 key;
                or the extra `signing` is not installed.
        """
        if path is None:
            return None
        try:  # only a service that trusts keys needs it, and waits for it
            from cryptography.exceptions import UnsupportedAlgorithm
            from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
            from cryptography.hazmat.primitives.serialization import load_pem_public_key
        except ImportError as error:
            raise SignatureError(
                "Trusted keys need the package cryptography: pip install 'image-predictor[signing]'."
            ) from error
        try:
            text = read_small(path, max_bytes=_MAX_KEYS_BYTES)
        except OSError as error:
            raise SignatureError(f"{path} cannot be read: {error.strerror}.") from error
        keys = []
        for block in _PUBLIC_KEY.findall(text):
            try:
                key = load_pem_public_key(block)
            except (ValueError, UnsupportedAlgorithm) as error:
                raise SignatureError(f"{path} holds a public key that cannot be read.") from error
            if not isinstance(key, Ed25519PublicKey):
                raise SignatureError(f"{path} holds a public key that is not an Ed25519 one.")
            keys.append(key)
        if not keys:
            raise SignatureError(
                f"{path} holds no public keys in PEM. `image-predictor new-signing-key FILE` makes a pair and prints "
                "the public one."
            )
        return cls(keys)

    def read_signed(self, folder: Path) -> bytes:
        """Returns the bytes of a version's manifest after checking their signature. The file is read once.

        Args:
            folder: the folder of the version.

        Raises:
            SignatureError: the manifest is not signed, or not by one of these keys.
            ArtifactError: there is no manifest, or it cannot be read.
        """
        manifest = _read(folder / MANIFEST_FILE, MAX_MANIFEST_BYTES)
        path = folder / SIGNATURE_FILE
        try:
            signature = _read(path, _SIGNATURE_BYTES)
        except ArtifactError as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                raise
            raise SignatureError(
                f"{folder} is not signed, and only signed models may be loaded: image-predictor sign."
            ) from error
        if not any(_is_by(key, signature, manifest) for key in self._keys):
            raise SignatureError(f"{path} is no signature of this manifest by a trusted key.")
        return manifest


def copy_of(folder: Path, manifest: Manifest) -> Path:
    """Copies the files of a version into a new temporary folder, where no other user can change them.

    Args:
        folder: the folder of the version.
        manifest: the version's signed manifest. Its file names and sizes can be relied on.

    Returns:
        the temporary folder. The caller deletes it.

    Raises:
        ArtifactError: a file is missing or of another size, or there is no room for the copy.
    """
    private = Path(tempfile.mkdtemp(prefix="signed-model-"))  # only its owner may enter
    try:
        for file_name, expected in manifest.files.items():
            path = folder / file_name
            with open_regular(path) as file, (private / file_name).open("xb") as copied:
                if (found := os.fstat(file.fileno()).st_size) != expected.size_bytes:
                    raise ArtifactError(f"{path} has {found} bytes, its manifest says {expected.size_bytes}.")
                shutil.copyfileobj(file, copied, _COPIED_AT_ONCE)
    except OSError as error:
        shutil.rmtree(private, ignore_errors=True)
        raise ArtifactError(f"{error.filename or folder} cannot be copied to {private}: {error.strerror}.") from error
    except BaseException:
        shutil.rmtree(private, ignore_errors=True)
        raise
    return private


def _is_by(key: Ed25519PublicKey, signature: bytes, manifest: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(signature, manifest)
    except InvalidSignature:
        return False
    return True


def _read(path: Path, max_bytes: int) -> bytes:
    try:
        return read_small(path, max_bytes=max_bytes)
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}.") from error
