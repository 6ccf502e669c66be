"""Image files in ImageNet's layout: listing, streaming, and draws that follow from (seed, epoch, image) alone."""

import contextlib
import errno
import hashlib
import multiprocessing
import os
import random
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_datasets import pixels, preset

from harness.config import ConfigError
from harness.problem import image_folder
from harness.problem.datasets import check_sizes, data_digest, found, obtain
from harness.problem.pictures import UnreadablePicture
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
    assert check_sizes(config) == (9, 3, 6, 0)
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
    root, expected = tmp_path / "root", hashlib.sha256()
    for part in ("train", "val"):
        for path in sorted((root / part).glob("*/*.png")):
            expected.update(f"{part}/{path.parent.name}/{path.name}".encode() + path.read_bytes())
    first = data_digest(config)
    assert first == expected.hexdigest()
    assert data_digest(config) == first
    path = tmp_path / "root/train/bee/0.png"
    path.write_bytes(path.read_bytes() + b"\0")
    assert data_digest(config) != first


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"root": "/nonexistent"}, r"dataset\.image_folder\.root must be a folder with train/<class>/ .*/nonexistent"),
        ({"classes": 4}, r"dataset\.image_folder\.classes must be 3, the folders in .*train, got 4"),
        (
            {"channels": 4, "mean": [0] * 4, "std": [1] * 4},
            r"dataset\.image_folder\.channels must be 1 or 3, .*, got 4",
        ),
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


@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_that_is_no_image_is_named_in_one_line(config, tmp_path, workers):
    """Also where a worker met it."""
    (tmp_path / "root/val/cat/0.png").write_bytes(b"nothing")
    with pytest.raises(UnreadablePicture, match=r"^\S*cat/0\.png must be an image that can be read: [^\n]+$"):
        list(load_split(replace(config, workers=workers), "test").batches(6))


def test_files_that_cannot_be_used_are_named_before_training(config, tmp_path):
    root = tmp_path / "root"
    (root / "val/cat/0.png").write_bytes(b"")
    (root / "train/ant/0.png").write_bytes((root / "train/ant/0.png").read_bytes()[:-100])
    with pytest.raises(ConfigError) as caught:
        data_digest(config)
    first, second = f"{root}/train/ant/0.png (image file is truncated)", f"{root}/val/cat/0.png (it is empty)"
    assert str(caught.value) == f"2 of 18 images cannot be read: {first}, {second}"


