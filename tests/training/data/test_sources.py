"""Images come from class folders, torchvision data sets in their own formats, and scikit-learn's digits."""

from __future__ import annotations

import gc
import gzip
import hashlib
import pickle
import struct
import tarfile
import threading
import warnings
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from torchvision import datasets

from app.images.decode import decode
from tests.support.class_folders import write_classes, write_patches
from tests.support.images import Pixels
from training.data.sources import ArraySource, digits_source, folder_source, open_source
from training.errors import DataError


@pytest.fixture
def classes(tmp_path: Path, photos: dict[str, Pixels]) -> Path:
    return write_classes(tmp_path / "photos", {name: photos[name] for name in ("cat", "coffee")}, per_class=3)


def test_class_folders_are_classes(classes: Path) -> None:
    source = open_source(str(classes), download_folder=classes)
    assert source.class_names == ("cat", "coffee")
    assert list(source.labels) == [0, 0, 0, 1, 1, 1]
    assert source.identifier(3) == "coffee/000.jpg"
    assert set(source.given_split) == {None}


def test_hidden_files_are_passed_over_and_subfolders_are_not(classes: Path, cat: Pixels) -> None:
    (classes / "cat" / ".DS_Store").write_bytes(b"\0")
    (classes / ".cache").mkdir()
    write_patches(classes / "cat" / "more", cat, 1, seed=9)
    source = folder_source(classes)
    assert [path for path in source.paths if path.startswith("cat")][-1] == "cat/more/000.jpg"
    assert len(source.paths) == 7


def test_classes_of_test_are_matched_by_name_not_by_position(tmp_path: Path, cat: Pixels) -> None:
    for split, names in {"train": ("ant", "bee", "cow"), "test": ("cow", "bee")}.items():
        for name in names:
            write_patches(tmp_path / split / name, cat, 2, seed=len(name))
    source = folder_source(tmp_path)
    assert source.class_names == ("ant", "bee", "cow")
    of_test = {source.paths[i]: source.labels[i] for i, split in enumerate(source.given_split) if split == "test"}
    assert of_test == {"test/bee/000.jpg": 1, "test/bee/001.jpg": 1, "test/cow/000.jpg": 2, "test/cow/001.jpg": 2}


def test_class_that_train_has_not_is_named(tmp_path: Path, cat: Pixels) -> None:
    for folder in ("train/ant", "train/bee", "test/wasp"):
        write_patches(tmp_path / folder, cat, 2, seed=1)
    with pytest.raises(DataError, match=r"test/wasp is a class that is not in train/ \(ant, bee\)"):
        folder_source(tmp_path)


def test_one_class_is_not_enough(tmp_path: Path, cat: Pixels) -> None:
    write_patches(tmp_path / "cat", cat, 2, seed=1)
    with pytest.raises(DataError, match="at least two classes; there is only 'cat'"):
        folder_source(tmp_path)


def test_empty_class_is_named(classes: Path) -> None:
    (classes / "dog").mkdir()
    with pytest.raises(DataError, match=r"photos/dog is empty. Add images"):
        folder_source(classes)


def test_unknown_name_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"neither a folder nor a data set.*digits, FashionMNIST"):
        open_source("CIFAR11", download_folder=tmp_path)


def test_digits_are_the_ten_classes_of_scikit_learn() -> None:
    source = digits_source()
    assert len(source.labels) == 1797
    assert source.class_names == tuple("0123456789")
    assert source.pixels.max() == 255


def test_encoded_array_decodes_to_its_pixels() -> None:
    source = digits_source()
    decoded = np.asarray(decode(source.encoded(5)).pixels)
    np.testing.assert_array_equal(decoded, np.asarray(source.image(5).pixels))
    np.testing.assert_array_equal(decoded[..., 0], source.pixels[5])


def _write_idx(path: Path, array: Pixels) -> None:
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(header + array.tobytes()))


@pytest.fixture
def grey_digits() -> tuple[Pixels, Pixels]:
    source = digits_source()
    pixels = np.pad(source.pixels[:30], ((0, 0), (10, 10), (10, 10)))  # 28 x 28, as MNIST
    return pixels, np.array(source.labels[:30], dtype=np.uint8)


