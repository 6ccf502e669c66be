"""Splits, augmentation and sources of image data, against slow and obvious counterparts."""

import csv
import gzip
import hashlib
import os
import shutil
import struct
import subprocess
from collections import Counter
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from sklearn.datasets import load_digits

from harness.config import ConfigError, DatasetConfig, from_mapping
from harness.problem import fashion_mnist, splits
from harness.problem.datasets import assumed, check_sizes, data_digest, obtain, train_images
from harness.problem.fashion_mnist import NAMES, FashionMNIST
from harness.problem.images import ImageSet
from harness.problem.splits import load_split

PRESETS = sorted(path.stem for path in Path(str(files("conf"))).glob("dataset/*.yaml"))
RAW_NAMES = (*NAMES["train"], *NAMES["test"])


def preset(name):
    values = OmegaConf.to_container(OmegaConf.load(Path(str(files("conf"))) / "dataset" / f"{name}.yaml"))
    return from_mapping(DatasetConfig, f"dataset.{name}", assumed(values[name]), name=name)


@pytest.fixture(autouse=True)
def empty_machine(tmp_path, monkeypatch):
    """No cache, no data and no network but what a test makes."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("TRAINDYN_DATA", raising=False)
    monkeypatch.setattr(fashion_mnist, "SYSTEM_FOLDER", tmp_path / "system")
    monkeypatch.setattr(fashion_mnist, "FETCHERS", ())


def idx(array):
    return b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def tiny_payloads():
    """The four files of a data set of 6 training and 4 test images."""
    rng = np.random.default_rng(0)
    shapes = ((6, 28, 28), (6,), (4, 28, 28), (4,))
    arrays = [rng.integers(0, 10, shape, dtype=np.uint8) for shape in shapes]
    return arrays, [idx(array) for array in arrays]


def put(folder, payloads, gz=False):
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in zip(RAW_NAMES, payloads, strict=True):
        (folder / (f"{name}.gz" if gz else name)).write_bytes(gzip.compress(data) if gz else data)


@pytest.fixture
def tiny(monkeypatch):
    """The configuration of a Fashion-MNIST of 10 images."""
    monkeypatch.setattr(FashionMNIST, "totals", lambda self, config: (6, 4))
    return replace(preset("fashion_mnist"), val_size=2)


def numbered(n=40, channels=2, size=5, **augmentation):
    """Images of random pixels whose label is their index."""
    images = torch.randint(
        0, 256, (n, channels, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(3)
    )
    return ImageSet(images, torch.arange(n), (0.2, 0.7), (0.3, 0.5), **augmentation)


def pixels(images, batch):
    """uint8 pixels of a normalised batch, by the inverse of the normalisation."""
    mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (images.mean, images.std))
    return ((batch * std + mean) * 255).round().to(torch.uint8)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_hold_every_key_of_the_schema(name):
    values = OmegaConf.load(Path(str(files("conf"))) / "dataset" / f"{name}.yaml")[name]
    assert set(values) == set(DatasetConfig.__dataclass_fields__) - {"name"}


def test_splits_of_digits_hold_every_image_exactly_once():
    config = preset("digits")
    found = Counter()
    for split in ("train", "val", "test"):
        part = load_split(config, split)
        found.update((image.numpy().tobytes(), int(y)) for image, y in zip(part.images_B, part.labels_B, strict=True))
    digits = load_digits()
    raw = np.rint(digits.images * 255 / 16).astype(np.uint8)
    assert found == Counter((image.tobytes(), int(y)) for image, y in zip(raw, digits.target, strict=True))


def test_validation_does_not_move_with_train_size_nor_test_with_split_seed():
    config = preset("digits")
    small = replace(config, train_size=100)
    assert torch.equal(load_split(config, "val").images_B, load_split(small, "val").images_B)
    assert torch.equal(load_split(small, "train").images_B, load_split(config, "train").images_B[:100])
    other = replace(config, split_seed=1)
    assert not torch.equal(load_split(config, "val").images_B, load_split(other, "val").images_B)

    def content(c):
        return sorted(image.numpy().tobytes() for image in load_split(c, "test").images_B)

    assert content(config) == content(other)


def test_normalisation_of_digits_is_of_the_images_not_held_out():
    config = preset("digits")
    images = torch.cat([load_split(config, split).images_B for split in ("train", "val")]).double() / 255
    assert images.mean().item() == pytest.approx(config.mean[0], abs=5e-5)
    assert images.std(correction=0).item() == pytest.approx(config.std[0], abs=5e-5)


def test_sizes_follow_from_the_published_totals():
    assert check_sizes(preset("fashion_mnist")) == (55_000, 5_000, 10_000, 0)
    assert sum(check_sizes(preset("digits"))) == 1797
    assert train_images(replace(preset("fashion_mnist"), train_size=4096)) == 4096


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_size": 1201}, "dataset.digits.train_size must be at most 1200 "),
        ({"val_size": 1437}, "dataset.digits.val_size must be at most 1436 "),
        ({"test_size": 361}, "dataset.digits.test_size must be at most 360 "),
        ({"source": "digit"}, "dataset.digits.source must be a known source, got 'digit'; nearest: digits"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(change, message):
    with pytest.raises(ConfigError, match="^" + message.replace(".", r"\.")):
        check_sizes(replace(preset("digits"), **change))


@pytest.mark.parametrize(
    ("change", "key"), [({"classes": 9}, r"dataset\.digits\.classes"), ({"size": 9}, r"dataset\.digits must hold")]
)
def test_data_unlike_its_declaration_is_refused(change, key):
    with pytest.raises(ConfigError, match=key):
        load_split(replace(preset("digits"), **change), "train")


def test_digest_of_digits_is_that_of_the_published_table():
    folder = Path(str(files("sklearn"))) / "datasets" / "data"
    with gzip.open(folder / "digits.csv.gz", "rt") as file:
        rows = np.array([[int(float(v)) for v in row] for row in csv.reader(file)], dtype=np.uint8)
    expected = hashlib.sha256(rows[:, :-1].tobytes() + rows[:, -1].tobytes()).hexdigest()
    assert data_digest(preset("digits")) == expected == preset("digits").digest


@pytest.mark.parametrize("gz", [False, True])
@pytest.mark.parametrize("place", ["root", "root/FashionMNIST/raw", "system"])
def test_files_are_found_and_read_wherever_they_may_lie(tmp_path, tiny, gz, place):
    arrays, payloads = tiny_payloads()
    put(tmp_path / place, payloads, gz)
    config = replace(tiny, root=str(tmp_path / "root"))
    test = load_split(config, "test")
    order = [np.flatnonzero((arrays[2] == image.numpy()).all((1, 2))).item() for image in test.images_B[:, 0]]
    assert sorted(order) == [0, 1, 2, 3]
    assert test.labels_B.tolist() == arrays[3][order].tolist()
    assert data_digest(config) == hashlib.sha256(b"".join(payloads)).hexdigest()
    assert obtain(config) is None


def test_root_comes_from_the_environment_and_absent_data_has_no_digest(tmp_path, tiny, monkeypatch):
    monkeypatch.setenv("TRAINDYN_DATA", str(tmp_path / "elsewhere"))
    assert data_digest(tiny) is None
    put(tmp_path / "elsewhere", tiny_payloads()[1])
    assert len(load_split(tiny, "train")) == 4


def test_digest_is_read_once_per_state_of_the_files(tmp_path, tiny, monkeypatch):
    payloads = tiny_payloads()[1]
    put(tmp_path / "root", payloads)
    config = replace(tiny, root=str(tmp_path / "root"))
    reads = []
    genuine = FashionMNIST.payloads
    monkeypatch.setattr(FashionMNIST, "payloads", lambda self, found: reads.append(1) or genuine(self, found))
    first = data_digest(config)
    assert data_digest(config) == first
    assert len(reads) == 1
    path = tmp_path / "root" / RAW_NAMES[0]
    path.write_bytes(payloads[0][:-1] + b"\xff")
    os.utime(path, ns=(1, 1))
    assert data_digest(config) != first


@pytest.mark.parametrize("gz", [False, True])
def test_a_damaged_file_is_named_in_one_line(tmp_path, tiny, gz):
    put(tmp_path / "root", tiny_payloads()[1], gz)
    path = next((tmp_path / "root").glob("train-images*"))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ConfigError, match=path.name) as caught:
        load_split(replace(tiny, root=str(tmp_path / "root")), "train")
    assert "\n" not in str(caught.value)


def test_obtain_says_what_it_tried(tmp_path, tiny, monkeypatch):
    def refused(folder):
        raise OSError("no route\nto host")

    monkeypatch.setattr(fashion_mnist, "FETCHERS", (("first", refused), ("second", lambda folder: folder)))
    with pytest.raises(ConfigError) as caught:
        obtain(replace(tiny, root=str(tmp_path / "root")))
    message = str(caught.value)
    assert "first (no route to host), second (files are missing" in message
    assert message.endswith("dataset=digits needs no download")
    assert "\n" not in message


def test_obtain_refuses_a_root_that_cannot_be_written(tmp_path, tiny):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"dataset\.fashion_mnist\.root must be a folder that can be written"):
        obtain(replace(tiny, root=str(tmp_path / "file" / "below")))


@pytest.mark.skipif(shutil.which("dpkg-deb") is None or shutil.which("dpkg") is None, reason="needs dpkg")
def test_obtain_unpacks_a_package_after_another_way_failed(tmp_path, tiny, monkeypatch):
    package, programs = tmp_path / "package", tmp_path / "programs"
    payloads = tiny_payloads()[1]
    put(package / "usr/share/datasets/fashion-mnist", payloads, gz=True)
    (package / "DEBIAN").mkdir(mode=0o755)
    (package / "DEBIAN/control").write_text(
        "Package: dataset-fashion-mnist\nVersion: 1\nArchitecture: all\n"
        "Maintainer: nobody <nobody@example.org>\nDescription: tiny\n"
    )
    subprocess.run(["dpkg-deb", "-b", package, tmp_path / "tiny.deb"], check=True, capture_output=True)
    programs.mkdir()
    (programs / "apt-get").write_text(
        f"#!/bin/sh\n[ \"$1 $2\" = 'download dataset-fashion-mnist' ] && cp {tmp_path}/tiny.deb .\n"
    )
    (programs / "apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setattr(fashion_mnist, "SYSTEM_FOLDER", Path("/usr/share/datasets/fashion-mnist"))
    monkeypatch.setattr(
        FashionMNIST, "find", lambda self, config: fashion_mnist._files_in(root / "FashionMNIST" / "raw")
    )
    root = tmp_path / "root"

    def refused(folder):
        raise OSError("refused")

    monkeypatch.setattr(
        fashion_mnist, "FETCHERS", (("first", refused), ("apt-get download", fashion_mnist._from_debian))
    )
    config = replace(tiny, root=str(root))
    assert obtain(config).startswith("Fashion-MNIST: fetched by apt-get download into ")
    assert data_digest(config) == hashlib.sha256(b"".join(payloads)).hexdigest()
    assert obtain(config) is None


@pytest.mark.parametrize("size", [16, 5])
def test_resize_agrees_with_pillow(size):
    config = replace(preset("digits"), resize=size, test_size=20)
    images = load_split(config, "test")
    resized = pixels(images, next(images.batches(20))[0])[:, 0].numpy().astype(int)
    originals = load_split(replace(config, resize=None), "test").images_B[:, 0].numpy()
    expected = np.stack(
        [np.asarray(Image.fromarray(i).resize((size, size), Image.Resampling.BILINEAR)) for i in originals]
    )
    assert np.abs(resized - expected.astype(int)).max() <= 1


def test_images_that_grow_stay_small_in_memory_and_are_augmented_before(monkeypatch):
    config = replace(preset("digits"), resize=24, crop_padding=1)
    images = load_split(config, "train")
    assert images.images_B.shape[-2:] == (8, 8)
    batch = next(images.train_batches(4, 0, 0, memory_format=torch.channels_last))
    assert batch.images_B.shape == (4, 1, 24, 24)
    assert batch.images_B.stride()[1] == 1
    plain = next(load_split(replace(config, resize=None), "train").train_batches(4, 0, 0)).images_B
    # the centres of the original pixels keep their values
    assert torch.allclose(batch.images_B[..., 1::3, 1::3], plain, atol=1e-5)


def test_resize_in_chunks_equals_resize_at_once(monkeypatch):
    config = replace(preset("digits"), resize=6, test_size=50)
    whole = load_split(config, "test").images_B
    monkeypatch.setattr(splits, "RESIZE_IMAGES", 7)
    assert torch.equal(load_split(config, "test").images_B, whole)


def test_batches_are_normalised_by_definition_and_complete():
    images = numbered(n=10)
    batches = list(images.batches(4))
    assert [len(labels) for _, labels in batches] == [4, 4, 2]
    mean, std = (torch.tensor(v, dtype=torch.float64).view(1, -1, 1, 1) for v in (images.mean, images.std))
    expected = (images.images_B.double() / 255 - mean) / std
    assert torch.allclose(torch.cat([x for x, _ in batches]).double(), expected, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 2])
def test_channels_last_is_a_matter_of_strides_even_with_one_channel(channels):
    images = ImageSet(
        torch.zeros(4, channels, 5, 5, dtype=torch.uint8), torch.arange(4), (0.5,) * channels, (1.0,) * channels
    )
    assert images.normalise(images.images_B, torch.channels_last).stride() == (25 * channels, 1, 5 * channels, channels)
    assert images.normalise(images.images_B).stride() == (25 * channels, 25, 5, 1)


def test_an_epoch_uses_full_batches_once_each_in_a_seeded_order():
    images = numbered(n=41, crop_padding=1, flip=True)
    assert (images.steps(8), images.steps(8, 3), images.steps(8, 9), images.steps(64)) == (5, 3, 5, 0)
    first, again, other = (list(images.train_batches(8, 0, epoch)) for epoch in (2, 2, 3))
    order = torch.cat([b.labels_B for b in first])
    assert len(first) == 5
    assert len(order.unique()) == 40
    assert all(torch.equal(a.images_B, b.images_B) and a.seed == b.seed for a, b in zip(first, again, strict=True))
    assert not torch.equal(order, torch.cat([b.labels_B for b in other]))
    assert len({b.seed for b in first + other}) == 10
    limited = list(images.train_batches(8, 0, 2, limit=3))
    assert [b.labels_B.tolist() for b in limited] == [b.labels_B.tolist() for b in first[:3]]


def variants(image, padding, flip):
    """Every crop of a zero-padded image, as bytes, by slicing."""
    channels, size, _ = image.shape
    padded = np.zeros((channels, size + 2 * padding, size + 2 * padding), dtype=np.uint8)
    padded[:, padding : padding + size, padding : padding + size] = image
    shifts = range(2 * padding + 1)
    crops = {(y, x, 0): padded[:, y : y + size, x : x + size] for y in shifts for x in shifts}
    if flip:
        crops |= {(y, x, 1): crop[:, :, ::-1] for (y, x, _), crop in list(crops.items())}
    return {crop.tobytes(): name for name, crop in crops.items()}


@pytest.mark.parametrize(("padding", "flip"), [(0, True), (2, False), (1, True)])
def test_augmentation_gives_crops_and_flips_and_all_of_them(padding, flip):
    images = numbered(n=300, crop_padding=padding, flip=flip)
    seen = Counter()
    for batch in images.train_batches(50, seed=1, epoch=0):
        for image, label in zip(pixels(images, batch.images_B), batch.labels_B, strict=True):
            possible = variants(images.images_B[label].numpy(), padding, flip)
            seen[possible[image.numpy().tobytes()]] += 1
    count = (2 * padding + 1) ** 2 * (2 if flip else 1)
    assert len(seen) == count
    # uniform draws: no variant of expectation m strays by more than 6 sqrt(m)
    assert max(abs(n - 300 / count) for n in seen.values()) < 6 * (300 / count) ** 0.5


def test_augmentation_of_an_image_does_not_depend_on_the_batch_size_and_can_be_left_out():
    images = numbered(n=48, crop_padding=2, flip=True)

    def by_label(size, augment):
        batches = images.train_batches(size, 5, 1, augment)
        return {int(y): x for b in batches for x, y in zip(pixels(images, b.images_B), b.labels_B, strict=True)}

    small, large, plain = by_label(4, True), by_label(16, True), by_label(16, False)
    assert all(torch.equal(small[label], large[label]) for label in range(48))
    assert all(torch.equal(plain[label], images.images_B[label]) for label in range(48))


def test_subset_keeps_the_order_asked_for():
    images = numbered()
    chosen = torch.tensor([7, 3, 11])
    assert images.subset(chosen).labels_B.tolist() == [7, 3, 11]
    assert torch.equal(images.subset(chosen).images_B[1], images.images_B[3])
