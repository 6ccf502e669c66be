"""Weights given back: in the format that came in, exact, loaded strictly, and never over anything."""

import json
import warnings
from pathlib import Path

import pytest
import torch
from command import here
from layouts import LAYOUTS, Words, listing, trained, written
from safetensors.torch import load_file, save_file

from harness.checkpoints.recognition import recognise
from harness.storage.store import Store

RUNS = trained()


def loaded(path, layout):
    """The state dict that a checkpoint holds, by the library that wrote it."""
    path = next(path.iterdir()) if layout in ("plain", "legacy", "lightning", "safetensors") else path
    match layout:
        case "plain" | "legacy":
            return torch.load(path, weights_only=True)["model_state_dict"]
        case "lightning":
            return torch.load(path, weights_only=True)["state_dict"]
        case "safetensors":
            return load_file(path)
        case "trainer":
            return load_file(path / "model.safetensors")
        case "shards":
            parts = json.loads((path / "model.safetensors.index.json").read_text())["weight_map"]
            return {name: load_file(path / part)[name] for name, part in parts.items()}
        case "deepspeed":
            inside = path / (path / "latest").read_text().strip()
            return torch.load(inside / "mp_rank_00_model_states.pt", weights_only=True)["module"]
        case "distributed":
            import torch.distributed.checkpoint as dcp

            state = {"model": Words().state_dict()}
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                dcp.load(state, checkpoint_id=str(path))
            return state["model"]


def strictly(states):
    """A model that takes the states, all of them and no other; a tied head may be left out."""
    model = Words()
    lacking, unexpected = model.load_state_dict(states, strict=False)
    assert (unexpected, set(lacking) <= {"lm_head.weight"}) == ([], True)
    return model


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_came_in_goes_out_the_same(layout, tmp_path):
    folder = written(tmp_path / "runs", layout, RUNS)
    results, before = tmp_path / "results", listing(folder)
    here("adopt", "mine", f"from={folder}", results=results)
    here("give", "mine", "method=base", f"to={tmp_path}/out/", results=results)
    (inside,) = (tmp_path / "out").iterdir()
    whole = tmp_path / "out" if inside.is_file() else inside
    states = loaded(whole, layout)
    wanted = RUNS[-1][0]
    assert all(torch.equal(states[name], wanted[name]) for name in states)
    assert all(states[name].dtype == wanted[name].dtype for name in states)
    model, other, words = strictly(states).eval(), Words(), torch.arange(7)
    other.load_state_dict(wanted)
    assert torch.equal(model(words), other.eval()(words))
    assert listing(folder) == before


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_mean_goes_out_as_a_mean(layout, tmp_path):
    folder = written(tmp_path / "runs", layout, RUNS)
    here("adopt", "mine", f"from={folder}", results=tmp_path / "results")
    printed = here(
        "give", "mine", "method=time_mean", "t=4", f"to={tmp_path}/out/", results=tmp_path / "results"
    ).stdout
    assert "time_mean after snapshot 4 (step 40) of mine, seed 0" in printed
    (inside,) = (tmp_path / "out").iterdir()
    states = loaded(tmp_path / "out" if inside.is_file() else inside, layout)
    for name in ("wte.weight", "norm.weight", "norm.bias"):
        mean = torch.stack([RUNS[t][0][name].double() for t in (1, 2, 3, 4)]).mean(0)
        assert torch.allclose(states[name].double(), mean, atol=1e-6)
    assert torch.equal(states["norm.running_mean"], RUNS[4][0]["norm.running_mean"])
    if "lm_head.weight" in states:
        assert torch.equal(states["lm_head.weight"], states["wte.weight"])


def test_optimizer_and_averages_are_not_given(tmp_path):
    folder = tmp_path / "runs"
    folder.mkdir()
    from argparse import Namespace

    for t in range(1, 5):
        states, optimizer = RUNS[t]
        value = {"epoch": t, "arch": "words", "args": Namespace(lr=1), "optimizer": optimizer, "metric": 0.5}
        torch.save(value | {"state_dict": states, "state_dict_ema": states}, folder / f"{t}.pth.tar")
    here("adopt", "mine", f"from={folder}", results=tmp_path / "results")
    printed = here("give", "mine", "method=swa", f"to={tmp_path / 'swa.pth.tar'}", results=tmp_path / "results").stdout
    assert "left out, as they are no plain values: args" in printed
    given = torch.load(tmp_path / "swa.pth.tar", weights_only=True)
    assert given.keys() == {"epoch", "arch", "metric", "state_dict"}
    assert given["state_dict"]["lm_head.weight"].data_ptr() == given["state_dict"]["wte.weight"].data_ptr()
    found = recognise(tmp_path / "swa.pth.tar")
    assert (found.taken, found.facts.epoch) == ("state_dict", 5)


