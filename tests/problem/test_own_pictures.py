"""What follows from the files of an image folder, and the splits that are drawn where it has class folders alone."""

import os
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from test_datasets import preset

from harness.config import ConfigError
from harness.problem.datasets import check_sizes, completed, found
from harness.problem.splits import load_split

KEY = "dataset.image_folder"
NULL = dict.fromkeys(("channels", "size", "classes", "mean", "std", "val_size"))


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A function that makes pictures in class folders, so many of each, and gives their root."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def made(counts, side=40, mode="RGB", below=""):
        for name, count in counts.items():
            folder = tmp_path / "root" / below / name
            folder.mkdir(parents=True)
            for index in range(count):
                Image.fromarray(np.full((side, side + 9, 3), index, dtype=np.uint8)).convert(mode).save(
                    folder / f"{index}.png"
                )
        return tmp_path / "root"

    return made


def values(root, **given):
    return {**NULL, "source": "image_folder", "root": str(root), **given}


def test_what_is_null_follows_from_the_files(root):
    """The median of the shorter sides is 40, of which 32 is the multiple of 16; 10 % of 50 pictures are 5."""
    place = root({"cat": 20, "dog": 30})
    answers, (line,) = completed(KEY, values(place))
    imagenet = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    assert answers == values(place, channels=3, size=32, classes=2, val_size=5, **imagenet)
    side = "size 32 (the pictures' median side, a multiple of 16 from there on)"
    assert line == f"channels 3, {side}, classes 2 (cat, dog), val_size 5: from the files in {place}"
    assert completed(KEY, values(place, classes=7, size=64, val_size=1))[0] == {
        **answers, "classes": 7, "size": 64, "val_size": 1,
    }  # fmt: skip


def test_pictures_are_grey_where_all_of_them_are(root):
    place = root({"cat": 3, "dog": 3}, side=12, mode="L")
    answers, _ = completed(KEY, values(place))
    assert [answers[name] for name in ("channels", "size", "mean", "std")] == [1, 12, [0.449], [0.226]]
    Image.new("RGB", (12, 12), "red").save(place / "dog/9.png")
    assert completed(KEY, values(place))[0]["channels"] == 3


def test_large_pictures_are_seen_at_224_pixels_and_validation_has_10_000_at_most(root, monkeypatch):
    place = root({"cat": 3, "dog": 3}, side=300)
    assert completed(KEY, values(place))[0]["size"] == 224
    monkeypatch.setattr("harness.problem.picture_files.MOST_VALIDATED", 1)
    assert completed(KEY, values(place))[0]["val_size"] == 1


def test_a_root_that_is_not_given_is_asked_for():
    with pytest.raises(ConfigError, match=rf"^{KEY}\.root must be the folder .*, got null: {KEY}\.root=~/pictures$"):
        completed(KEY, {**values(""), "root": None})


def test_too_few_pictures_are_refused_with_how_many_it_takes(root):
    """Three of each class are enough, one each for training, validation and test."""
    place = root({"cat": 2, "dog": 3})
    with pytest.raises(
        ConfigError, match=rf"^{KEY}\.root must hold at least 3 pictures per class, .* got 5 of 2 classes"
    ):
        completed(KEY, values(place))
    Image.new("RGB", (40, 40)).save(place / "cat/9.png")
    assert check_sizes(replace(preset("image_folder"), root=str(place), classes=2, val_size=2)) == (2, 2, 2, 0)


def test_splits_of_class_folders_alone_have_their_share_of_every_class(root):
    """Of 40 and 20 pictures 12 are 20 %: 8 and 4. Of those that are left validation has 6: 4 and 2."""
    place = root({"cat": 40, "dog": 20})
    config = replace(preset("image_folder"), root=str(place), size=32, classes=2, val_size=6, workers=0)
    parts = {name: load_split(config, name) for name in ("train", "val", "test")}
    assert {name: Counter(images.labels_B.tolist()) for name, images in parts.items()} == {
        "train": {0: 28, 1: 14}, "val": {0: 4, 1: 2}, "test": {0: 8, 1: 4},
    }  # fmt: skip
    assert len({path for images in parts.values() for path in images.paths}) == 60
    for images in parts.values():
        assert [os.path.basename(os.path.dirname(path)) for path in images.paths] == [
            ("cat", "dog")[label] for label in images.labels_B
        ]
    (line,) = found(config).notes
    assert "of 60 pictures 12 (20%) are the test split and 6 (10%) validation" in line
    assert line.endswith("the same share of every class, drawn with split_seed 0")


def test_the_split_follows_from_its_seed_and_nothing_else(root):
    place = root({"cat": 30, "dog": 30})
    config = replace(preset("image_folder"), root=str(place), size=32, classes=2, val_size=6, workers=0)
    splits = [load_split(replace(config, split_seed=seed), "test").paths for seed in (0, 0, 1)]
    assert splits[0] == splits[1]
    assert set(splits[0]) != set(splits[2])
    assert found(config).sha256 == found(replace(config, split_seed=1)).sha256


def test_all_that_does_not_fit_is_said_at_once_with_what_to_write(root):
    place = root({"cat": 20, "dog": 20})
    config = replace(
        preset("image_folder"), root=str(place), classes=7, val_size=100, test_size=9, crop_padding=1, channels=2,
        mean=[0, 0], std=[1, 1],
    )  # fmt: skip
    with pytest.raises(ConfigError) as refusal:
        check_sizes(config)
    said = [line.removeprefix(f"{KEY}.").split(" must be ") for line in refusal.value.faults]
    assert [key for key, _ in said] == ["channels", "classes", "crop_padding", "val_size", "test_size"]
    assert said[1][1] == f"2, the folders in {place}, got 7: {KEY}.classes=2"
    assert str(refusal.value).startswith("5 things to change:\n  dataset.image_folder.channels must be 1 or 3")
