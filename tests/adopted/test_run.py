"""`run adopted=`: methods replay on somebody's own run and are measured by their command, their class, or by us."""

import json
import re
import shutil
import signal
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from command import SECONDS, SHIM, here, start
from layouts import trained, without_tied, written
from offline import offline_runs
from torch.optim.swa_utils import AveragedModel

from harness.problem.models import build_model
from harness.results.frame import load_frame, load_history
from harness.results.load_model import base_from_record
from harness.storage.store import Store
from harness.storage.tensors import read_unsealed
from harness.storage.trajectory import read_snapshot
from harness.tracking.wandb.transaction_log import read_offline
from harness.training.flat_model import FlatModel

HERE = Path(__file__).parent
MEASURE = f"{sys.executable} -I -S {HERE / 'measure.py'} {{checkpoint}} --method {{method}}"
MINE = ("--config-dir", str(HERE / "mine"))
RUNS = [trained(6, seed) for seed in (0, 1, 2)]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """Three seeds of a run, adopted."""
    root = tmp_path_factory.mktemp("words")
    for seed, runs in enumerate(RUNS):
        written(root / f"s{seed}", "trainer", runs)
    here("adopt", "words", f"from={root}/s{{seed}}", "seeds=[0,1,2]", results=root / "results")
    return root


def run(root, *arguments, code=0, command=MEASURE):
    given = [f"evaluate.command={command}"] if command else []
    return here("run", "adopted=words", *given, "tracker=none", *arguments, results=root / "results", code=code)


def loss_of(states):
    return float(states["wte.weight"].double().square().sum())


def test_methods_are_measured_by_a_command(words):
    printed = run(words, "method=[base,time_mean,swa]")
    assert "val loss" in printed.stdout
    assert re.search(r"val\s+diff:\s+loss\s+above\s+base,\s+paired\s+by\s+seed", printed.stdout), printed.stdout
    frame = load_frame(words / "results", "words").set_index(["method", "seed"])
    for seed, runs in enumerate(RUNS):
        base = AveragedModel(torch.nn.ParameterDict({"w": runs[1][0]["wte.weight"]}))
        for states, _ in runs[1:]:
            base.update_parameters(torch.nn.ParameterDict({"w": states["wte.weight"]}))
        mean = base.module["w"].detach()  # torch's own running mean of w(1..6)
        assert frame.loc[("time_mean", seed), "val_loss"] == pytest.approx(
            float(mean.double().square().sum()), rel=1e-5
        )
        assert frame.loc[("base", seed), "val_loss"] == pytest.approx(loss_of(runs[-1][0]), rel=1e-6)
    history = load_history(words / "results", "words")
    own = history.query("method == 'base' and seed == 1").sort_values("epoch")
    assert np.allclose(own["val_loss"], [loss_of(states) for states, _ in RUNS[1][1:]], rtol=1e-6)
    assert np.allclose(
        own["val_mean"], [float(s["norm.running_mean"].double().sum()) for s, _ in RUNS[1][1:]], atol=1e-6
    )
    assert own["train_loss"].tolist() == [2.0 / t for t in range(1, 7)]
    said = here("report", "name=words", "figures=none", results=words / "results").stdout
    assert "base" in said
    tables = (words / "results" / "suites" / "words" / "tables" / "summary.csv").read_text()
    assert "verdict_to_base" in tables


def test_wandb_has_one_run_per_cell_that_equals_its_record(words):
    given = [
        "tracker=wandb",
        "tracker.mode=offline",
        "name=tracked",
        "method=[base,swa]",
        "seeds=[0]",
        "evaluate.dtype=float32",
    ]
    here("run", "adopted=words", f"evaluate.command={MEASURE}", *given, results=words / "results")
    frame = load_frame(words / "results", name="tracked")
    assert len(frame) == 2
    for key in frame["cell_key"]:
        record = Store(words / "results").record(key)
        (log,) = offline_runs(words / "results", record["run_id"])
        tracked = read_offline(log)
        assert tracked.finished
        assert tracked.config["cell_key"] == key
        assert tracked.config["base"]["model"]["name"] == "words"
        assert {"tracked", "words", record["method"]} <= {*tracked.tags}
        numbers = {**record["summary"], **record["cost"], "status": "done"}
        expected = {name: value for name, value in numbers.items() if value is not None}
        assert {name: tracked.summary[name] for name in expected} == expected
        history = pd.read_parquet(words / "results" / "cells" / key / "history.parquet")
        assert tracked.history == [{k: v for k, v in row.items() if v == v} for row in history.to_dict("records")]


