"""The commands `new-key`, `new-signing-key` and `sign`: they make keys and signatures, without a running service."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, CliImplicitFlag, CliPositionalArg

from app.api.keys import KeyFileError, new_key
from app.settings import StoreSettings
from app.store.model_store import ModelStore
from app.store.references import split_reference


class NewKey(BaseSettings, cli_kebab_case=True):
    """Make an API key. The key is shown once; the service stores only its hash."""

    name: CliPositionalArg[str] = Field(description="Name of the key's owner, for the log")
    append: Path | None = Field(
        default=None, description="File of keys to append the new key's line to. The command then prints only the key"
    )
    metrics: CliImplicitFlag[bool] = Field(default=False, description="Make a key that opens only /metrics")

    def cli_cmd(self) -> None:
        """Runs the command."""
        key, line = new_key(self.name, "metrics" if self.metrics else "")
        if self.append is None:
            print(f"The key, for the client:        {key}")
            print(f"The line, for --api-keys-file:  {line}")
            return
        try:
            with self.append.open("a+b") as file:
                file.seek(0)
                separator = b"" if (content := file.read()).endswith(b"\n") or not content else b"\n"
                file.write(separator + line.encode() + b"\n")
        except OSError as error:
            raise KeyFileError(f"{self.append} cannot be written: {error.strerror}.") from error
        print(key)


class NewSigningKey(BaseSettings, cli_kebab_case=True):
    """Make a pair of keys for signing models. The private key is written to a file, the public key is printed."""

    private_key: CliPositionalArg[Path] = Field(
        description="File to write the private key to. Keep it on the machine that publishes models"
    )

    def cli_cmd(self) -> None:
        """Runs the command."""
        from app.store.signing import new_signing_key

        print(new_signing_key(self.private_key), end="")


class Sign(StoreSettings):
    """Sign a published model, so that services with --trusted-keys load it."""

    reference: CliPositionalArg[str] = Field(description="Model to sign: NAME for its newest version, or NAME/VERSION")
    private_key: Path = Field(description="File of the private key that new-signing-key has written")

    def cli_cmd(self) -> None:
        """Runs the command."""
        from app.store.signing import read_private_key, sign_version

        name, version = split_reference(self.reference)
        key = read_private_key(self.private_key)
        store = ModelStore(self.model_store)
        if version is None:  # the newest one, not the pinned one: what was just published is to be signed
            version = max(store.versions(name), default=None)
        print(f"Signed: {sign_version(store.resolve(name, version), key)}")
