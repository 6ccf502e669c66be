"""Image files in ImageNet's layout: listing, streaming, and draws that follow from (seed, epoch, image) alone."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from test_datasets import pixels, preset

from harness.config import ConfigError
from harness.problem.datasets import check_sizes, data_digest
from harness.problem.splits import load_split

SIDE = 40


@pytest.fixture
def config(tmp_path, monkeypatch):
    """Three classes of four training and two validation images, of several shapes and modes."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for part, count in (("train", 4), ("val", 2)):
        for name in ("ant", "bee", "cat"):
            folder = tmp_path / "root" / part / name
            folder.mkdir(parents=True)
            for index in range(count):
                coarse = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
                image = Image.fromarray(coarse).resize((SIDE + 8 * index, SIDE), Image.Resampling.BICUBIC)
                (image.convert("L") if index == 1 else image).save(folder / f"{index}.png")
    (tmp_path / "root" / "train" / "ant" / "notes.txt").write_text("no image")
    values = {"size": 32, "classes": 3, "val_size": 3, "workers": 0, "root": str(tmp_path / "root")}
    return replace(preset("image_folder"), **values)


def test_splits_hold_every_image_once_with_its_class(config):
    assert check_sizes(config) == (9, 3, 6)
    train, val, test = (load_split(config, split) for split in ("train", "val", "test"))
    assert len({*train.paths, *val.paths}) == 12
    for images in (train, val, test):
        folders = [path.split("/")[-2] for path in images.paths]
        assert [("ant", "bee", "cat")[label] for label in images.labels_B] == folders
    assert all("/val/" in path for path in test.paths)


@pytest.mark.parametrize("channels", [2, 4])
def test_images_are_grey_or_rgb(config, channels):
    other = replace(config, channels=channels, mean=[0.5] * channels, std=[0.5] * channels)
    with pytest.raises(ConfigError, match=rf"^dataset\.image_folder\.channels must be 1 or 3, .*, got {channels}$"):
        check_sizes(other)


def test_a_single_image_that_is_left_over_joins_the_batch_before(config):
    """Six test images in batches of five: one of six, of which every image is decoded once and in order."""
    test = load_split(config, "test")
    ((batch, labels),) = test.batches(5)
    assert labels.tolist() == test.labels_B.tolist()
    assert torch.equal(pixels(test.config, batch), test.held().images_B)


def test_un_augmented_images_are_the_central_crop_resized(config):
    test = load_split(config, "test").subset(torch.tensor([2, 0]))
    ((batch, labels),) = test.batches(4, torch.channels_last)
    assert labels.tolist() == test.labels_B.tolist()
    assert batch.stride()[1] == 1
    held = test.held()
    assert torch.equal(pixels(test.config, batch), held.images_B)
    for image, path in zip(held.images_B, test.paths, strict=True):
        original = Image.open(path).convert("RGB")
        scale = int(32 / 0.875) / min(original.size)
        resized = original.resize([round(side * scale) for side in original.size], Image.Resampling.BILINEAR)
        left, top = ((side - 32) / 2 for side in resized.size)
        box = [round(left), round(top), round(left) + 32, round(top) + 32]
        expected = np.asarray(resized.crop(box)).transpose(2, 0, 1).astype(int)
        # a crop may begin half a pixel apart
        assert np.abs(image.numpy().astype(int) - expected).mean() < 6


def test_an_epoch_follows_from_seed_and_epoch_whatever_the_workers_and_the_batch(config):
    train = load_split(config, "train")

    def epoch(images, size, number, seed=0, augment=True):
        made = list(images.train_batches(size, seed, number, augment))
        return torch.cat([b.images_B for b in made]), torch.cat([b.labels_B for b in made]), [b.seed for b in made]

    images, labels, seeds = epoch(train, 3, 1)
    assert images.shape == (9, 3, 32, 32)
    assert sorted(labels.tolist()) == sorted(train.labels_B.tolist())
    with_worker = epoch(replace(train, config=replace(config, workers=1)), 3, 1)
    assert torch.equal(with_worker[0], images)
    assert with_worker[2] == seeds
    # 9 images make 4 pairs
    assert torch.equal(epoch(train, 2, 1)[0], images[:8])
    assert not torch.equal(epoch(train, 3, 2)[0], images)
    assert not torch.equal(epoch(train, 3, 1, seed=1)[0], images)
    plain, order, _ = epoch(train, 3, 1, augment=False)
    assert torch.equal(order, labels)
    assert not torch.equal(plain, images)
    assert len(list(train.train_batches(2, 0, 1, limit=3))) == 3


def test_decoding_leaves_the_streams_of_training_alone(config):
    torch.manual_seed(3)
    random.seed(3)
    before = torch.get_rng_state(), random.getstate()
    list(load_split(config, "train").train_batches(3, 0, 0))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]


def test_grey_images_are_read_as_such(config):
    grey = replace(config, channels=1, mean=[0.5], std=[0.5])
    ((batch, _),) = load_split(grey, "val").batches(8)
    assert batch.shape == (3, 1, 32, 32)


def test_the_digest_is_that_of_names_and_contents(config, tmp_path):
    first = data_digest(config)
    assert data_digest(config) == first
    path = tmp_path / "root/train/bee/0.png"
    path.write_bytes(path.read_bytes() + b"\0")
    assert data_digest(config) != first


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"root": "/nonexistent"}, r"dataset\.image_folder\.root must be a folder with train/<class>/ .*/nonexistent"),
        ({"classes": 4}, r"dataset\.image_folder\.classes must be 3, the folders in .*train, got 4"),
        ({"val_size": 12}, r"dataset\.image_folder\.val_size must be at most 11 "),
        ({"crop_padding": 2}, r"dataset\.image_folder\.crop_padding must be 0 for streamed images, got 2"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(config, change, message):
    with pytest.raises(ConfigError, match="^" + message) as caught:
        check_sizes(replace(config, **change))
    assert "\n" not in str(caught.value)


def test_a_part_without_images_is_refused(config, tmp_path):
    for path in (tmp_path / "root/val").rglob("*.png"):
        path.unlink()
    with pytest.raises(ConfigError, match=r"root must hold images in val/<class>/, got none in"):
        check_sizes(config)


def test_a_file_that_is_no_image_is_named(config, tmp_path):
    path = tmp_path / "root/val/cat/0.png"
    path.write_bytes(b"nothing")
    with pytest.raises(OSError, match=r"cat/0\.png must be an image"):
        list(load_split(config, "test").batches(6))


@pytest.mark.parametrize(("value", "message"), [(0.5, r"must be 1 for images in memory"), (0, r"must be above 0")])
def test_random_crops_of_images_in_memory_are_refused(value, message):
    with pytest.raises(ConfigError, match=r"dataset\.digits\.crop_scale " + message):
        check_sizes(replace(preset("digits"), crop_scale=value))