def test_the_same_weights_are_measured_once_and_go_on_after_an_interrupt(words, tmp_path):
    log = tmp_path / "log"
    command = f"{MEASURE} --log={log}"
    run(words, "method=[base,uniform_soup]", "method.uniform_soup.first=6", "seeds=[0]", "name=once", command=command)
    # six snapshots of the base; their mean so far, the control, differs from the second on; the soup is the last
    assert sorted(log.read_text().split()) == ["base"] * 6 + ["time_mean"] * 5
    run(
        words,
        "method=[base,uniform_soup]",
        "method.uniform_soup.first=6",
        "seeds=[0]",
        "name=once",
        "redo=all",
        command=command,
    )
    assert len(log.read_text().split()) == 11


def test_kills_while_weights_are_measured_lose_nothing(words, tmp_path):
    results = shutil.copytree(words / "results", tmp_path / "results")
    given = [
        f"evaluate.command={MEASURE}",
        "tracker=none",
        "method=[base,swa,lawa]",
        "name=killed",
        "evaluate.dtype=float32",
    ]
    for number in (5, 9, 14, 20):
        fault = {"PYTHONPATH": str(SHIM), "FAULT": f"kill write {number} {tmp_path / str(number)}"}
        killed = start("run", "adopted=words", *given, results=results, variables=fault)
        killed.communicate(timeout=SECONDS)
        assert killed.returncode == -signal.SIGKILL
    here("run", "adopted=words", *given, results=results)
    assert not list((results / "bases").rglob(".*.tmp"))
    here("run", "adopted=words", *given, results=words / "results")
    found, expected = (load_frame(root, "killed").set_index("cell_key") for root in (results, words / "results"))
    assert found["val_loss"].to_dict() == expected["val_loss"].to_dict()
    assert len(found) == 9


def test_several_commands_at_once_measure_the_same(words, tmp_path):
    log = tmp_path / "log"
    command = f"{MEASURE} --log={log}"
    run(words, "method=[base,time_mean,lawa]", "seeds=[0]", "name=many", "evaluate.jobs=3", command=command)
    one = load_frame(words / "results", "many").set_index("method")["val_loss"]
    run(words, "method=[base,time_mean,lawa]", "seeds=[0]", "name=serial")
    other = load_frame(words / "results", "serial").set_index("method")["val_loss"]
    assert one.tolist() == other.tolist()


def test_another_metric_needs_its_direction_and_is_compared(words):
    refused = run(words, "evaluate.metric=spread", code=2).stderr
    assert "evaluate.better must be higher or lower for the metric spread, got null" in refused
    run(words, "evaluate.metric=spread", "evaluate.better=higher", "method=[base,swa]", "name=spread")
    frame = load_frame(words / "results", "spread").set_index(["method", "seed"])
    own = RUNS[0][-1][0]["wte.weight"]
    assert frame.loc[("base", 0), "val_spread"] == pytest.approx(float(own.max() - own.min()), rel=1e-6)
    printed = here("report", "name=spread", results=words / "results").stdout
    assert "val spread" in printed
    assert (words / "results" / "suites" / "spread" / "report" / "index.html").exists()
    assert (
        "got 'val_other'"
        in here("report", "name=spread", "tables.metric=val_other", results=words / "results", code=2).stderr
    )


def test_a_method_that_a_command_refuses_fails_alone(words):
    printed = run(words, "method=[base,swa]", "seeds=[0]", "name=fails", command=f"{MEASURE} --fail swa", code=1)
    assert "evaluate.command ended with 3: it does not like this method" in printed.stdout
    frame = load_frame(words / "results", "fails").set_index("method")
    assert frame["status"].to_dict() == {"base": "done", "swa": "failed"}


BAD = {
    f"{MEASURE} --say nothing": "the last line of evaluate.command must be a JSON object of numbers, got nothing",
    f"{MEASURE} --say [1]": "the last line of evaluate.command must be a JSON object of numbers, got [1]",
    f"{MEASURE} --fail base": "evaluate.command ended with 3: it does not like this method",
    "no-such-program {checkpoint}": "evaluate.command could not be started: No such file or directory",
    "python eval.py": "evaluate.command must have {checkpoint} among its words, got 'python eval.py'",
    "python '{checkpoint}": "evaluate.command must be words as a shell parts them",
    f"{MEASURE} --say '{{\"perplexity\": 3}}'": "evaluate.metric must be given where neither",
}