def test_what_is_done_to_pictures_is_said_and_remembered(config, tmp_path, monkeypatch):
    folder = tmp_path / "root/train/bee"
    Image.fromarray(np.full((SIDE, SIDE), 770, dtype=np.uint16)).save(folder / "0.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    for index in (1, 2):
        Image.new("RGB", (SIDE, SIDE)).save(folder / f"{index}.png", exif=turned)
    expected = (
        "val/ is the test split; validation has 3 of 12 in train/, drawn with split_seed 0",
        f"1 file is left out whose ending is not that of a picture that PIL decodes (.txt 1), such as "
        f"{tmp_path}/root/train/ant/notes.txt",
        "2 pictures are turned upright, as EXIF orientation says",
        "1 picture is scaled from 16 bits a pixel to 8, white being 65,535 (the highest value is 770)",
    )
    assert found(config).notes == expected
    monkeypatch.setattr(image_folder, "examine", None)  # no file is looked at again
    assert found(config).notes == expected


def test_pictures_whose_values_were_others_before_have_another_digest(config, tmp_path):
    """Or bases that were trained on them then would be taken for the same."""
    path = tmp_path / "root/val/bee/0.png"
    transparent = Image.new("RGBA", (SIDE, SIDE))
    expected = []
    for image in (transparent.convert("RGB"), transparent):
        image.save(path)
        pictures = [one for part in ("train", "val") for one in sorted((tmp_path / "root" / part).glob("*/*.png"))]
        named = (f"{one.relative_to(tmp_path / 'root')}".encode() + one.read_bytes() for one in pictures)
        expected.append(data_digest(config) == hashlib.sha256(b"".join(named)).hexdigest())
    assert expected == [True, False]


def test_a_link_that_gets_another_class_has_another_digest(config, tmp_path):
    """Also where it keeps its place in the order: what it leads to is the same as before."""
    root = tmp_path / "root"
    (tmp_path / "elsewhere.png").write_bytes((root / "train/ant/0.png").read_bytes())
    link = root / "train/ant/9.png"
    link.symlink_to(tmp_path / "elsewhere.png")
    before = data_digest(config)
    link.rename(root / "train/bee/-1.png")
    assert data_digest(config) != before


def test_batches_need_no_shared_memory(config, monkeypatch):
    """In a container there may be too little of it: what a worker cannot put there would never come."""

    def full(*_):
        raise RuntimeError("unable to allocate shared memory: No space left on device")

    monkeypatch.setattr(torch.UntypedStorage, "_share_fd_cpu_", full)
    monkeypatch.setattr(torch.UntypedStorage, "_share_filename_cpu_", full)
    monkeypatch.setattr(image_folder, "WAIT_SECONDS", 60)
    ((batch, labels),) = load_split(replace(config, workers=2), "test").batches(6)
    assert (len(batch), len(labels)) == (6, 6)


def test_a_worker_that_is_killed_ends_the_pass_with_one_line(config, monkeypatch):
    monkeypatch.setattr(image_folder, "read_picture", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(RuntimeError, match=r"^[^\n]*(is killed by signal: Killed|exited unexpectedly)[^\n]*$"):
        list(load_split(replace(config, workers=1), "test").batches(6))


def test_a_worker_that_was_killed_while_other_code_ran_is_missed(config, monkeypatch):
    """What torch raises then, wherever that is, may be taken for a fault of what was running: here it is swallowed."""
    batches = load_split(replace(config, workers=2), "test").batches(1)
    next(batches)
    with contextlib.suppress(RuntimeError):
        for worker in multiprocessing.active_children():
            worker.kill()
            worker.join()
    with pytest.raises(image_folder.WorkersLost, match="lost"):
        list(batches)


def test_workers_that_give_nothing_end_the_pass_with_one_line(config, monkeypatch):
    """As where a file lies on a network drive that is gone."""
    monkeypatch.setattr(image_folder, "read_picture", lambda *_: signal.pause())
    monkeypatch.setattr(image_folder, "WAIT_SECONDS", 2)
    monkeypatch.setattr(image_folder, "LOOK_SECONDS", 1)
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.1)  # that it is ended soon
    with pytest.raises(
        image_folder.WorkersLost, match=r"none has given a batch for 2 s.*dataset\.image_folder\.workers is 1, or 0"
    ):
        list(load_split(replace(config, workers=1), "test").batches(6))


def test_workers_that_cannot_share_a_lock_are_refused_before_training(config, monkeypatch):
    def full():
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("multiprocessing.Lock", full)
    assert obtain(config) is None
    with pytest.raises(ConfigError, match=r"workers must be 0 where .*No space left on device.*, got 2$"):
        obtain(replace(config, workers=2))


def test_names_that_are_no_utf8_are_read_and_shown_with_their_bytes(config, tmp_path):
    root = os.fsencode(tmp_path / "root")
    for part in (b"train", b"val"):
        os.rename(os.path.join(root, part, b"cat"), os.path.join(root, part, b"c\xe4t"))
        os.rename(os.path.join(root, part, b"c\xe4t", b"0.png"), os.path.join(root, part, b"c\xe4t", b"\xff\n.png"))
    assert check_sizes(config) == (9, 3, 6, 0)
    assert len(data_digest(config)) == 64
    ((_, labels),) = load_split(config, "test").batches(6)
    assert sorted(labels.tolist()) == [0, 0, 1, 1, 2, 2]
    Path(os.fsdecode(os.path.join(root, b"val", b"c\xe4t", b"\xff\n.png"))).write_bytes(b"")
    with pytest.raises(ConfigError, match=r"val/c\\xe4t/\\xff\\n\.png \(it is empty\)$"):
        data_digest(config)
    with pytest.raises(UnreadablePicture, match=r"val/c\\xe4t/\\xff\\n\.png must be an image"):
        list(load_split(config, "test").batches(6))


@pytest.mark.parametrize(("value", "message"), [(0.5, r"must be 1 for images in memory"), (0, r"must be above 0")])
def test_random_crops_of_images_in_memory_are_refused(value, message):
    with pytest.raises(ConfigError, match=r"dataset\.digits\.crop_scale " + message):
        check_sizes(replace(preset("digits"), crop_scale=value))


class StreamedTensor:
    """A tensor of a GPU that was copied on a stream of the loader's."""

    is_cuda = True

    def __init__(self):
        self.streams = []

    def record_stream(self, stream):
        self.streams.append(stream)

    def contiguous(self, memory_format):
        assert self.streams == ["of training"]  # before anything reads it
        return self


def test_batches_copied_on_another_stream_are_kept_until_training_has_read_them(config, monkeypatch):
    """Their memory belongs to that stream, which could write the next batch into it."""
    batch = StreamedTensor(), StreamedTensor()
    monkeypatch.setattr(image_folder, "PrefetchLoader", lambda *given, **more: [batch])
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: "of training")
    images = load_split(config, "train").to("cuda")
    assert list(images.batches(4)) == [batch]
    assert batch[1].streams == ["of training"]
