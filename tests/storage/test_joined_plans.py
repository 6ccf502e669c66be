"""Plans that join the view of their name: nothing goes but what has other settings, and that is said."""

import re

import pytest

from harness.storage.store import Store
from harness.storage.views import chosen_view, join, read_plan, set_twins, view_names, write_joined
from harness.validation import ConfigError


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "results")


def key(text):
    """A text that says what a base or a cell is of, as its key."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text)


def plan(methods, seeds=(0, 1), rate="constant", created="2026-01-01", suite="mine", fast=False, **config):
    """A plan of methods on one model; `config` are settings of the base, but `modes`, which are of cmd_online."""
    of_base = {name: value for name, value in config.items() if name != "modes"}
    bases, cells = [], []
    for seed in seeds:
        base = key(f"{rate}-{of_base}-{seed}")
        alike = ["net", "digits", "sgd", seed]
        bases.append({"base_key": base, "settings": f"{rate}-{of_base}", "alike": alike, "keeps": []})
        for method in methods:
            setting = f"{method}-{config.get('modes') if method == 'cmd_online' else ''}"
            cells.append(
                {
                    "cell_key": key(f"{base}-{setting}"), "base_key": base, "settings": f"{rate}-{of_base}-{setting}",
                    "model": "net", "dataset": "digits", "optimizer": f"sgd-{rate}", "seed": seed,
                    "method": method, "batchnorm": "as_is", "parameters": {}, "schedule": rate, "twin": None,
                }
            )  # fmt: skip
    return {
        "schema": 1, "suite": suite, "command": f"run {methods} {seeds} {rate} {config}", "created": created,
        "config": {**config, "seeds": list(seeds)}, "fast": fast, "bases": bases, "cells": cells,
        "primary": [{"method": method, "control": "base"} for method in methods if method != "base"],
    }  # fmt: skip


def finish(store, *plans):
    for cell in (cell for planned in plans for cell in planned["cells"]):
        folder = store.root / "cells" / cell["cell_key"]
        folder.mkdir(parents=True)
        (folder / "record.json").write_text("{}")


def lines(store):
    return [(cell["method"], cell["seed"]) for cell in read_plan(store.root, "mine")["cells"]]


def test_a_part_of_a_view_leaves_it_as_it_is(store):
    whole = plan(["base", "swa", "ema"], epochs=5)
    finish(store, whole)
    write_joined(store, whole)
    before = lines(store)
    part = plan(["swa"], [1], epochs=5)
    joined = join(store, part)
    assert joined.line == "view mine: 5 cells of earlier commands stay beside these"
    write_joined(store, part)
    assert lines(store) == before
    found = read_plan(store.root, "mine")
    assert found["commands"] == [whole["command"], part["command"]]
    assert found["primary"] == [{"method": name, "control": "base"} for name in ("swa", "ema")]
    assert [base["base_key"] for base in found["bases"]] == [base["base_key"] for base in whole["bases"]]


def test_more_seeds_and_methods_join(store):
    write_joined(store, plan(["base", "swa"], [0], epochs=5))
    write_joined(store, plan(["base", "ema"], [1], epochs=5))
    assert lines(store) == [("base", 0), ("swa", 0), ("base", 1), ("ema", 1)]


def test_the_same_plan_again_says_nothing(store):
    whole = plan(["base", "swa"], epochs=5)
    write_joined(store, whole)
    assert join(store, whole).line is None


def test_another_base_takes_out_all_that_stood_on_the_one_before_and_says_so(store):
    """Methods of one row must not be compared across bases of different length, whatever their seeds."""
    before = plan(["base", "swa"], [0, 1], epochs=5)
    finish(store, before)
    write_joined(store, before)
    now = plan(["base"], [2], epochs=7)
    line = join(store, now).line
    assert line.startswith("view mine: 4 of its 4 cells will be taken out, made with other settings (epochs=7, was 5)")
    assert "base, swa; another name=... makes a view beside this one" in line
    write_joined(store, now)
    assert lines(store) == [("base", 2)]


def test_another_setting_of_a_method_takes_out_its_own_cells_alone(store):
    before = plan(["base", "cmd_online"], [0, 1], epochs=5, modes=10)
    finish(store, before)
    write_joined(store, before)
    now = plan(["cmd_online"], [0], epochs=5, modes=20)
    line = join(store, now).line
    assert "2 of its 4 cells will be taken out, made with other settings (modes=20, was 10): cmd_online; 2 " in line
    write_joined(store, now)
    assert lines(store) == [("base", 0), ("cmd_online", 0), ("base", 1)]


def test_an_edited_method_is_said_to_be_that_and_other_data_to_be_those(store):
    """No setting differs: a cell's settings hold the digest of its source, those of a base that of its data."""
    before = plan(["base", "swa"], epochs=5)
    finish(store, before)
    write_joined(store, before)
    edited, other = plan(["base", "swa"], epochs=5), plan(["base", "swa"], epochs=5)
    for cell in edited["cells"]:
        if cell["method"] == "swa":
            cell.update(cell_key=f"{cell['cell_key']}-edited", settings=f"{cell['settings']}-edited")
    text = "2 of its 4 cells will be taken out, made by other sources of these methods than now: swa; another"
    assert text in join(store, edited).line
    for base in other["bases"]:
        base.update(base_key=f"{base['base_key']}-data", settings=f"{base['settings']}-data")
    for cell in other["cells"]:
        cell.update(base_key=f"{cell['base_key']}-data", cell_key=f"{cell['cell_key']}-data", settings="data")
    assert "4 of its 4 cells will be taken out, made from other data or pretrained weights" in join(store, other).line