@pytest.mark.parametrize("command", BAD)
def test_commands_that_measure_nothing_are_bad_input(words, command):
    printed = run(words, "name=bad", command=command, code=2)
    assert BAD[command] in printed.stderr
    assert len(printed.stderr.splitlines()) == 1
    assert not (words / "results" / "suites" / "bad").exists()


REFUSED = {
    ("model=test_resnet",): "model must not be given with adopted, whose run has its own",
    ("epochs=3",): "epochs must not be given with adopted",
    ("seeds=[0,7]",): "seeds must be among those adopted as words (0, 1, 2), got 7",
    ("method=[ema]",): "method.ema must watch snapshots, as an adopted run has no steps between them",
    ("method=[cmd_embedded]",): "method.cmd_embedded must not train on its own",
    ("method=[base_recalibrated]",): "method must not name base_recalibrated where nothing recalibrates",
    ("evaluate.buffers=recalibrate",): "evaluate.recalibrate_command must be given for evaluate.buffers=recalibrate",
    ("evaluate.metric=loss", "evaluate.better=higher"): "evaluate.better must be lower for loss, got higher",
    (
        "evaluate.metric=perplexity",
        "evaluate.better=lower",
    ): "evaluate.metric must be among what is measured (loss, spread, mean)",
    ("evaluate.callable=a:B",): "evaluate.callable must be null where a command is given",
    ("evaluate.timeout=0",): "evaluate.timeout must be above 0, got 0",
}


@pytest.mark.parametrize("arguments", REFUSED)
def test_what_does_not_go_with_an_adopted_run_is_refused(words, arguments):
    printed = run(words, *arguments, code=2)
    assert REFUSED[arguments] in printed.stderr
    assert len(printed.stderr.splitlines()) == 1


def test_an_unknown_name_and_no_evaluation(words):
    unknown = here("run", "adopted=wrods", "tracker=none", results=words / "results", code=2).stderr
    assert "adopted must be a name of" in unknown
    assert "nearest: words" in unknown
    assert "evaluate.command or evaluate.callable must be given" in run(words, command=None, code=2).stderr


def test_a_slow_command_is_ended(words, tmp_path):
    script = tmp_path / "slow.py"
    script.write_text("import threading\nthreading.Event().wait()\n")
    printed = run(words, "evaluate.timeout=0.2", command=f"{sys.executable} {script} {{checkpoint}}", code=2)
    assert "evaluate.command took more than evaluate.timeout=0.2 seconds" in printed.stderr


def test_a_source_that_changed_is_refused_when_planned(tmp_path):
    folder = written(tmp_path / "runs", "safetensors", RUNS[0])
    here("adopt", "words", f"from={folder}", results=tmp_path / "results")
    (folder / "step_30.safetensors").write_bytes((folder / "step_40.safetensors").read_bytes())
    printed = run(tmp_path, code=2)
    assert f"{folder / 'step_30.safetensors'}: changed since it was adopted" in printed.stderr


def test_bytes_that_changed_unseen_fail_the_cells_and_stay(tmp_path):
    """The same size and time: what is read is held to its digest, and the file is not set aside."""
    import os

    folder = written(tmp_path / "runs", "safetensors", RUNS[0])
    here("adopt", "words", f"from={folder}", results=tmp_path / "results")
    path = folder / "step_30.safetensors"
    state, data = path.stat(), bytearray(path.read_bytes())
    data[-40] ^= 255
    with open(path, "r+b") as file:
        file.write(data)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    printed = run(
        tmp_path, "method=[base,cmd_posthoc]", "method.cmd_posthoc.modes=2", "method.cmd_posthoc.samples=20", code=1
    )
    assert "step_30.safetensors: changed since it was adopted: tensor" in printed.stdout
    assert path.read_bytes() == bytes(data)
    assert sorted(one.name for one in folder.iterdir()) == sorted(f"step_{10 * t}.safetensors" for t in range(7))


def test_test_data_are_measured_at_the_last_snapshot_alone(words, tmp_path):
    log = tmp_path / "log"
    run(words, "method=[base]", "seeds=[0]", "name=tested", f"evaluate.test_command={MEASURE} --log={log}")
    assert len(log.read_text().splitlines()) == 1
    frame = load_frame(words / "results", "tested")
    assert frame["test_loss"].tolist() == frame["val_loss"].tolist()


