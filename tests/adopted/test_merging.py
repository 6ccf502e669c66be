"""Adopted runs of two results folders in one, and a folder that is moved."""

import shutil
from pathlib import Path

import torch
from command import here
from layouts import trained, written

from harness.checkpoints.registry import read_name, read_run
from harness.checkpoints.trajectory import AdoptedTrajectory
from harness.storage.store import Store
from harness.upkeep.merge import merge


def merged(results, other):
    """The exit code and what was said."""
    said = []
    return merge(results, other, said.append), said


def test_adopted_runs_come_along_with_what_was_kept_of_them(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    for seed, results in enumerate((first, second)):
        folder = written(tmp_path / f"s{seed}", "plain", trained(4, seed))
        here("adopt", "words", f"from={folder.parent}/s{{seed}}", f"seeds=[{seed}]", "keep=copy", results=results)
    copies = {path: path.read_bytes() for path in (second / "adopted").rglob("*.safetensors")}
    assert len(copies) == 5
    shutil.rmtree(tmp_path / "s1")
    assert merged(first, second) == (
        0,
        ["bases: 1 taken over", "cells: none", "adopted words: 1 seeds beside the 1 here"],
    )
    shutil.rmtree(second)
    (tmp_path / "moved").mkdir()
    results = first.rename(tmp_path / "moved" / "results")
    keys = read_name(results, "words").keys
    run = read_run(Store(results), keys[1])
    assert [*keys] == [0, 1]
    assert [Path(source.path).read_bytes() for source in run.sources] == [*dict(sorted(copies.items())).values()]
    assert AdoptedTrajectory(run, torch.device("cpu"))[4].t == 4


def test_names_that_stand_for_other_runs_are_named(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    for seed, results in enumerate((first, second)):
        folder = written(tmp_path / f"s{seed}", "plain", trained(4, seed))
        here("adopt", "words", f"from={folder}", "seeds=[0]", results=results)
    code, said = merged(first, second)
    assert (code, said[-1]) == (1, "adopted words is another run in each of the folders, this one's is kept")
    (second / "adopted" / "words.json").write_text("{")
    code, said = merged(tmp_path / "third", second)
    assert code == 1
    assert said[0] == "bases: 1 taken over"
    assert said[-1].startswith(f"{second / 'adopted' / 'words.json'}: damaged")


def test_seeds_of_other_weights_are_no_run_of_the_name(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    folder = written(tmp_path / "s0", "plain", trained(4))
    here("adopt", "words", f"from={folder}", "seeds=[0]", results=first)
    here("adopt", "words", f"from={folder}", "seeds=[1]", "buffers=[norm.weight]", results=second)
    code, said = merged(first, second)
    assert (code, said[-1]) == (1, "adopted words is another run in each of the folders, this one's is kept")
    assert [*read_name(first, "words").keys] == [0]
