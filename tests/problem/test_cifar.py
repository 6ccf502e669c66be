"""CIFAR in both published formats, written here byte by byte, and what is refused."""

import os
import pickle
import struct
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_datasets import preset

from harness.config import ConfigError
from harness.problem import cifar
from harness.problem.cifar import CIFAR, FOLDERS
from harness.problem.datasets import data_digest, obtain
from harness.problem.splits import load_split

IMAGES = 4
"""of one batch"""


@pytest.fixture(autouse=True)
def empty_machine(tmp_path, monkeypatch):
    """No cache, no data and no network but what a test makes."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("TRAINDYN_DATA", raising=False)

    def refuse(folder):
        raise OSError("no route\nto host")

    monkeypatch.setattr(cifar, "FETCH", {10: refuse, 100: refuse})


def python2_string(text):
    """As Python 2 pickles a `str`."""
    data = text if isinstance(text, bytes) else text.encode()
    return b"T" + struct.pack("<i", len(data)) + data


def python2_batch(pixels, labels, label_name):
    """A batch of the Python version as its authors' Python 2 wrote it (pickle protocol 2)."""
    dtype = b"cnumpy\ndtype\n" + python2_string("u1") + b"K\x00K\x01\x87R"
    dtype += b"(K\x03" + python2_string("|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + python2_string("b") + b"\x87R"
    shape = b"M" + struct.pack("<H", len(pixels)) + b"M" + struct.pack("<H", 3072) + b"\x86"
    array += b"(K\x01" + shape + dtype + b"\x89" + python2_string(pixels.tobytes()) + b"tb"
    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    named = python2_string("data") + array + python2_string(label_name) + numbers
    named += python2_string("batch_label") + python2_string("training batch 1 of 5")
    return b"\x80\x02}(" + named + b"u."


def batches(classes):
    """(pixels, coarse labels, labels) of every batch, the test batch last."""
    rng = np.random.default_rng(classes)
    count = 6 if classes == 10 else 2
    return [
        (
            rng.integers(0, 256, (IMAGES, 3072), dtype=np.uint8),
            rng.integers(0, 20, IMAGES, dtype=np.uint8),
            rng.integers(0, classes, IMAGES, dtype=np.uint8),
        )
        for _ in range(count)
    ]


def put(root, classes, version):
    """The files of a CIFAR of few images below `root`; version 0 is the binary one, 1 the Python one."""
    folder, names = list(FOLDERS[classes].items())[version]
    (root / folder).mkdir(parents=True)
    for name, (pixels, coarse, labels) in zip(names, batches(classes), strict=True):
        if version == 0:
            columns = [labels[:, None], pixels] if classes == 10 else [coarse[:, None], labels[:, None], pixels]
            data = np.concatenate(columns, axis=1).tobytes()
        else:
            data = python2_batch(pixels, labels, "labels" if classes == 10 else "fine_labels")
        (root / folder / name).write_bytes(data)
    return root / folder


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """The configuration of a CIFAR of few images, by its number of classes."""

    def configuration(classes):
        parts = ((len(batches(classes)) - 1) * IMAGES, IMAGES)
        monkeypatch.setattr(CIFAR, "totals", lambda self, config: parts)
        return replace(preset(f"cifar{classes}"), val_size=2, root=str(tmp_path / "root"))

    return configuration


@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize("classes", [10, 100])
def test_images_and_labels_are_those_of_the_files(tmp_path, tiny, classes, version):
    put(tmp_path / "root", classes, version)
    config = tiny(classes)
    expected = batches(classes)
    for split, parts in (("test", expected[-1:]), ("train", expected[:-1])):
        images = load_split(config, split)
        pixels = np.concatenate([p for p, _, _ in parts])
        labels = np.concatenate([y for _, _, y in parts])
        for image, label in zip(images.images_B, images.labels_B, strict=True):
            # a record holds the red plane, then green, then blue, each row by row
            (index,) = np.flatnonzero((pixels == image.numpy().reshape(-1)).all(1))
            assert labels[index] == label
    assert len(load_split(config, "train")) == len(expected[:-1]) * IMAGES - 2


@pytest.mark.parametrize("classes", [10, 100])
def test_both_formats_are_the_same_data(tmp_path, tiny, classes):
    config = tiny(classes)
    put(tmp_path / "root", classes, 1)
    python = data_digest(config)
    put(tmp_path / "other", classes, 0)
    assert data_digest(replace(config, root=str(tmp_path / "other"))) == python is not None
    # the folder itself may be the root
    assert data_digest(replace(config, root=str(tmp_path / "other" / next(iter(FOLDERS[classes]))))) == python


def test_the_binary_version_is_preferred(tmp_path, tiny):
    folder = put(tmp_path / "root", 10, 0)
    put(tmp_path / "root", 10, 1)
    assert {path.parent for path in CIFAR(10).find(tiny(10))} == {folder}


@pytest.mark.parametrize("classes", [10, 100])
def test_absent_data_say_in_one_line_how_to_get_them(tmp_path, tiny, classes):
    config = tiny(classes)
    assert data_digest(config) is None
    with pytest.raises(ConfigError) as caught:
        obtain(config)
    message = str(caught.value)
    assert message.startswith(f"dataset.cifar{classes}: no CIFAR-{classes} in {tmp_path / 'root'}, ")
    for word in ("(no route to host)", cifar.HOME, *map(str, FOLDERS[classes]), f"dataset.cifar{classes}.root"):
        assert word in message
    assert "\n" not in message


def test_fetched_data_are_found_and_not_fetched_again(tmp_path, tiny, monkeypatch):
    monkeypatch.setitem(cifar.FETCH, 10, lambda folder: put(folder.parent, 10, 1))
    config = tiny(10)
    assert obtain(config) == f"CIFAR-10: fetched by torchvision into {tmp_path / 'root' / 'cifar-10-batches-py'}"
    assert obtain(config) is None


class Sly:
    """Pickled as a call that would leave a trace."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"nothing", "."),
        (python2_batch(np.zeros((3, 3072), np.uint8), [1, 2], "labels"), "labels of shape"),
        (python2_batch(np.zeros((2, 3072), np.uint8), [1, 10], "labels"), "0 to 9"),
        (python2_batch(np.zeros((2, 3072), np.uint8), [1, 2], "fine_labels"), "labels"),
        (python2_batch(np.zeros((2, 3072), np.uint8), [1, 2], "labels")[:-40], "."),
    ],
)
def test_a_damaged_batch_is_named_in_one_line(tmp_path, tiny, data, reason):
    folder = put(tmp_path / "root", 10, 1)
    (folder / "data_batch_3").write_bytes(data)
    with pytest.raises(ConfigError, match=rf"data_batch_3 must be a batch of CIFAR-10: .*{reason}") as caught:
        load_split(tiny(10), "train")
    assert "\n" not in str(caught.value)


def test_a_binary_batch_of_another_length_is_refused(tmp_path, tiny):
    folder = put(tmp_path / "root", 10, 0)
    path = folder / "test_batch.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ConfigError, match=r"test_batch\.bin must be a batch of CIFAR-10: .*multiple of 3073"):
        load_split(tiny(10), "test")


def test_nothing_in_a_pickle_is_called(tmp_path, tiny):
    folder = put(tmp_path / "root", 10, 1)
    (folder / "test_batch").write_bytes(pickle.dumps({b"data": Sly(tmp_path / "trace"), b"labels": [1]}))
    with pytest.raises(ConfigError, match=r"it asks for posix\.mkdir, which no CIFAR batch does"):
        load_split(tiny(10), "test")
    assert not (tmp_path / "trace").exists()


def test_normalised_pixels_have_the_channels_of_the_file(tmp_path, tiny):
    put(tmp_path / "root", 10, 1)
    images = load_split(tiny(10), "test")
    batch, _ = next(images.batches(IMAGES))
    assert batch.shape == (IMAGES, 3, 32, 32)
    red = (images.images_B[:, 0].double() / 255 - 0.4914) / 0.2470
    assert torch.allclose(batch[:, 0].double(), red, atol=1e-5)