def test_cells_that_never_ran_go_without_a_word(store):
    write_joined(store, plan(["base"], epochs=5))
    assert join(store, plan(["base"], epochs=7)).line is None


def test_a_rival_that_joins_later_is_the_twin_of_what_is_there(store):
    write_joined(store, plan(["base"], [0]))
    write_joined(store, plan(["base"], [0], rate="cosine"))
    twins = {cell["schedule"]: cell["twin"] for cell in read_plan(store.root, "mine")["cells"]}
    assert twins == {"constant": "sgd-cosine", "cosine": None}
    write_joined(store, plan(["base", "swa"], [0]))
    found = {(cell["schedule"], cell["method"]): cell["twin"] for cell in read_plan(store.root, "mine")["cells"]}
    assert found[("constant", "swa")] == "sgd-cosine"


def test_a_twin_is_the_run_whose_rate_falls_lowest():
    made = [plan(["base"], [0], rate=rate) for rate in ("constant", "cosine_half", "wsd", "cosine")]
    cells = [cell for part in made for cell in part["cells"]]
    for cell, end in zip(cells, (1.0, 0.5, 0.0, 0.0), strict=True):
        cell["rate_end"] = end
    whole = {**made[0], "bases": [base for part in made for base in part["bases"]], "cells": cells}
    set_twins(whole)
    assert [cell["twin"] for cell in cells] == ["sgd-wsd", None, None, None]
    partly = {**whole, "cells": cells[:2]}
    set_twins(partly)
    assert [cell["twin"] for cell in cells[:2]] == [None, None]


def test_a_plan_of_an_earlier_version_is_compared_by_keys(store):
    """It says no settings: cells on a base that is planned again stay, all others of its row go."""
    before = plan(["base", "swa"], [0, 1], epochs=5)
    old = {**before, "bases": [{k: b[k] for k in ("base_key", "keeps")} for b in before["bases"]]}
    old["cells"] = [{k: v for k, v in cell.items() if k != "settings"} for cell in before["cells"]]
    finish(store, before)
    store.write_plan(old)
    assert "3 cells of earlier commands stay" in join(store, plan(["base"], [0], epochs=5)).line
    assert "4 of its 4 cells" in join(store, plan(["base"], [2], epochs=5)).line


def test_a_view_that_holds_fast_cells_is_fast(store):
    write_joined(store, plan(["base"], [0], fast=True))
    write_joined(store, plan(["base"], [1]))
    assert read_plan(store.root, "mine")["fast"] is True


def test_the_latest_view_is_that_of_the_latest_plan(store):
    with pytest.raises(ConfigError, match="holds none: run makes one"):
        chosen_view(store.root, None)
    write_joined(store, plan(["base"], created="2026-01-02", suite="second"))
    write_joined(store, plan(["base"], created="2026-01-01", suite="first"))
    assert view_names(store.root) == ["second", "first"]
    assert chosen_view(store.root, None) == "second"
    assert chosen_view(store.root, "first") == "first"
    with pytest.raises(ConfigError, match="got 'frist'; nearest: first"):
        chosen_view(store.root, "frist")


def test_a_damaged_plan_is_replaced(store):
    folder = store.suite_folder("mine")
    folder.mkdir(parents=True)
    (folder / "plan.json").write_text("{")
    write_joined(store, plan(["base"], [0]))
    assert lines(store) == [("base", 0)]


def test_since_when_comparisons_are_what_they_are(store):
    """Named before anything was done; kept while they are the same; with another list since so many cells were done."""
    first = plan(["base", "swa"], [0, 1]) | {"primary": [{"method": "swa", "control": "base"}]}
    write_joined(store, first)
    assert read_plan(store.root, "mine")["named"] == {"stated": False, "done": 0}
    finish(store, first)
    write_joined(store, first)
    assert read_plan(store.root, "mine")["named"] == {"stated": False, "done": 0}
    write_joined(store, first | {"primary": [], "config": {"statistics": {"primary": []}}})
    assert read_plan(store.root, "mine")["named"] == {"stated": True, "done": 4}


def test_an_earlier_version_did_not_say_since_when(store):
    first = plan(["base", "swa"], [0])
    store.write_plan(first)
    finish(store, first)
    write_joined(store, first)
    assert read_plan(store.root, "mine")["named"] is None