@pytest.fixture
def served_folder(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder, and the URL where it is served."""
    folder = tmp_path / "server"
    folder.mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        with warnings.catch_warnings():  # torchvision leaves its sockets to the garbage collector
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()
        server.shutdown()
        thread.join()


@pytest.fixture(params=["MNIST", "FashionMNIST"])
def idx_set(
    request: pytest.FixtureRequest,
    served_folder: tuple[Path, str],
    tmp_path: Path,
    grey_digits: tuple[Pixels, Pixels],
    monkeypatch: pytest.MonkeyPatch,
) -> tuple[str, Path, Path]:
    """A server's folder with the set's four files in the idx format, gzipped, as they are downloaded."""
    name: str = request.param
    pixels, labels = grey_digits
    server, url = served_folder
    for prefix, part in (("train", slice(0, 20)), ("t10k", slice(20, 30))):
        _write_idx(server / f"{prefix}-images-idx3-ubyte.gz", pixels[part])
        _write_idx(server / f"{prefix}-labels-idx1-ubyte.gz", labels[part])
    resources = [(path.name, hashlib.md5(path.read_bytes()).hexdigest()) for path in sorted(server.iterdir())]
    monkeypatch.setattr(getattr(datasets, name), "mirrors", [f"{url}/"])
    monkeypatch.setattr(getattr(datasets, name), "resources", resources)
    return name, server, tmp_path / "downloads"


def test_grey_torchvision_set_is_downloaded_and_read(
    idx_set: tuple[str, Path, Path], grey_digits: tuple[Pixels, Pixels]
) -> None:
    name, _, downloads = idx_set
    source = open_source(name.lower(), download_folder=downloads)
    assert isinstance(source, ArraySource)
    np.testing.assert_array_equal(source.pixels, grey_digits[0])
    assert list(source.labels) == grey_digits[1].tolist()
    assert list(source.given_split) == [None] * 20 + ["test"] * 10
    assert len(source.class_names) == 10


def test_without_network_the_way_out_is_told(idx_set: tuple[str, Path, Path]) -> None:
    name, server, downloads = idx_set
    for path in server.iterdir():
        path.unlink()
    with pytest.raises(DataError, match=f"{name} cannot be had in .*Connect this machine to the network, or copy"):
        open_source(name, download_folder=downloads)


def test_cifar10_is_downloaded_and_read(
    served_folder: tuple[Path, str], tmp_path: Path, cat: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, url = served_folder
    images = np.stack([cat[i : i + 32, i : i + 32] for i in range(12)])  # (12, 32, 32, 3)
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    names = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]
    for number, name in enumerate(names):
        rows = images[2 * number : 2 * number + 2].transpose(0, 3, 1, 2).reshape(2, -1)
        (folder / name).write_bytes(pickle.dumps({"data": rows, "labels": [number, 9 - number]}))
    label_names = [f"class {number}" for number in range(10)]
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": label_names}))
    archive = server / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, arcname=folder.name)
    hashes = {name: hashlib.md5((folder / name).read_bytes()).hexdigest() for name in [*names, "batches.meta"]}
    monkeypatch.setattr(datasets.CIFAR10, "url", f"{url}/{archive.name}")
    monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", hashlib.md5(archive.read_bytes()).hexdigest())
    monkeypatch.setattr(datasets.CIFAR10, "train_list", [[name, hashes[name]] for name in names[:5]])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [[names[5], hashes[names[5]]]])
    meta = {"filename": "batches.meta", "key": "label_names", "md5": hashes["batches.meta"]}
    monkeypatch.setattr(datasets.CIFAR10, "meta", meta)
    source = open_source("CIFAR10", download_folder=tmp_path / "downloads")
    assert isinstance(source, ArraySource)
    np.testing.assert_array_equal(source.pixels, images)
    assert source.class_names == tuple(label_names)
    assert list(source.given_split) == [None] * 10 + ["test"] * 2
