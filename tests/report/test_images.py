"""Test images that cells got right: McNemar's test, the intervals that cover them, and records that are wrong."""

import base64

import numpy as np
import pandas as pd
import pytest
from command import here
from frames import cells, correct_of, frame_of, write_suite

from harness.config import ConfigError
from harness.report.stats.comparisons import comparisons
from harness.report.stats.images import TestImages, exact_mcnemar, image_variance
from harness.results.correct import Correct, correct_table
from harness.results.correct import correct_of as read
from harness.storage.store import Store

PLAIN = "base_recalibrated"
IMAGES = 50


def right(*wrong):
    """Which of the images are right: all but those named."""
    bits = np.ones(IMAGES, dtype=bool)
    bits[list(wrong)] = False
    return bits


WRONG = {
    "swa": ([0], [0, 1], [2], [0]),
    PLAIN: ([0, 3, 4, 5], [1, 2, 3, 4], [3, 4, 5, 6], [3, 4, 7]),
}
"""The images that each seed of a method gets wrong."""


@pytest.fixture
def groups():
    percent = {method: [100 - 2.0 * len(wrong) for wrong in seeds] for method, seeds in WRONG.items()}
    return [[*cells(method, values)] for method, values in percent.items()]


def correct(groups):
    seeds = {method: iter(wrong) for method, wrong in WRONG.items()}
    return {cell["cell_key"]: right(*next(seeds[cell["method"]])) for group in groups for cell in group}


def table_of(found):
    bits = {key: Correct(len(value), np.packbits(value).tobytes()) for key, value in found.items()}
    return correct_table(bits)


def test_mcnemar_is_that_of_statsmodels():
    from statsmodels.stats.contingency_tables import mcnemar

    pairs = [(0, 0), (1, 0), (3, 9), (12, 5), (40, 61)]
    expected = [mcnemar([[100, only], [other, 7]], exact=True).pvalue for only, other in pairs]
    only, other = np.array(pairs).T
    assert exact_mcnemar(only, other)[1:] == pytest.approx(expected[1:])
    assert exact_mcnemar(only, other)[0] == 1.0


def test_signs_and_their_shared_variance(groups):
    """Only the method is right on 3, 4 and 5 with seed 0; on 2, 3 and 4 with seed 1, which both get wrong on 1."""
    images = TestImages(table_of(correct(groups)))
    names = {method: [f"net-digits-sgd-{method}-{seed}" for seed in range(4)] for method in WRONG}
    x_SI = images.signs(names["swa"], names[PLAIN])
    assert np.flatnonzero(x_SI[0] == 1).tolist() == [3, 4, 5]
    assert np.flatnonzero(x_SI[1] == 1).tolist() == [2, 3, 4]
    assert np.flatnonzero(x_SI[1] == -1).tolist() == [0]
    covariance_SS = np.cov(100.0 * x_SI)
    assert image_variance(x_SI).shared == pytest.approx(covariance_SS[~np.eye(4, dtype=bool)].mean() / IMAGES)


def test_intervals_cover_images_where_all_cells_say_which_they_got_right(groups):
    frame, known = frame_of(*groups), correct(groups)

    def line(found, metric="test_accuracy"):
        table = comparisons(frame, metric, TestImages(table_of(found)))
        return table[(table["method"] == "swa") & (table["control"] == PLAIN)].iloc[0]

    seeds, both = line({}), line(known)
    assert (seeds["images"], both["images"]) == (0, IMAGES)
    assert both["mean"] == seeds["mean"]
    assert both["high"] - both["low"] > seeds["high"] - seeds["low"]
    assert both["p"] > seeds["p"]
    known.pop(f"net-digits-sgd-{PLAIN}-2")
    assert line(known)["high"] == seeds["high"]
    assert line(correct(groups), "test_loss")["images"] == 0


def test_rows_of_one_data_set_share_their_images_and_of_several_do_not(groups):
    known = correct(groups)
    for dataset, images in (("digits", IMAGES), ("letters", 0)):
        more = [[{**cell, "model": "b", "dataset": dataset} for cell in group] for group in groups]
        for group in more:
            for cell in group:
                before = cell["cell_key"]
                cell["base_key"], cell["cell_key"] = f"b{cell['base_key']}", f"b{before}"
                known[f"b{before}"] = known[before]
        table = comparisons(frame_of(*groups, *more), images=TestImages(table_of(known)))
        over = table[(table["model"] == "all") & (table["method"] == "swa") & (table["control"] == PLAIN)].iloc[0]
        alone = table[(table["model"] == "net") & (table["method"] == "swa") & (table["control"] == PLAIN)].iloc[0]
        assert over["images"] == images
        # the second row says the same of every image as the first
        assert over["shared"] == pytest.approx(alone["shared"] if images else 0.0)


def test_the_command_keeps_bits_and_shows_mcnemar(groups, tmp_path):
    store = Store(tmp_path)
    write_suite(store, groups, correct=correct(groups))
    done = here("report", "suite=quick", "figures=none", results=tmp_path)
    assert done.returncode == 0
    folder = store.suite_folder("quick")
    bits = pd.read_parquet(folder / "correct.parquet").set_index("cell_key")
    assert list(bits.columns) == ["images", "bits"]
    key = "net-digits-sgd-swa-1"
    unpacked = np.unpackbits(np.frombuffer(bits.loc[key, "bits"], np.uint8), count=bits.loc[key, "images"])
    assert np.flatnonzero(unpacked == 0).tolist() == [0, 1]
    (line,) = [text for text in (folder / "tables" / "images.md").read_text().splitlines() if "| swa" in text]
    # by seed 3 to 0, 3 to 1, 4 to 1 and 3 to 1 images, of which p is 2/8, 10/16, 12/32 and 10/16
    assert [part.strip() for part in line.split("|")[1:-1]] == [
        *("swa", PLAIN, "50", "4", "3.2", "0.8", "0.250, 0.625, 0.375, 0.625"),
    ]
    assert len(pd.read_csv(folder / "tables" / "images.csv")) == 4
    assert 'id="images"' in (folder / "report" / "index.html").read_text()
    assert "they cover seeds and test images." in (folder / "tables" / "statistics.md").read_text()


@pytest.mark.parametrize(
    ("change", "bound"),
    [
        ({"images": 60}, "a bit for each of at least 1 image, got 7 bytes for 60"),
        ({"images": 0}, "at least 1 image, got 7 bytes for 0"),
        ({"images": "many"}, "images and packed bits"),
        ({"bits": "no base64!"}, "images and packed bits"),
        ({"bits": None}, "images and packed bits"),
        ({"bits": base64.b64encode(np.packbits(right(0, 1)).tobytes()).decode()}, "as many right as its test accuracy"),
    ],
)
def test_bits_that_do_not_fit_are_one_line_that_names_the_cell(change, bound):
    record = {"cell_key": "abc", "method": "swa", "summary": {"test_accuracy": 98.0}}
    assert read(record) is None
    assert read({**record, "test_correct": correct_of(right(7))}).images == IMAGES
    with pytest.raises(ConfigError, match=f"test_correct of cell abc must be .*{bound}.*redo=swa") as caught:
        read({**record, "test_correct": correct_of(right(7)) | change})
    assert "\n" not in str(caught.value)
