"""API keys: made once, kept as hashes, found in constant time, changed without a restart.

new_key -> the key for the client, and a line `name:sha256` for the file -> KeyRing.find(key) -> whose key it is

A key has 256 random bits: nobody guesses it, however fast the hash is. That is why a plain sha256 of it can be kept.
bcrypt and its like slow down the guessing of short passwords; here they would make every request cost a tenth of a
second.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import secrets
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from app.errors import PredictorError
from app.settings import Settings

logger = logging.getLogger(__name__)

KEY_PREFIX: Final = "ipk_"
"""How every key begins that is made here, so that scanners for leaked secrets can recognise it."""
_KEY_BYTES: Final = 32
_CHECK_INTERVAL_S: Final = 1.0

Role = Literal["", "metrics"]
_LINE: Final = re.compile(
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9._@-]{0,63}):(?P<sha256>[0-9a-fA-F]{64})(?::(?P<role>metrics))?"
)


class KeyFileError(PredictorError):
    """Keys cannot be read, or are not written as they should be."""

    code = "invalid_parameter"


@dataclass(frozen=True)
class Key:
    """What is known about a key; never the key itself.

    Attributes:
        name: the name of its owner.
        role: `metrics` if the key opens /metrics alone, else empty.
        digest: the sha256 of the key, 32 bytes.
    """

    name: str
    role: Role
    digest: bytes = field(repr=False)


def new_key(name: str, role: Role = "") -> tuple[str, str]:
    """Makes a key.

    Args:
        name: the name of its owner.
        role: `metrics` for a key that opens /metrics alone, else empty.

    Returns:
        the key, which is kept nowhere, and the line for the file.

    Raises:
        KeyFileError: the name has characters that a name may not have, or too many.
    """
    key = KEY_PREFIX + secrets.token_urlsafe(_KEY_BYTES)
    line = f"{name}:{hashlib.sha256(key.encode()).hexdigest()}{role and ':' + role}"
    if not _LINE.fullmatch(line):
        raise KeyFileError(f"{name!r} is no name for a key: use letters, digits, '.', '_', '@' and '-', at most 64.")
    return key, line


def parse_keys(text: str, *, origin: str) -> tuple[Key, ...]:
    """Reads `name:sha256` or `name:sha256:metrics`, one a line; empty lines and `# comments` are skipped.

    Several lines may share a name: a client has its old key and its new one while it changes over.

    Args:
        text: the lines.
        origin: where the lines come from, for messages.

    Raises:
        KeyFileError: a line is something else, or there is no key. The message never repeats a line, because somebody
            may have put the key itself there.
    """
    keys = []
    for number, line in enumerate(text.splitlines(), start=1):
        content = line.partition("#")[0].strip()
        if not content:
            continue
        found = _LINE.fullmatch(content)
        if not found:
            raise KeyFileError(
                f"{origin}, line {number}: not `name:sha256` in 64 hexadecimal digits. "
                "`image-predictor new-key NAME` prints such a line."
            )
        role: Role = "metrics" if found["role"] else ""
        keys.append(Key(found["name"], role, bytes.fromhex(found["sha256"])))
    if not keys:
        raise KeyFileError(f"{origin} has no keys. `image-predictor new-key NAME` makes one.")
    return tuple(keys)


class KeyRing:
    """The keys that are good at this moment; reads their file again when it changes.

    Args:
        file: the file of keys, which may change while the service runs; None for no file.
        listed: keys that never change, separated by commas and written as the lines of the file; empty for none.

    Raises:
        KeyFileError: there are no keys, or some cannot be read.
    """

    def __init__(self, file: Path | None, listed: str = "") -> None:
        self._listed = parse_keys(listed.replace(",", "\n"), origin="PREDICTOR_API_KEYS") if listed else ()
        self._file = file
        self._seen: object = None
        self._checked_at = time.monotonic()
        self._keys = self._listed
        if file is not None:
            self._seen = _signature(file)
            self._keys += _read(file)

    @classmethod
    def of_clients(cls, settings: Settings) -> KeyRing | None:
        """Returns the keys that clients need; None if they need none."""
        has_keys = settings.api_keys_file is not None or settings.api_keys
        return cls(settings.api_keys_file, settings.api_keys) if has_keys else None

    @classmethod
    def of_admins(cls, settings: Settings) -> KeyRing | None:
        """Returns the keys of admins; None if there are none."""
        return cls(settings.admin_keys_file) if settings.admin_keys_file is not None else None

    def find(self, key: str) -> Key | None:
        """Returns what is known about a key, None if it is not good.

        It takes the same time for every key that is not good.
        """
        self._refresh()
        digest = hashlib.sha256(key.encode(errors="surrogateescape")).digest()
        found = None
        for known in self._keys:  # never fewer than all, so that the time tells nothing
            if hmac.compare_digest(known.digest, digest):
                found = known
        return found

    def _refresh(self) -> None:
        """Reads the file again if it has changed. Looks at most once a second."""
        now = time.monotonic()
        if self._file is None or now - self._checked_at < _CHECK_INTERVAL_S:
            return
        self._checked_at = now
        seen = _signature(self._file)
        if seen == self._seen:
            return
        self._seen = seen  # before reading, so that what is written meanwhile is seen the next time
        try:
            self._keys = self._listed + _read(self._file)
        except KeyFileError as error:
            logger.error("%s The keys read before stay good.", error.detail)
        else:
            logger.info("%s has changed: %d keys.", self._file, len(self._keys))


def _signature(file: Path) -> object:
    """Returns a value that changes when the file is written, replaced or removed."""
    try:
        status = file.stat()  # follows links: Kubernetes mounts secrets as links
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _read(file: Path) -> tuple[Key, ...]:
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise KeyFileError(f"{file} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise KeyFileError(f"{file} is not a text file.") from error
    return parse_keys(text, origin=str(file))
