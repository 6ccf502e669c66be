"""A suite against another folder, a CSV of means and the published numbers: pairs and differences by hand."""

import math

import pandas as pd
import pytest
from command import here
from frames import cells, frame_of, write_suite

from harness.config import ConfigError
from harness.report.stats.other_results import compare
from harness.report.stats.published import published
from harness.report.tables.columns import Choice
from harness.report.tables.comparison import comparison_tables
from harness.storage.store import Store

RESNET = {"model": "resnet18", "dataset": "cifar10", "optimizer": "sgd_momentum"}


def written(folder, *groups):
    store = Store(folder)
    write_suite(store, groups)
    return str(store.root)


def lines_of(comparison):
    return comparison.table.set_index("method").to_dict("index")


def test_two_folders_pair_by_seed(tmp_path):
    """Here swa is 1, 2 and 3 points better on seeds 0 to 2; the other folder lacks ema and has a fourth seed."""
    ours = frame_of(cells("swa", [81.0, 83.0, 85.0]), cells("ema", [70.0]), cells("base", [50.0, "diverged"]))
    theirs = written(
        tmp_path, cells("swa", [80.0, 81.0, 82.0, 99.0]), cells("lawa", [60.0]), cells("base", [50.0, 51.0])
    )
    comparison = compare(ours, theirs, "quick")
    lines = lines_of(comparison)
    assert list(lines) == ["swa", "base"]
    swa = lines["swa"]
    assert (swa["ours_mean"], swa["ours_n"], swa["theirs_mean"], swa["theirs_n"]) == (83.0, 3, 85.5, 4)
    assert swa["difference"] == pytest.approx(-2.5)
    # equal seeds alone: 1, 2, 3, with t = 2 sqrt 3 and t(0.975, 2) = 4.303
    half = 4.302653 / 3**0.5
    assert (swa["pairs"], swa["paired"]) == (3, 2.0)
    assert (swa["low"], swa["high"]) == pytest.approx((2 - half, 2 + half))
    t = 2 * math.sqrt(3)
    assert swa["p"] == pytest.approx(1 - t / math.sqrt(t**2 + 2))
    assert (lines["base"]["pairs"], lines["base"]["paired"]) == (1, 0.0)
    assert math.isnan(lines["base"]["p"])
    # the frames' cell keys are made from the same words
    assert swa["same"] == 3
    assert comparison.notes == ["only here: net digits sgd: ema", "only there: net digits sgd: lawa"]


def test_a_suites_own_folder_serves_as_well(tmp_path):
    theirs = written(tmp_path, cells("swa", [80.0, 81.0]))
    comparison = compare(frame_of(cells("swa", [80.5, 81.5])), f"{theirs}/suites/quick", "another")
    assert lines_of(comparison)["swa"]["paired"] == pytest.approx(0.5)


def test_against_the_published_numbers():
    """ResNet-18 with online CMD has 92.43 +- 0.34 in the paper, and no EMA row in its first table."""
    ours = frame_of(cells("cmd_online", [92.0, 93.0], **RESNET), cells("twa", [90.0, 91.0], **RESNET))
    comparison = compare(ours, "published", "paper")
    lines = lines_of(comparison)
    assert (lines["cmd_online"]["theirs_mean"], lines["cmd_online"]["theirs_std"]) == (92.43, 0.34)
    assert lines["cmd_online"]["difference"] == pytest.approx(92.5 - 92.43)
    assert "paired" not in comparison.table.columns
    assert "only here: resnet18 cifar10 sgd_momentum: twa" in comparison.notes
    (table,) = comparison_tables(comparison, Choice())
    assert table.texts.to_dict("records") == [
        {"method": "cmd_online", "ours": "92.50 ± 0.71", "theirs": "92.43 ± 0.34", "difference": "+0.07"}
    ]
    assert "nothing is tested" in table.caption


def test_published_numbers_are_of_one_base_each_and_in_percent():
    table = published()
    assert not table.duplicated([*RESNET, "method"]).any()
    assert table["test_accuracy_mean"].between(50, 100).all()
    assert (table["test_accuracy_std"] > 0).all()


def test_a_suite_of_other_models_has_nothing_published():
    comparison = compare(frame_of(cells("swa", [80.0])), "published", "quick")
    assert comparison.table.empty
    assert comparison.notes == ["nothing to compare: published has no model, data set and optimizer of this suite"]


def test_a_csv_of_means(tmp_path):
    row = {"model": "net", "dataset": "digits", "optimizer": "sgd", "method": "swa"}
    path = tmp_path / "means.csv"
    numbers = {"test_accuracy_mean": 79.5, "test_accuracy_std": 0.5}
    pd.DataFrame([{**row, **numbers}]).to_csv(path, index=False)
    ours = frame_of(cells("swa", [80.0, 82.0]))
    assert lines_of(compare(ours, str(path), "quick"))["swa"]["difference"] == pytest.approx(1.5)
    pd.DataFrame([{**row, **numbers}] * 2).to_csv(path, index=False)
    with pytest.raises(ConfigError, match="every method once, got net digits sgd swa twice"):
        compare(ours, str(path), "quick")
    pd.DataFrame([row]).to_csv(path, index=False)
    with pytest.raises(ConfigError, match="lacks test_accuracy_mean, test_accuracy_std"):
        compare(ours, str(path), "quick")


