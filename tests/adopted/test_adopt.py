"""Checkpoints of every kind become the same run; what is no run is refused in one line."""

import json
import os
import re
from argparse import Namespace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from command import here
from layouts import LAYOUTS, STEPS, Words, listing, trained, without_tied, written
from safetensors.torch import save_file

from harness.checkpoints.recognition import recognise
from harness.checkpoints.registry import read_name, read_run
from harness.checkpoints.trajectory import AdoptedTrajectory
from harness.storage.store import Store

RUNS = trained()
WEIGHTS = ("norm.bias", "norm.weight", "wte.weight")


def adopted(results, name="mine"):
    store = Store(results)
    return read_run(store, next(iter(read_name(results, name).keys.values())))


def expected_TN(names=WEIGHTS, ts=range(7), runs=RUNS):
    return torch.stack([torch.cat([runs[t][0][name].reshape(-1).float() for name in names]) for t in ts])


def rows_TN(run):
    trajectory = AdoptedTrajectory(run, torch.device("cpu"))
    return torch.cat([W_TB for _, _, W_TB in trajectory.blocks(7 * 4 * 5)], dim=1)


@pytest.mark.parametrize("keep", ["link", "hardlink", "copy"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_the_same_run(layout, keep, tmp_path):
    folder = written(tmp_path / "runs", layout, RUNS)
    here("adopt", "mine", f"from={folder}", f"keep={keep}", results=tmp_path / "results")
    run = adopted(tmp_path / "results")
    assert run.layout.names == WEIGHTS
    assert run.ts == (0, 1, 2, 3, 4, 5, 6)
    assert [source.step for source in run.sources] == [STEPS * t for t in range(7)]
    assert torch.equal(rows_TN(run), expected_TN())
    here("adopt", "other", f"from={written(tmp_path / 'reference', 'plain', RUNS)}", results=tmp_path / "results")
    assert adopted(tmp_path / "results", "other").key == run.key
    snapshot = AdoptedTrajectory(run, torch.device("cpu"))[3]
    assert torch.equal(snapshot.theta_N, expected_TN()[3])
    assert {*snapshot.buffers} == {"norm.running_mean", "norm.running_var", "norm.num_batches_tracked"}
    assert torch.equal(snapshot.buffers["norm.running_var"], RUNS[3][0]["norm.running_var"])


def test_a_copy_outlives_its_sources(tmp_path):
    folder = written(tmp_path / "runs", "distributed", RUNS)
    for name, keep in (("copied", "copy"), ("linked", "hardlink")):
        here("adopt", name, f"from={folder}", f"keep={keep}", results=tmp_path / "results")
        folder.rename(tmp_path / "gone")
        assert torch.equal(rows_TN(adopted(tmp_path / "results", name)), expected_TN())
        (tmp_path / "gone").rename(folder)


class Evil:
    """What runs a command wherever pickle.load has its way."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_malicious_pickle_runs_nothing(zipped, tmp_path):
    folder, proof = tmp_path / "runs", tmp_path / "proof"
    folder.mkdir()
    for t in range(1, 5):
        value = {"epoch": t, "state_dict": RUNS[t][0], "args": Evil(proof)}
        torch.save(value, folder / f"m{t}.pt", _use_new_zipfile_serialization=zipped)
    here("adopt", "mine", f"from={folder}", results=tmp_path / "results")
    assert adopted(tmp_path / "results").epochs == 4
    assert not proof.exists()


def test_a_pickled_module_says_its_parameters(tmp_path):
    torch.manual_seed(0)
    model, folder = Words(), tmp_path / "runs"
    folder.mkdir()
    for t in range(1, 5):
        with torch.no_grad():
            model.norm.weight.add_(1)
        torch.save(model, folder / f"epoch{t}.pt")
    here("adopt", "mine", f"from={folder}", results=tmp_path / "results")
    run = adopted(tmp_path / "results")
    assert run.layout.names == (
        "wte.weight",
        "norm.weight",
        "norm.bias",
    )  # in its own order, those that rest among them
    assert {own.name for own in run.buffers} == {"norm.running_mean", "norm.running_var", "norm.num_batches_tracked"}


def _wrapped(states):
    return {f"module.{name}": tensor for name, tensor in states.items()}


def test_what_the_writers_of_averages_hold(tmp_path):
    """timm and torchvision keep an average beside the weights, Lightning's callback has it in the weights' place."""
    raw, average = RUNS[3][0], RUNS[5][0]
    values = {
        "timm": {"state_dict": raw, "state_dict_ema": average},
        "torchvision": {"model": raw, "model_ema": {"n_averaged": torch.tensor(3), **_wrapped(average)}},
        "lightning": {"current_model_state": raw, "state_dict": average},
    }  # fmt: skip
    for name, value in values.items():
        torch.save({"epoch": 3, "args": Namespace(model="x"), "optimizer": {}, **value}, tmp_path / f"{name}.pt")
        for entry, wanted in (("auto", raw), ("raw", raw), ("ema", average)):
            found = recognise(tmp_path / f"{name}.pt", entry)
            place = next(place for name, place in found.tensors.items() if name.endswith("wte.weight"))
            with open(place.path, "rb") as file:
                file.seek(place.offset)
                read = np.frombuffer(file.read(place.nbytes), dtype=np.float32).reshape(place.shape)
            assert np.array_equal(read, wanted["wte.weight"].numpy()), (name, entry)
            assert found.facts.epoch == 4


def test_the_same_weights_stand_once_and_epochs_count_from_one(tmp_path):
    for t in range(4):
        torch.save({"epoch": t, "state_dict": RUNS[t + 1][0]}, tmp_path / f"checkpoint-{t}.pth.tar")
    torch.save({"epoch": 3, "state_dict": RUNS[4][0]}, tmp_path / "last.pth.tar")
    torch.save({"epoch": 1, "state_dict": RUNS[2][0]}, tmp_path / "model_best.pth.tar")
    printed = here("adopt", "mine", f"from={tmp_path}/*.tar", results=tmp_path / "results").stdout
    assert re.search(r"the same weights as \S+checkpoint-3.pth.tar: \S+last.pth.tar", printed)
    run = adopted(tmp_path / "results")
    assert (run.ts, [source.at for source in run.sources]) == ((1, 2, 3, 4), [1, 2, 3, 4])


def test_names_are_numbers_and_prefixes_are_dropped(tmp_path):
    for t in (1, 2, 10, 11):
        torch.save({f"_orig_mod.module.{n}": v for n, v in RUNS[t % 7][0].items()}, tmp_path / f"m_{t}.pth")
    here("adopt", "mine", f"from={tmp_path}", "initial=" + str(tmp_path / "m_1.pth"), results=tmp_path / "a", code=0)
    here("adopt", "mine", f"from={tmp_path}", results=tmp_path / "results")
    run = adopted(tmp_path / "results")
    assert [Path(source.path).name for source in run.sources] == ["m_1.pth", "m_2.pth", "m_10.pth", "m_11.pth"]
    assert run.layout.names == WEIGHTS


def test_steps_are_chosen_and_a_table_gives_metrics(tmp_path):
    folder = written(tmp_path / "runs", "trainer", RUNS)
    here("adopt", "some", f"from={folder}", "steps=10:50:20", results=tmp_path / "results")
    assert [source.step for source in adopted(tmp_path / "results", "some").sources] == [10, 30, 50]
    paths = [f"runs/checkpoint-{step}" for step in (10, 40, 60)]
    table = pd.DataFrame({"path": paths, "step": [1, 2, 3], "score": [0.5, 0.25, 0.125]})
    table.to_csv(tmp_path / "table.csv", index=False)
    here("adopt", "table", f"from={tmp_path / 'table.csv'}", results=tmp_path / "results")
    run = adopted(tmp_path / "results", "table")
    assert [source.step for source in run.sources] == [1, 2, 3]
    history = pd.DataFrame(Store(tmp_path / "results").base_history(run.key))
    assert history["logged_score"].tolist() == [0.5, 0.25, 0.125]


def test_what_a_trainer_logged_is_kept(tmp_path):
    folder = written(tmp_path / "runs", "trainer", RUNS)
    here("adopt", "mine", f"from={folder}", results=tmp_path / "results")
    history = pd.DataFrame(Store(tmp_path / "results").base_history(adopted(tmp_path / "results").key))
    assert history["train_loss"].tolist() == [2.0 / t for t in range(1, 7)]
    assert history["logged_eval_loss"].tolist() == [3.0 / t for t in range(1, 7)]


def test_a_recorder_says_order_and_seed(tmp_path):
    for t in range(5):
        said = {"step": STEPS * t, "epoch": t, "seed": 7, "tied": {}, "metrics": {"loss": 1 / (t + 1)}}
        said |= {"order": ["wte.weight", "norm.weight", "norm.bias"], "trainable": ["wte.weight", "norm.bias"]}
        said |= {"buffers": ["norm.running_mean", "norm.running_var", "norm.num_batches_tracked"]}
        save_file(without_tied(RUNS[t][0]), tmp_path / f"{t}.safetensors", {"traindyn": json.dumps(said)})
    here("adopt", "mine", f"from={tmp_path}", results=tmp_path / "results")
    run = adopted(tmp_path / "results")
    assert (run.seed, run.layout.names, run.ts) == (7, ("wte.weight", "norm.bias"), (0, 1, 2, 3, 4))
    assert "norm.weight" in {own.name for own in run.buffers}


def test_what_our_own_recorder_writes_is_adopted(tmp_path):
    from harness.live import Recorder

    torch.manual_seed(0)
    model, wanted = Words(), []
    recorder = Recorder(model, tmp_path / "runs", seed=3)
    for step in (5, 10, 15):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        recorder.record(step, metrics={"loss": 1 / step})
        wanted.append(torch.cat([parameter.detach().reshape(-1) for parameter in model.parameters()]))
    here("adopt", "mine", f"from={tmp_path / 'runs'}", results=tmp_path / "results")
    run = adopted(tmp_path / "results")
    assert run.layout.names == tuple(name for name, _ in model.named_parameters())
    assert (run.seed, [source.step for source in run.sources]) == (3, [0, 5, 10, 15])
    assert torch.equal(rows_TN(run)[1:], torch.stack(wanted))


def test_bfloat16_is_cast_block_by_block(tmp_path):
    runs = trained(dtype=torch.bfloat16)
    folder = written(tmp_path / "runs", "safetensors", runs)
    here("adopt", "mine", f"from={folder}", results=tmp_path / "results")
    names = adopted(tmp_path / "results").layout.names
    assert torch.equal(rows_TN(adopted(tmp_path / "results")), expected_TN(names, runs=runs))


def test_channels_last_tensors_are_copied(tmp_path):
    torch.manual_seed(0)
    weight, folder = torch.randn(3, 2, 4, 4), tmp_path / "runs"
    folder.mkdir()
    for t in range(1, 5):
        torch.save(
            {"epoch": t, "state_dict": {"w": (weight * t).to(memory_format=torch.channels_last)}}, folder / f"{t}.pt"
        )
    printed = here("adopt", "mine", f"from={folder}", results=tmp_path / "results").stdout
    assert "copied, as its tensors do not lie densely" in printed
    assert torch.equal(rows_TN(adopted(tmp_path / "results"))[2], (weight * 3).reshape(-1))


def test_the_survey_of_buffers():
    """Names of buffers of many libraries' models, and weights whose names are alike."""
    from harness.checkpoints.roles import is_buffer

    codebook = {"quantize"}
    buffers = ("bn.running_mean", "bn.running_var", "h.0.attn.masked_bias", "rotary.inv_freq", "embed.position_ids",
               "attn.relative_coords_table", "blocks.1.attn_mask", "quantize.embed", "quantize.cluster_size",
               "quantize.embed_avg", "rotary_emb.original_inv_freq", "n_averaged")  # fmt: skip
    weights = ("embed", "h.0.attn.bias", "ln.weight", "pos_embed", "attn.relative_position_bias_table", "cls_token",
               "layer_scale.gamma", "logit_scale", "model.embed_tokens.weight", "A_log")  # fmt: skip
    assert [name for name in buffers if not is_buffer(name, torch.float32, codebook)] == []
    assert [name for name in weights if is_buffer(name, torch.float32, codebook)] == []


@pytest.mark.parametrize("family", ["test_resnet", "test_vit", "test_convnext", "test_efficientnet", "test_byobnet"])
def test_no_weight_of_timm_is_taken_for_a_buffer(family):
    import timm

    from harness.checkpoints.roles import is_buffer

    model = timm.create_model(family)
    assert [name for name, _ in model.named_parameters() if is_buffer(name, torch.float32, set())] == []
    kept = model.state_dict()
    lost = [
        n for n, b in model.named_buffers() if n in kept and b.is_floating_point() and not is_buffer(n, b.dtype, set())
    ]
    assert lost == []


def broken(folder, what):
    """A run of plain checkpoints with one fault."""
    states = RUNS[3][0]
    match what:
        case "two":
            for path in sorted(folder.glob("*.pt"))[2:]:
                path.unlink()
        case "optimizer":
            for path in folder.glob("*.pt"):
                torch.save(RUNS[1][1], path)
        case "no order":
            for index, path in enumerate(sorted(folder.glob("*.pt"))):
                torch.save({"state_dict": RUNS[index][0]}, folder / f"{'abcdefg'[index]}.pt")
                path.unlink()
        case "twice":
            torch.save({"global_step": 20, "model_state_dict": RUNS[6][0]}, folder / "again.pt")
        case "lacks":
            less = {name: tensor for name, tensor in states.items() if name != "norm.weight"}
            torch.save({"global_step": 30, "model_state_dict": less}, folder / "c3.pt")
        case "shape":
            torch.save({"global_step": 30, "model_state_dict": states | {"norm.bias": torch.ones(5)}}, folder / "c3.pt")
        case "not finite":
            wrong = states | {"norm.bias": torch.tensor([0.0, float("nan"), 0, 0])}
            torch.save({"global_step": 30, "model_state_dict": wrong}, folder / "c3.pt")
        case "quantised":
            for t in range(1, 5):
                torch.save(
                    {"step": t, "w.weight": torch.ones(3, dtype=torch.int8), "b": torch.ones(2)}, folder / f"c{t}.pt"
                )
        case "cut":
            path = folder / "c3.pt"
            path.write_bytes(path.read_bytes()[:-700])
        case "several":
            for path in folder.glob("*.pt"):
                torch.save({"G": states, "D": states}, path)


FAULTS = {
    "two": (r"^error: from must give at least 3 different snapshots beside w\(0\), got 1$", ()),
    "optimizer": (r"c0.pt: holds no weights of a model, but an optimizer's state", ()),
    "no order": (r"a.pt: neither its content nor its name says at which step", ()),
    "twice": (r"other weights than \S+ at the same step 20", ()),
    "lacks": (r"c3.pt: lacks the tensor norm.weight, which \S+ has", ()),
    "shape": (r"c3.pt: tensor norm.bias must have shape \(4,\) as in \S+, got \(5,\)", ()),
    "not finite": (r"c3.pt: tensor norm.bias must be finite", ()),
    "quantised": (r"quantised weights: tensor w.weight", ()),
    "cut": (r"c3.pt: a damaged zip archive", ()),
    "several": (r"entry must name one of its entries with weights \(G, D\), got auto", ()),
    "": (r"weights must match names of tensors, got 'none.\*'", ("weights=[none.*]",)),
    " ": (r"buffers must match names of tensors, got 'none.\*'", ("buffers=[none.*]",)),
    "  ": (r"weights and buffers must match different .* norm.bias", ("weights=[norm.b*]", "buffers=[*.bias]")),
    "   ": (r"entry: none named 'modle'", ("entry=modle",)),
    "    ": (r"entry must be among its entries with weights \(model_state_dict\), got ema", ("entry=ema",)),
    "     ": (r"steps must be first:last:every", ("steps=a:b",)),
    "      ": (r"steps must leave snapshots of those there are \(0 to 60\), got '1000:'", ("steps=1000:",)),
    "       ": (r"initial must name a checkpoint that is there", ("initial=none.pt",)),
    "        ": (r"from must have \{seed\} in it where there are several seeds", ("seeds=[0,1]",)),
    "         ": (r"keep must be (one of )?.*link.*got 'move'", ("keep=move",)),
    "          ": (r"dataset must be given", ("model=test_resnet",)),
    "           ": (r"must have the checkpoints' tensors", ("model=test_resnet", "dataset=digits")),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_no_run_is_refused_in_one_line(fault, tmp_path):
    folder = written(tmp_path / "runs", "plain", RUNS)
    broken(folder, fault)
    before = listing(folder)
    message, words = FAULTS[fault]
    printed = here("adopt", "mine", f"from={folder}", *words, results=tmp_path / "results", code=2)
    assert len(printed.stderr.splitlines()) == 1
    assert re.search(message, printed.stderr), printed.stderr
    assert listing(folder) == before
    assert not (tmp_path / "results" / "adopted" / "mine.json").exists()


def test_names_and_files_that_are_none(tmp_path):
    assert "no such file: 'nowhere/*'" in here("adopt", "m", "from=nowhere/*", results=tmp_path, code=2).stderr
    assert "adopt takes one name" in here("adopt", "from=x", results=tmp_path, code=2).stderr
    assert "from must be given" in here("adopt", "m", results=tmp_path, code=2).stderr


def test_what_lies_beside_checkpoints_is_passed_over(tmp_path):
    """Archives, texts and states of streams and schedulers are no checkpoints, whatever they begin with."""
    import zipfile

    folder = written(tmp_path / "runs", "plain", RUNS)
    with zipfile.ZipFile(folder / "code.zip", "w") as archive:
        archive.writestr("main.py", "print()")
    (folder / "notes.txt").write_text("choices={a: 1}")
    (folder / "events.out").write_bytes(bytes(range(256)))
    np.savez(folder / "scores.npz", a=np.ones(3))
    torch.save({"cpu": torch.get_rng_state()}, folder / "rng_state.pth")
    torch.save({"last_epoch": 3, "base_lrs": [0.1]}, folder / "scheduler.pt")
    printed = here("adopt", "mine", f"from={folder}", results=tmp_path / "results").stdout
    assert "left out, without weights of a model" in printed
    assert adopted(tmp_path / "results").epochs == 6
    (tmp_path / "empty").mkdir()
    none = here("adopt", "none", f"from={tmp_path / 'empty'}", results=tmp_path / "results", code=2).stderr
    assert "got no checkpoint at all" in none


def test_paths_may_have_any_characters(tmp_path):
    folder = written(tmp_path / "my runs [1] é", "trainer", RUNS)
    here("adopt", "mine", f"from={folder}", "keep=hardlink", results=tmp_path / "the results")
    assert adopted(tmp_path / "the results").epochs == 6


def test_a_shard_that_is_not_there_is_named(tmp_path):
    folder = written(tmp_path / "runs", "shards", RUNS)
    (folder / "checkpoint-30" / "model-00002-of-00002.safetensors").unlink()
    printed = here("adopt", "mine", f"from={folder}", results=tmp_path / "results", code=2)
    assert "model-00002-of-00002.safetensors: a shard that is not there" in printed.stderr


def test_shards_of_zero_3_are_named(tmp_path):
    for t in range(1, 5):
        inside = tmp_path / "runs" / f"global_step{t}"
        inside.mkdir(parents=True)
        torch.save({"module": {"w": torch.empty(0)}}, inside / "zero_pp_rank_0_mp_rank_00_model_states.pt")
    printed = here("adopt", "mine", f"from={tmp_path}/runs/*", results=tmp_path / "results", code=2)
    assert "zero_to_fp32.py" in printed.stderr
    assert len(printed.stderr.splitlines()) == 1
