"""A service with trusted keys loads only what they signed, and does not even open the rest."""

from __future__ import annotations

import gc
import importlib.util
import json
import shutil
import stat
import tempfile
from pathlib import Path

import pytest
import torch

from app.__main__ import main
from app.errors import ArtifactError
from app.inference.artifact import Artifact
from app.inference.loading import load_artifact
from app.store.manifest import MANIFEST_FILE, MODEL_FILE, SIGNATURE_FILE
from app.store.model_store import ModelStore
from app.store.publishing import hash_file
from app.store.regular_files import open_regular
from app.store.signatures import SignatureError, TrustedKeys
from app.store.signing import new_signing_key, read_private_key, sign_version
from tests.support.colours import StartApp, colour_image, export_colours


class Signer:
    """A pair of keys, in files."""

    def __init__(self, folder: Path, name: str) -> None:
        self.private, self.public = folder / f"{name}.pem", folder / f"{name}.public.pem"
        self.public.write_text(new_signing_key(self.private))

    def sign(self, folder: Path) -> None:
        sign_version(folder, read_private_key(self.private))


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    return Signer(tmp_path, "publisher")


def _load(store_root: Path, trusted: Path, reference: str = "colours") -> Artifact:
    return load_artifact(reference, ModelStore(store_root, TrustedKeys.configured(trusted)))


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files of a model that have been opened to be loaded."""
    paths: list[str] = []

    def remember(path: Path) -> object:
        paths.append(str(path))
        return open_regular(path)

    monkeypatch.setattr("app.inference.loading.open_regular", remember)
    return paths


def test_signed_model_serves(start_app: StartApp, store_root: Path, signer: Signer) -> None:
    signer.sign(store_root / "colours" / "1")
    client = start_app(model_store=store_root, trusted_keys=signer.public)

    answer = client.post("/predict", content=colour_image("blue")).json()
    assert answer["predictions"][0]["class_name"] == "blue"


def test_unsigned_model_does_not_serve_and_says_so(start_app: StartApp, store_root: Path, signer: Signer) -> None:
    client = start_app(model_store=store_root, trusted_keys=signer.public)
    response = client.get("/health/ready")

    assert (response.status_code, response.json()["code"]) == (503, "not_ready")
    assert "is not signed" in response.json()["detail"]


def _by_a_stranger(folder: Path) -> None:
    Signer(folder.parents[2], "stranger").sign(folder)


def _other_model(folder: Path) -> None:
    """The files and the manifest are of one piece, and the signature was good for what was there before."""
    model = folder / MODEL_FILE
    model.write_bytes(model.read_bytes() + b"\0")
    manifest = json.loads((folder / MANIFEST_FILE).read_text())
    manifest["files"][MODEL_FILE] = hash_file(model).model_dump()
    (folder / MANIFEST_FILE).write_text(json.dumps(manifest))


def _same_size(folder: Path) -> None:
    model = bytearray((folder / MODEL_FILE).read_bytes())
    model[len(model) // 2] ^= 1
    (folder / MODEL_FILE).write_bytes(model)


def _posing_as_newer(folder: Path) -> None:
    folder.rename(folder.parent / "9")


@pytest.mark.parametrize(
    ("tamper", "complaint"),
    [
        pytest.param(lambda folder: (folder / SIGNATURE_FILE).unlink(), "is not signed", id="signature deleted"),
        pytest.param(lambda folder: (folder / SIGNATURE_FILE).write_bytes(b""), "no signature", id="signature emptied"),
        pytest.param(
            lambda folder: (folder / SIGNATURE_FILE).write_bytes(bytes(64)), "no signature", id="signature of zeros"
        ),
        pytest.param(lambda folder: (folder / MANIFEST_FILE).write_bytes(b"{"), "no signature", id="manifest replaced"),
        pytest.param(
            lambda folder: (folder / MANIFEST_FILE).write_bytes((folder / MANIFEST_FILE).read_bytes() + b" "),
            "no signature",
            id="manifest longer by a space",
        ),
        pytest.param(_by_a_stranger, "no signature", id="signed by a stranger"),
        pytest.param(_other_model, "no signature", id="other model, manifest to match"),
        pytest.param(_same_size, "is not the file that was published", id="other model of the same size"),
        pytest.param(lambda folder: (folder / MODEL_FILE).write_bytes(b"x"), "has 1 bytes", id="other model, smaller"),
        pytest.param(lambda folder: (folder / MODEL_FILE).unlink(), "cannot be copied", id="model deleted"),
        pytest.param(_posing_as_newer, "holds a manifest of colours/1", id="older version posing as newer"),
    ],
)
def test_what_was_tampered_with_is_never_given_to_torch(
    store_root: Path, signer: Signer, opened: list[str], tamper: object, complaint: str
) -> None:
    folder = store_root / "colours" / "1"
    signer.sign(folder)
    assert callable(tamper)
    tamper(folder)
    with pytest.raises(ArtifactError, match=complaint):
        _load(store_root, signer.public)

    assert opened == []


def test_file_of_its_own_is_not_loaded(store_root: Path, signer: Signer, opened: list[str], tmp_path: Path) -> None:
    signer.sign(store_root / "colours" / "1")
    file = shutil.copy(store_root / "colours" / "1" / MODEL_FILE, tmp_path)
    with pytest.raises(SignatureError, match="only signed models of the store"):
        _load(store_root, signer.public, str(file))

    assert opened == []


def test_version_outside_the_store_is_loaded_if_it_is_signed(
    store_root: Path, signer: Signer, opened: list[str], tmp_path: Path
) -> None:
    folder = shutil.copytree(store_root / "colours" / "1", tmp_path / "elsewhere" / "colours" / "1")
    with pytest.raises(SignatureError):
        _load(store_root, signer.public, str(folder / MODEL_FILE))
    assert opened == []

    signer.sign(folder)
    _load(store_root, signer.public, str(folder / MODEL_FILE))
    assert len(opened) == 1


def test_model_changed_after_it_was_verified_is_not_what_is_loaded(
    store_root: Path, signer: Signer, opened: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What is loaded is a copy that the neighbour in the store cannot reach; it goes when the model goes."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    signer.sign(store_root / "colours" / "1")
    artifact = load_artifact("colours", ModelStore(store_root, TrustedKeys.configured(signer.public)))
    private = Path(opened[0]).parent

    assert private.parent == tmp_path
    assert stat.S_IMODE(private.stat().st_mode) == 0o700
    del artifact
    gc.collect()
    assert not private.exists()


def test_damaged_model_leaves_no_copy_behind(
    store_root: Path, signer: Signer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    signer.sign(store_root / "colours" / "1")
    _same_size(store_root / "colours" / "1")
    with pytest.raises(ArtifactError):
        _load(store_root, signer.public)

    assert list(temporary.iterdir()) == []


def test_keys_are_rotated_by_trusting_both_for_a_while(store_root: Path, signer: Signer, tmp_path: Path) -> None:
    successor = Signer(tmp_path, "successor")
    export_colours(store_root)
    signer.sign(store_root / "colours" / "1")
    successor.sign(store_root / "colours" / "2")
    both = tmp_path / "both.pem"
    both.write_text(f"since May\n{signer.public.read_text()}\n{successor.public.read_text()}")

    assert _load(store_root, both, "colours/1")
    assert _load(store_root, both, "colours/2")
    successor.sign(store_root / "colours" / "1")  # signed again: the old signature is replaced
    assert _load(store_root, successor.public, "colours/1")


def test_damaged_version_is_not_signed(store_root: Path, signer: Signer) -> None:
    _same_size(store_root / "colours" / "1")
    with pytest.raises(ArtifactError, match="is not the file that was published"):
        signer.sign(store_root / "colours" / "1")

    assert not (store_root / "colours" / "1" / SIGNATURE_FILE).exists()


@pytest.mark.parametrize(
    "content", [None, "", "no key", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"]
)
def test_service_without_readable_trusted_keys_does_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], content: str | None
) -> None:
    trusted = tmp_path / "trusted.pem"
    if content is not None:
        trusted.write_text(content)
    monkeypatch.setattr("sys.argv", ["image-predictor", "serve", "--port", "0", "--trusted-keys", str(trusted)])
    with pytest.raises(SystemExit) as exit_info:
        main()

    assert exit_info.value.code == 2
    assert str(trusted) in capsys.readouterr().err


def test_private_key_is_no_trusted_key_nor_the_other_way_round(signer: Signer) -> None:
    with pytest.raises(SignatureError, match="no public keys"):
        TrustedKeys.configured(signer.private)
    with pytest.raises(SignatureError, match="no unencrypted private key"):
        read_private_key(signer.public)


def test_commands_make_keys_and_sign(
    store_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    private, public = tmp_path / "private.pem", tmp_path / "public.pem"

    def run(*arguments: str) -> str:
        monkeypatch.setattr("sys.argv", ["image-predictor", *arguments])
        main()
        return capsys.readouterr().out

    public.write_text(run("new-signing-key", str(private)))
    signing = ("--private-key", str(private), "--model-store", str(store_root))
    export_colours(store_root)
    assert "colours/2" in run("sign", "colours", *signing)
    assert "colours/1" in run("sign", "colours/1", *signing)

    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert _load(store_root, public, "colours/1")
    assert _load(store_root, public, "colours/2")
    with pytest.raises(SystemExit):  # a key is never overwritten
        run("new-signing-key", str(private))


HOSTILE = """
import torch


class Hostile(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.t = torch.zeros(1)

    @torch.jit.export
    def __getstate__(self):
        return self.t, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, bool]):
        self.training = state[1]
        self.t = torch.from_file("PATH", True, 4, dtype=torch.uint8, layout=torch.strided, device="cpu")
        self.t.fill_(65)

    def forward(self, x):
        return x
"""


def test_loading_a_torchscript_file_runs_its_code(tmp_path: Path) -> None:
    """Why models are signed: this file writes another one merely by being loaded, without a line of Python."""
    source, written = tmp_path / "hostile.py", tmp_path / "written"
    source.write_text(HOSTILE.replace("PATH", str(written)))  # torch.jit.script reads the source's file
    specification = importlib.util.spec_from_file_location("hostile", source)
    assert specification
    assert specification.loader
    hostile = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(hostile)
    torch.jit.script(hostile.Hostile()).save(str(tmp_path / "hostile.pt"))
    assert not written.exists()
    torch.jit.load(tmp_path / "hostile.pt")  # type: ignore[no-untyped-call]

    assert written.read_bytes() == b"AAAA"
