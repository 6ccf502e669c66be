"""Images that methods choose by, carved from training, and labels that are wrong on purpose."""

from dataclasses import replace

import pytest
import torch

from harness.config import ConfigError, DatasetConfig
from harness.problem.datasets import check_sizes, train_images
from harness.problem.splits import load_split

DIGITS = DatasetConfig("d", "digits", None, 1, 8, 10, [0.3], [0.4], val_size=100, crop_padding=0)


def pixels(config, split):
    return {bytes(image.flatten().tolist()) for image in load_split(config, split).images_B}


@pytest.mark.parametrize("train_size", [None, 900])
def test_the_probe_is_carved_from_what_nothing_is_trained_on(train_size):
    config = replace(DIGITS, train_size=train_size, probe_size=200)
    sizes = check_sizes(config)
    assert (sizes.probe, sizes.val, sizes.test) == (200, 100, 360)
    assert sizes.train == train_images(config) == (1437 - 100 - 200 if train_size is None else 900)
    parts = {split: load_split(config, split) for split in ("train", "val", "probe", "test")}
    assert {split: len(images) for split, images in parts.items()} == sizes._asdict()
    together = torch.cat([parts[split].images_B for split in ("train", "val", "probe")]).flatten(1)
    without = replace(DIGITS, train_size=None)
    whole = torch.cat([load_split(without, split).images_B for split in ("train", "val")]).flatten(1)
    if train_size is None:
        assert sorted(map(tuple, together.tolist())) == sorted(map(tuple, whole.tolist()))
    # 1,437 images of 8x8 pixels have few twins: parts share none but these
    twins = len(whole) - len(pixels(without, "train") | pixels(without, "val"))
    assert len(pixels(config, "probe") & pixels(config, "train")) <= twins


def test_a_probe_moves_neither_validation_nor_what_is_trained_on():
    for train_size in (None, 900):
        plain, carved = (replace(DIGITS, train_size=train_size, probe_size=size) for size in (None, 50))
        assert torch.equal(load_split(plain, "val").images_B, load_split(carved, "val").images_B)
        trained = load_split(carved, "train").images_B
        assert torch.equal(load_split(plain, "train").images_B[: len(trained)], trained)


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match=r"dataset.d.probe_size must be at most 1336 \(1437 images less val_size 100"):
        check_sizes(replace(DIGITS, probe_size=1400))
    with pytest.raises(ConfigError, match=r"train_size must be at most 1137 .*val_size 100 and probe_size 200"):
        check_sizes(replace(DIGITS, probe_size=200, train_size=1200))
    for share in (1.0, -0.1):
        with pytest.raises(ConfigError, match=r"dataset.d.label_noise must be"):
            replace(DIGITS, label_noise=share)


@pytest.mark.parametrize("share", [0.1, 0.4])
def test_a_share_of_the_training_labels_is_another_class(share):
    noisy = replace(DIGITS, label_noise=share, probe_size=300)
    plain = replace(noisy, label_noise=0.0)
    wrong = {}
    for split in ("train", "val", "test", "probe"):
        ours, theirs = load_split(noisy, split), load_split(plain, split)
        assert torch.equal(ours.images_B, theirs.images_B)
        wrong[split] = ours.labels_B != theirs.labels_B
    assert not wrong["val"].any()
    assert not wrong["test"].any()
    both = torch.cat([wrong["train"], wrong["probe"]]).double()
    assert abs(both.mean().item() - share) < 4 * (share * (1 - share) / len(both)) ** 0.5
    labels = load_split(noisy, "train").labels_B[wrong["train"]]
    assert set(labels.tolist()) == set(range(10))


def test_noise_is_seeded_and_grows():
    labels = {share: load_split(replace(DIGITS, label_noise=share), "train").labels_B for share in (0.0, 0.1, 0.3)}
    few, many = labels[0.1] != labels[0.0], labels[0.3] != labels[0.0]
    assert bool((many | ~few).all())
    assert torch.equal(labels[0.3][few], labels[0.1][few])
    again = load_split(replace(DIGITS, label_noise=0.3), "train").labels_B
    assert torch.equal(again, labels[0.3])
    other = load_split(replace(DIGITS, label_noise=0.3, train_size=500), "train").labels_B
    assert torch.equal(other, labels[0.3][:500])
    seeded = replace(DIGITS, label_noise=0.3, split_seed=1)
    assert (
        load_split(seeded, "train").labels_B != load_split(replace(seeded, label_noise=0.0), "train").labels_B
    ).any()