def test_recalibration_changes_buffers_alone(words):
    zero = f"{MEASURE} --zero norm.running_mean"
    recalibrates = ("evaluate.buffers=recalibrate", "method=[base,swa]", "seeds=[0]")
    run(words, *recalibrates, "name=anew", f"evaluate.recalibrate_command={zero}")
    frame = load_frame(words / "results", "anew").set_index("method")
    assert list(frame.index) == ["base", "base_recalibrated", "swa"]
    history = load_history(words / "results", "anew").query("epoch == 6").set_index("method")
    assert history.loc["swa", "val_mean"] == history.loc["base_recalibrated", "val_mean"] == 0
    assert history.loc["base", "val_mean"] != 0
    wrong = f"{MEASURE} --zero norm.weight"
    printed = run(words, *recalibrates, "name=wrong", f"evaluate.recalibrate_command={wrong}", code=1)
    assert "evaluate.recalibrate_command must change buffers alone, and changed weights" in printed.stdout


def test_a_class_measures_the_same_as_its_model(words):
    given = (*MINE, "evaluate.callable=words_problem:Problem", "method=[base,swa]", "name=class")
    run(words, *given, command=None)
    sys.path.append(MINE[1])
    from words_problem import Problem

    problem = Problem()
    model = problem.model()
    model.load_state_dict(RUNS[2][-1][0])
    wanted = problem.evaluate(model.eval())
    frame = load_frame(words / "results", "class").set_index(["method", "seed"])
    assert frame.loc[("base", 2), "val_loss"] == pytest.approx(wanted["loss"], rel=1e-6)
    assert frame.loc[("base", 2), "val_accuracy"] == wanted["accuracy"]
    run(words, *given[:-1], "evaluate.buffers=recalibrate", "name=class_anew", command=None)
    anew = load_frame(words / "results", "class_anew").set_index(["method", "seed"])
    batches = torch.cat([model.wte(batch) for batch in problem.recalibration()]).reshape(4, 14, 4)
    model.norm.running_mean.copy_(batches.mean(1).mean(0).detach())
    model.norm.running_var.copy_(batches.var(1).mean(0).detach())
    wanted = problem.evaluate(model.eval())["loss"]
    assert anew.loc[("base_recalibrated", 2), "val_loss"] == pytest.approx(wanted, rel=1e-5)
    none = run(words, *MINE, "evaluate.callable=words_problem:Incomplete", command=None, code=2).stderr
    assert "evaluate.callable must name a class with evaluate()" in none


def test_the_key_follows_from_what_measures(words, tmp_path):
    script = tmp_path / "eval.py"
    script.write_text((HERE / "measure.py").read_text())
    command = f"{sys.executable} {script} {{checkpoint}} --method {{method}}"
    keys = []
    for text in ("", "\n# changed\n"):
        script.write_text(script.read_text() + text)
        run(words, "method=[base]", "seeds=[0]", "name=keyed", command=command)
        keys.append(load_frame(words / "results", "keyed")["cell_key"].iloc[-1])
    assert keys[0] != keys[1]


def test_a_search_replays_and_its_best_is_run_on_other_seeds(words):
    own = (f"evaluate.command={MEASURE}", "tune.metric=loss", "tracker=none", "method=[uniform_soup]")
    asked = (*own, "trials=3", "tune.sampler=grid", "seeds=[0]")
    printed = here("tune", "adopted=words", *asked, results=words / "results").stdout
    assert "uniform_soup on words-own-own" in printed
    (best,) = (words / "results" / "tuning" / "words" / "uniform_soup").rglob("best.yaml")
    first = yaml.safe_load(best.read_text())["parameters"]["first"]
    trials = pd.read_parquet(best.with_name("trials.parquet"))
    weights = [states["wte.weight"].double() for states, _ in RUNS[0]]
    of_soups = {first: float(torch.stack(weights[first:]).mean(0).square().sum()) for first in range(1, 7)}
    tried = trials.loc[trials["val_loss"].notna()]
    assert len(tried) >= 3
    assert of_soups[first] == pytest.approx(tried["val_loss"].min(), rel=1e-5)
    run(words, "tuned=true", "method=[base,uniform_soup]", "name=best")
    frame = load_frame(words / "results", "best").set_index(["method", "seed"])
    assert set(frame.index.get_level_values("seed")) == {1, 2}
    no = here("tune", "adopted=words", *own[:1], *own[2:], "trials=2", "seeds=[0]", "tune.name=none",
              results=words / "results", code=2).stderr  # fmt: skip
    assert "tune.metric must be among what is measured (loss, spread, mean), got accuracy" in no


