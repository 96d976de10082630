"""Small networks get several workers, large ones get one; decided before anything is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.serving import worker_count
from app.serving.worker_count import worthwhile_workers
from app.settings import Settings
from app.store.manifest import MANIFEST_FILE, Manifest
from app.store.signing import new_signing_key, read_private_key, sign_version


def publish(store: Path, template: Path, **networks: tuple[int, int]) -> None:
    """Writes a manifest, and nothing else of a version, for each name with its parameters and image side."""
    manifest = Manifest.read(template / "colours" / "1")
    for name, (parameters, side) in networks.items():
        architecture = manifest.architecture.model_copy(update={"parameter_count": parameters})
        preprocessing = manifest.preprocessing.model_copy(update={"image_size": side})
        update = {"name": name, "architecture": architecture, "preprocessing": preprocessing}
        folder = store / name / "1"
        folder.mkdir(parents=True)
        (folder / MANIFEST_FILE).write_text(manifest.model_copy(update=update).to_json(), encoding="utf-8")


def workers_of(store: Path, model: str, *, cores: int = 2, **settings: object) -> int:
    chosen = {"model": model, "model_store": store, "cores": cores, **settings}
    return worthwhile_workers(Settings(**chosen))  # type: ignore[arg-type]


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_count, "_computes_on_cpu", lambda _device: True)


@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize(
    ("parameters", "side", "workers"),
    [
        (4_652_008, 224, {1: 1, 2: 1, 4: 1, 16: 4}),  # EfficientNet-Lite0
        (25_557_032, 224, {2: 1, 16: 1, 64: 3}),  # ResNet-50
        (156_186, 32, {1: 1, 2: 2, 16: 16}),  # three small convolutions
        (10_000_000, 32, {2: 2}),  # the largest that a core computes 500 times a second, by the estimate
        (10_000_001, 32, {2: 1, 4: 3}),
        (0, 16, {1: 1, 2: 2}),
    ],
)
def test_workers_follow_the_network_and_the_cores(
    tmp_path: Path, colours_store: Path, parameters: int, side: int, workers: dict[int, int]
) -> None:
    publish(tmp_path, colours_store, network=(parameters, side))

    assert {cores: workers_of(tmp_path, "network", cores=cores) for cores in workers} == workers


@pytest.mark.usefixtures("on_cpu")
def test_slowest_of_several_models_decides(tmp_path: Path, colours_store: Path) -> None:
    publish(tmp_path, colours_store, small=(156_186, 32), large=(4_652_008, 224))

    assert workers_of(tmp_path, "small") == 2
    assert workers_of(tmp_path, "small,large") == 1


@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize(("size_bytes", "workers"), [(1_000, 2), (5_000_000, 2), (20_000_000, 1)])
def test_plain_file_is_judged_by_its_size(tmp_path: Path, size_bytes: int, workers: int) -> None:
    file = tmp_path / "model.pt"
    with file.open("wb") as stream:
        stream.truncate(size_bytes)

    assert workers_of(tmp_path, str(file)) == workers


@pytest.mark.usefixtures("on_cpu")
def test_what_cannot_be_read_gets_one_worker(tmp_path: Path, store_root: Path) -> None:
    assert workers_of(store_root, "colours") == 2
    assert workers_of(store_root, "colours,missing") == 1
    assert workers_of(store_root, "colours/2") == 1
    assert workers_of(store_root, str(tmp_path / "missing.pt")) == 1
    (store_root / "colours" / "1" / MANIFEST_FILE).write_text("nonsense", encoding="utf-8")
    assert workers_of(store_root, "colours") == 1


@pytest.mark.usefixtures("on_cpu")
def test_manifest_counts_only_when_a_trusted_key_has_signed_it(
    store_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private, public = tmp_path / "private.pem", tmp_path / "public.pem"
    public.write_text(new_signing_key(private), encoding="ascii")
    with monkeypatch.context() as patch:
        patch.setattr(Manifest, "from_json", lambda *_, **__: pytest.fail("An unsigned manifest was parsed."))
        assert workers_of(store_root, "colours", trusted_keys=public) == 1
    sign_version(store_root / "colours" / "1", read_private_key(private))

    assert workers_of(store_root, "colours", trusted_keys=public) == 2


@pytest.mark.slow
@pytest.mark.parametrize(("device", "workers"), [("cpu", 2), ("cuda:99", 1)])
def test_another_device_than_the_cpu_gets_one_worker(colours_store: Path, device: str, workers: int) -> None:
    assert workers_of(colours_store, "colours", device=device) == workers