@pytest.mark.parametrize("other", ["nowhere", "publishd", "means.csv"])
def test_what_is_not_there_is_refused_by_name(other, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=f"published, a results folder or a CSV of means, got '{other}'"):
        compare(frame_of(cells("swa", [80.0])), other, "quick")


def test_published_numbers_have_no_loss():
    with pytest.raises(ConfigError, match="compare must be a results folder for test_loss"):
        compare(frame_of(cells("swa", [80.0])), "published", "quick", "test_loss")


def test_the_command_prints_and_keeps_the_comparison(tmp_path):
    ours = written(tmp_path / "ours", cells("base", [70.0, 71.0, 72.0]), cells("swa", [81.0, 83.0, 85.0]))
    theirs = written(tmp_path / "theirs", cells("swa", [80.0, 81.0, 82.0]))
    done = here("report", "suite=quick", f"compare={theirs}", "figures=none", results=ours)
    assert "+2.00 [-0.48, +4.48]" in done.stdout
    assert "only here: net digits sgd: base" in done.stdout
    tables = Store(tmp_path / "ours").suite_folder("quick") / "tables"
    assert pd.read_csv(tables / "compare.csv")["paired"].tolist() == [2.0]
    assert "+2.00 [-0.48, +4.48]" in (tables / "compare.md").read_text()
    page = tables.parent / "report" / "index.html"
    assert 'id="compare"' in page.read_text()


HEADER = "model,dataset,optimizer,method,test_accuracy_mean,test_accuracy_std"
ROW = "resnet18,cifar10,sgd_momentum,swa"


def means(folder, text, encoding="utf-8"):
    path = folder / "means.csv"
    path.write_text(text, encoding=encoding)
    return str(path)


@pytest.mark.parametrize(
    "text",
    [
        f"{HEADER}\n{ROW},80.5,\n",
        f"\ufeff{HEADER}\n{ROW},8.05e1,0.5\n",
        f"{HEADER.replace(',', ', ')}\n{ROW}, 80.5 ,1\n",
    ],
)
def test_a_file_of_means_as_people_save_it(text, tmp_path):
    """With the mark of UTF-8, with blanks around fields, and without the deviation of a single run."""
    comparison = compare(frame_of(cells("swa", [81.0], **RESNET)), means(tmp_path, text), "quick")
    assert lines_of(comparison)["swa"]["difference"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"{HEADER}\n{ROW},80,1\n{ROW[:-1]},95.3%,1\n", "from 0 to 100 as test_accuracy_mean, got '95.3%' in row 3"),
        (f"{HEADER}\n{ROW},n/a,1\n", "numbers from 0 to 100 as test_accuracy_mean, got 'n/a' in row 2"),
        (f"{HEADER}\n{ROW},,1\n", "numbers from 0 to 100 as test_accuracy_mean, got '' in row 2"),
        (f"{HEADER}\n{ROW},nan,1\n", "numbers from 0 to 100 as test_accuracy_mean, got 'nan' in row 2"),
        (f"{HEADER}\n{ROW},953,1\n", "numbers from 0 to 100 as test_accuracy_mean, got '953' in row 2"),
        (f"{HEADER}\n{ROW},80,±1\n", "numbers from 0 to 100 as test_accuracy_std, got '±1' in row 2"),
        (f'{HEADER}\n{ROW},"80,5",1\n', "numbers from 0 to 100 as test_accuracy_mean, got '80,5' in row 2"),
        (f"{HEADER}\n{ROW},80,5,0,1\n", "a CSV of means, got "),
        (f"{HEADER}\n,cifar10,sgd_momentum,swa,80,1\n", "have model in every row, row 2 of "),
        (f"{HEADER}\n{ROW},80,1\n{ROW},80,1\n", "every method once, got resnet18 cifar10 sgd_momentum swa twice"),
        (f"{HEADER}\n{ROW},80,1\n".replace(",", ";"), "fields must be separated by commas, got ';'"),
        (f"{HEADER}\n{ROW},80,1\n".replace(",", "\t"), "fields must be separated by commas, got '\\t'"),
        ("", "a CSV of means, got "),
        ("\n\n", "a CSV of means, got "),
    ],
)  # fmt: skip
def test_a_file_of_means_that_is_none(text, words, tmp_path):
    """A decimal comma without quotes would shift the fields, and give other numbers."""
    with pytest.raises(ConfigError) as refusal:
        compare(frame_of(cells("swa", [81.0])), means(tmp_path, text), "quick")
    assert words in str(refusal.value)
    assert "means.csv" in str(refusal.value)
    assert str(refusal.value).isprintable()


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_a_file_of_means_in_another_encoding(encoding, tmp_path):
    path = means(tmp_path, f"{HEADER}\n{ROW},80,±1\n", encoding)
    with pytest.raises(ConfigError, match=r"^compare must be a CSV of means, got .*means\.csv \('utf-8' codec"):
        compare(frame_of(cells("swa", [81.0])), path, "quick")