OWN = ("base", "base_recalibrated", "swa", "lawa", "time_mean", "cmd_online", "cmd_posthoc", "dmd")
SMALL = ("epochs=6", "batches_per_epoch=2", "evaluate.every=3", "save=final", "tracker=none")


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    """A base of the harness with its cells, and the same run as timm writes it, adopted and run again."""
    root = tmp_path_factory.mktemp("known")
    methods = f"method=[{','.join(OWN)}]"
    here("run", "model=test_resnet", "dataset=digits", methods, "name=own", *SMALL, results=root / "results")
    own = load_frame(root / "results", "own")
    store = Store(root / "results")
    record = store.record(own["cell_key"].iloc[0])
    base = base_from_record(record)
    flat = FlatModel(build_model(base.model, base.dataset, base.seed))
    folder = root / "timm"
    folder.mkdir()
    for t in range(base.epochs + 1):
        snapshot = read_snapshot(store.base_folder(own["base_key"].iloc[0]) / "trajectory", t, CPU)
        flat.load(snapshot.theta_N, snapshot.buffers)
        value = {"epoch": t - 1, "arch": "test_resnet", "args": Namespace(model="test_resnet", lr=0.1)}
        torch.save(value | {"state_dict": flat.model.state_dict()}, folder / f"checkpoint-{t}.pth.tar")
    (folder / "checkpoint-0.pth.tar").rename(root / "initial.pth.tar")
    return root, own, record


def test_a_base_of_the_harness_gives_its_own_cells_bit_for_bit(known):
    root, own, record = known
    given = ("model=test_resnet", "dataset=digits", f"initial={root}/initial.pth.tar")
    here("adopt", "timm", f"from={root}/timm", *given, results=root / "adopted")
    config = record["config"]["evaluate"]
    evaluate = [f"evaluate.{name}={config[name]}" for name in ("every", "recalibrate_images", "batch_size")]
    values = []
    for _, cell in own[own["method"].isin(OWN)].iterrows():
        values += [f"method.{cell['method']}.{k}={json.dumps(v)}" for k, v in json.loads(cell["parameters"]).items()]
    methods = f"method=[{','.join(OWN)}]"
    here("run", "adopted=timm", methods, *evaluate, *values, "save=final", "tracker=none", results=root / "adopted")
    found = load_frame(root / "adopted", "timm").set_index("method")
    assert found["dataset"].iloc[0] == "digits"
    own = own.set_index("method")
    assert set(found.index) >= set(OWN)
    for method in OWN:
        mine, theirs = (Store(root / name).cell_folder(table.loc[method, "cell_key"]) / "weights.safetensors"
                        for name, table in (("results", own), ("adopted", found)))  # fmt: skip
        (ours, _), (adopted, _) = read_unsealed(mine), read_unsealed(theirs)
        assert ours.keys() == adopted.keys()
        assert all(torch.equal(ours[name], adopted[name]) for name in ours), method
        for metric in ("val_accuracy", "val_loss", "test_accuracy", "test_loss"):
            assert found.loc[method, metric] == own.loc[method, metric], (method, metric)


def test_a_table_of_metrics_and_a_partly_tied_file(tmp_path):
    """A CSV that orders files whose names say nothing."""
    names = ("alpha", "beta", "gamma", "delta")
    from safetensors.torch import save_file

    for t, name in enumerate(names, 1):
        save_file(without_tied(RUNS[0][t][0]), tmp_path / f"{name}.safetensors")
    table = pd.DataFrame(
        {"path": [f"{name}.safetensors" for name in names], "step": [1, 2, 3, 4], "epoch": [1, 2, 3, 4]}
    )
    table.to_csv(tmp_path / "runs.csv", index=False)
    here("adopt", "words", f"from={tmp_path / 'runs.csv'}", results=tmp_path / "results")
    run(tmp_path, "method=[base]")
    history = load_history(tmp_path / "results", "words")
    assert np.allclose(history["val_loss"], [loss_of(states) for states, _ in RUNS[0][1:5]], rtol=1e-6)