def test_rounding_is_told_and_float32_keeps_it(tmp_path):
    """Four blocks of weights are a spacing of bfloat16 away from the last snapshot in one of five, which a mean rounds
    to nothing, and one weight is away in four of five, which it rounds to all of it."""
    base, results = torch.linspace(1, 1.9, 200).bfloat16(), tmp_path / "results"
    for t in range(1, 6):
        values = base.clone()
        values[t * 40 : (t + 1) * 40] += 2**-7
        values[0] += 2**-7 if t < 5 else 0
        save_file({"w": values}, tmp_path / f"step_{t}.safetensors")
    here("adopt", "low", f"from={tmp_path}/*.safetensors", results=results)
    low, high = (tmp_path / f"{name}.safetensors" for name in ("low", "high"))
    printed = here("give", "low", "method=time_mean", f"to={low}", results=results).stdout
    here("give", "low", "method=time_mean", "dtype=float32", f"to={high}", results=results)
    rounded, kept = load_file(low)["w"], load_file(high)["w"]
    mean = torch.stack([load_file(tmp_path / f"step_{t}.safetensors")["w"].float() for t in range(1, 6)]).mean(0)
    assert (rounded.dtype, kept.dtype) == (torch.bfloat16, torch.float32)
    assert torch.allclose(kept, mean, atol=2e-7)
    assert torch.equal(rounded, kept.bfloat16())
    last = load_file(tmp_path / "step_5.safetensors")["w"].double()
    change, left = kept.double() - last, rounded.double() - last
    share = 100 * float(1 - (change @ left) / (change @ change))
    assert f"rounding to bfloat16 took back {share:.1f} %" in printed


def test_a_configuration_says_float32_too(tmp_path):
    folder = written(tmp_path / "runs", "trainer", trained(dtype=torch.bfloat16))
    here("adopt", "mine", f"from={folder}", results=tmp_path / "results")
    here("give", "mine", "method=swa", "dtype=float32", f"to={tmp_path / 'out'}", results=tmp_path / "results")
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "float32"
    assert {tensor.dtype for tensor in load_file(tmp_path / "out" / "model.safetensors").values()} >= {torch.float32}
    assert not (tmp_path / "out" / "optimizer.pt").exists()


def test_an_overflow_is_an_error_and_leaves_nothing(tmp_path):
    for t in range(1, 6):
        save_file({"w": torch.tensor([60000.0 * (-1) ** t, 1.0 + t]).half()}, tmp_path / f"step_{t}.safetensors")
    here("adopt", "half", f"from={tmp_path}/*.safetensors", results=tmp_path / "results")
    from harness.checkpoints.giving import give
    from harness.checkpoints.registry import read_name, read_run

    store = Store(tmp_path / "results")
    run = read_run(store, read_name(store.root, "half").keys[0])
    with pytest.raises(ValueError, match="dtype must be float32 where weights overflow"):
        give(run, 5, torch.tensor([70000.0, 1.0]), {}, tmp_path / "out.safetensors")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "results",
        *(f"step_{t}.safetensors" for t in range(1, 6)),
    ]


@pytest.fixture(scope="module")
def adopted(tmp_path_factory):
    root = tmp_path_factory.mktemp("give")
    written(root / "runs", "safetensors", RUNS)
    here("adopt", "mine", f"from={root / 'runs'}", results=root / "results")
    return root


REFUSED = {
    ("method=swa", "to=."): "to must be a new path, as nothing is ever written over",
    ("method=swa", "to=new", "t=7"): "t must be a snapshot of 1 to 6, got 7",
    ("method=swa", "to=new", "seed=3"): "seeds must be among those adopted as mine (0), got 3",
    ("method=saw", "to=new"): "method: no preset named 'saw'",
    ("method=ema", "to=new"): "method.ema must watch snapshots",
    ("method=swa", "to=new", "method.swa.start=3"): "method.swa.start must be above 0 and below 1, got 3",
    ("method=swa", "to=new", "method.lawa.k=3"): "method.lawa.k must be method.swa.PARAMETER",
    ("method=swa", "to=new", "dtype=float16"): "dtype must be",
    ("to=new",): "method must be given",
}


@pytest.mark.parametrize("arguments", REFUSED)
def test_what_cannot_be_given_is_refused_in_one_line(adopted, arguments, monkeypatch):
    monkeypatch.chdir(adopted)
    printed = here("give", "mine", *arguments, results=adopted / "results", code=2)
    assert REFUSED[arguments] in printed.stderr
    assert len(printed.stderr.splitlines()) == 1
    assert not (adopted / "new").exists()


def test_an_existing_file_stays_as_it_is(adopted):
    target = adopted / "mine.safetensors"
    target.write_text("mine")
    printed = here("give", "mine", "method=swa", f"to={target}", results=adopted / "results", code=2).stderr
    assert "which exists" in printed
    assert target.read_text() == "mine"


def test_a_kill_leaves_nothing_half_done(tmp_path, monkeypatch):
    """Whatever ends a command while it writes: no run, no file, and the same command does it afterwards."""
    from harness.adopted import adopt as adopting
    from harness.checkpoints import giving

    folder = written(tmp_path / "runs", "plain", RUNS)
    results, before = tmp_path / "results", listing(folder)
    for where, name in ((adopting, "write_safetensors"), (adopting, "write_run"), (adopting, "write_name")):
        with monkeypatch.context() as patch:
            patch.setattr(where, name, _killed)
            with pytest.raises(Killed):
                here("adopt", "mine", f"from={folder}", "keep=copy", results=results)
        assert not (results / "adopted" / "mine.json").exists()
    here("adopt", "mine", f"from={folder}", "keep=copy", results=results)
    with monkeypatch.context() as patch:
        patch.setattr(giving.torch, "save", _killed)
        with pytest.raises(Killed):
            here("give", "mine", "method=swa", f"to={tmp_path / 'out.pt'}", results=results)
    assert not (tmp_path / "out.pt").exists()
    here("give", "mine", "method=swa", f"to={tmp_path / 'out.pt'}", results=results)
    assert listing(folder) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.pt", "results", "runs"]


class Killed(BaseException):
    """What no handler of ours takes for an error."""


def _killed(path, *_, **__):
    if isinstance(path, Path) and not path.is_dir():
        path.write_bytes(b"half")
    raise Killed
