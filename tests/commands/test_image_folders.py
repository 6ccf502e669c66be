"""Image folders through the command: what it says of the files, and names that are no UTF-8 down to page and table."""

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from command import OWN, here, state, view_folder
from PIL import Image

CLASSES = (b"a", b"b", b"c\xe9")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Three classes, one of a name that is no UTF-8, of 8 noisy pictures each, 4 in val."""
    root, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for part, count in (("train", 8), ("val", 4)):
        for label, name in enumerate(CLASSES):
            folder = Path(os.fsdecode(os.fsencode(root / part) + b"/" + name))
            (folder / "deeper").mkdir(parents=True)
            for index in range(count):
                noise = rng.integers(0, 120, (16, 16, 3), dtype=np.uint8)
                noise[..., label] += 100
                Image.fromarray(noise).save(folder / "deeper" / f"{index}.webp", lossless=True)
    (root / "train" / "list.txt").touch()
    return root


def given(root, **changed):
    values = {"root": root, "classes": 3, "size": 32, "val_size": 6, "workers": 1} | changed
    return (
        *("model=test_resnet", "dataset=image_folder", "epochs=2", "batch_size=6", "tracker=none"),
        *(f"dataset.image_folder.{name}={value}" for name, value in values.items()),
    )


def test_names_that_are_no_utf8_reach_page_and_table(root, tmp_path):
    """Of classes, of the folder of presets and in what a method raised; the rest of the run is as any other."""
    own = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    own.symlink_to(OWN)
    results = tmp_path / "results"
    methods = ("method=[base,misses]", f"--config-dir={own}")
    said = here("run", *given(root), *methods, results=results, code=1).stdout
    line = "dataset image_folder: 1 file is left out whose ending is not that of a picture that PIL decodes (.txt 1)"
    assert f"{line}, such as {root}/train/list.txt" in said
    here("report", "figures=none", f"--config-dir={own}", results=results, code=1)
    page = (view_folder(results) / "report/index.html").read_text(encoding="utf-8")
    assert f"--config-dir={tmp_path}/caf\\xe9" in page
    frame = pd.read_parquet(view_folder(results) / "frame.parquet").set_index("method")
    assert frame["status"].to_dict() == {"base": "done", "base_recalibrated": "done", "misses": "failed"}
    record = json.loads((results / "cells" / frame["cell_key"]["misses"] / "record.json").read_bytes())
    assert record["reason"] == r"RuntimeError: no weights in /data/caf\xe9.pt"
    assert frame["test_accuracy"]["base"] > 50  # of three classes that differ in colour


def test_damaged_pictures_are_named_before_anything_is_made(root, tmp_path):
    results = tmp_path / "results"
    damaged = root / "val" / "b" / "damaged.jpg"
    damaged.write_bytes(b"\xff\xd8\xff")
    before = state(root)
    for verb in ("plan", "run"):
        refusal = here(verb, *given(root), "method=base", results=results, code=2).stderr
        assert refusal == f"error: 1 of 37 images cannot be read: {damaged} (PIL finds no picture in it)\n"
    damaged.unlink()
    assert not results.exists()
    assert state(root) == {name: stamp for name, stamp in before.items() if not name.endswith("damaged.jpg")}


def test_class_folders_alone_in_one_command(tmp_path):
    """Of 40 pictures in a home folder: 8 for testing, 4 for validation, and one mini-batch of the other 28."""
    rng = np.random.default_rng(0)
    for label, name in enumerate(("cat", "dog")):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for index in range(20):
            noise = rng.integers(0, 120, (20, 18, 3), dtype=np.uint8)
            noise[..., label] += 100
            Image.fromarray(noise).save(tmp_path / "pets" / name / f"{index}.jpg")
    given = (
        "model=test_resnet",
        "dataset=image_folder",
        "dataset.image_folder.root=~/pets",
        "method=[base,cmd_online]",
    )
    results, home = tmp_path / "results", {"HOME": str(tmp_path)}
    said = here("run", *given, "fast=true", "tracker=none", results=results, variables=home).stdout
    place = tmp_path / "pets"
    side = "size 16 (the pictures' median side, a multiple of 16 from there on)"
    follows = f"channels 3, {side}, classes 2 (cat, dog): from the files in {place}"
    drawn = "of 40 pictures 8 (20%) are the test split and 4 (10%) validation, the same share of every class"
    for line in (follows, f"one folder per class in {place}, none of test pictures: {drawn}, drawn with split_seed 0"):
        assert f"dataset image_folder: {line}\n" in said
    frame = pd.read_parquet(results / "suites/test_resnet-pets-fast/frame.parquet")
    assert dict(zip(frame["method"], frame["status"], strict=True)) == dict.fromkeys(
        ["base", "base_recalibrated", "cmd_online", "time_mean"], "done"
    )
    refused = here("plan", *given, "dataset.image_folder.classes=3", results=results, variables=home, code=2).stderr
    assert refused.splitlines() == [
        "error: 2 things to change:",
        f"  dataset.image_folder.classes must be 2, the folders in {place}, got 3: dataset.image_folder.classes=2",
        "  batch_size must be at most 28, the training images of image_folder, got 128",
    ]
