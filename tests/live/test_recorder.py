"""Snapshots of a training in anyone's loop, as files."""

import json
import warnings

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from harness.live import Recorder


class Language(nn.Module):
    """Tied embeddings, a frozen layer, and buffers that are stored and that are not."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 7, bias=False)
        self.embedding = nn.Embedding(7, 4)
        self.body = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
        self.frozen = nn.Linear(4, 4)
        self.head.weight = self.embedding.weight
        self.frozen.requires_grad_(False)
        self.register_buffer("scratch", torch.zeros(2), persistent=False)

    def forward(self, tokens_B):
        return self.head(self.frozen(self.body(self.embedding(tokens_B))))


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Language()


def step(model, optimizer):
    optimizer.zero_grad()
    tokens_B = torch.randint(0, 7, (8,))
    nn.functional.cross_entropy(model(tokens_B), tokens_B).backward()
    optimizer.step()


def said(path):
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()["traindyn"])


def stored(folder):
    return sorted(path.name for path in folder.glob("*"))


def test_a_snapshot_says_what_it_holds(model, tmp_path):
    recorder = Recorder(model, tmp_path / "run", seed=3)
    path = recorder.record(4, epoch=1, metrics={"loss": torch.tensor(0.5), "accuracy": 80, "gap": float("nan")})
    order = ["head.weight", "body.0.weight", "body.0.bias", "body.1.weight", "body.1.bias"]
    assert said(path) == {
        "step": 4,
        "epoch": 1,
        "seed": 3,
        "order": [*order, "frozen.weight", "frozen.bias"],
        "trainable": order,
        "tied": {"embedding.weight": "head.weight"},
        "buffers": ["body.1.running_mean", "body.1.running_var", "body.1.num_batches_tracked"],
        "metrics": {"loss": 0.5, "accuracy": 80.0, "gap": None},
    }
    assert (said(tmp_path / "run" / "step-00000000.safetensors")["step"], recorder.step) == (0, 4)


def test_a_snapshot_is_the_models_state(model, tmp_path):
    """It loads strictly, tied tensors written out."""
    path = Recorder(model, tmp_path).record(1)
    tensors, known = load_file(path), said(path)
    state = tensors | {name: tensors[kept] for name, kept in known["tied"].items()}
    other = Language()
    other.load_state_dict(state, strict=True)
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in other.state_dict().items())


def test_parameters_are_stored_in_another_type(model, tmp_path):
    tensors = load_file(Recorder(model, tmp_path, dtype=torch.bfloat16).record(1))
    assert {tensor.dtype for name, tensor in tensors.items() if "running" not in name and "num" not in name} == {
        torch.bfloat16
    }
    assert torch.equal(tensors["head.weight"], model.head.weight.bfloat16())
    assert tensors["body.1.running_var"].dtype == torch.float32


def test_weights_are_those_of_the_moment(model, tmp_path):
    optimizer, recorder, expected = torch.optim.SGD(model.parameters(), 0.1), Recorder(model, tmp_path), []
    for done in range(1, 4):
        step(model, optimizer)
        expected.append(model.head.weight.detach().clone())
        recorder.record(done)
    for done, weight in enumerate(expected, 1):
        assert torch.equal(load_file(tmp_path / f"step-{done:08d}.safetensors")["head.weight"], weight)


def test_every_so_many_steps(model, tmp_path):
    recorder = Recorder(model, tmp_path, every=3, initial=False)
    assert [recorder.record(done) is not None for done in range(1, 8)] == [False, False, True] * 2 + [False]
    assert stored(tmp_path) == ["step-00000003.safetensors", "step-00000006.safetensors"]


def test_numbers_of_numpy(model, tmp_path):
    path = Recorder(model, tmp_path, initial=False).record(np.int64(4), np.float64(1.5), {"loss": np.float32(0.5)})
    assert (said(path)["step"], said(path)["epoch"], said(path)["metrics"]) == (4, 1.5, {"loss": 0.5})


def test_the_same_step_again_has_metrics(model, tmp_path):
    recorder = Recorder(model, tmp_path, initial=False)
    recorder.record(2, 1)
    assert said(recorder.record(2, 1, {"loss": 1}))["metrics"] == {"loss": 1.0}
    assert stored(tmp_path) == ["step-00000002.safetensors"]


def test_training_is_the_same_with_and_without(tmp_path):
    ends = []
    for records in (False, True):
        torch.manual_seed(0)
        model = Language()
        optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
        recorder = Recorder(model, tmp_path) if records else None
        for done in range(1, 6):
            step(model, optimizer)
            if recorder is not None:
                recorder.record(done)
        ends.append(model.state_dict())
    assert all(torch.equal(tensor, ends[1][name]) for name, tensor in ends[0].items())


def test_a_file_is_whole_or_absent(model, tmp_path, monkeypatch):
    recorder = Recorder(model, tmp_path, initial=False)

    def full(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(OSError, match="No space left"):
        recorder.record(1)
    assert stored(tmp_path) == []


def test_the_first_process_writes(model, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    for rank, count in ((1, 0), (0, 2)):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        assert Recorder(model, tmp_path).record(1) == tmp_path / "step-00000001.safetensors"
        assert len(stored(tmp_path)) == count


def test_wrappers_are_looked_through(model, tmp_path):
    path = Recorder(nn.DataParallel(torch.compile(model)), tmp_path, initial=False).record(1)
    assert set(load_file(path)) == set(model.state_dict()) - {"embedding.weight"}


def test_a_resumed_run_makes_its_snapshots_anew(model, tmp_path):
    """What an earlier process recorded beyond the resumed state is kept aside."""
    optimizer, first = torch.optim.SGD(model.parameters(), 0.1), Recorder(model, tmp_path)
    for done in (2, 4, 6):
        step(model, optimizer)
        first.record(done)
        if done == 2:
            saved = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.load_state_dict(saved)
    with pytest.warns(UserWarning, match="has snapshots up to step 6"):
        again = Recorder(model, tmp_path)
    again.record(4)
    assert stored(tmp_path) == [*(f"step-{done:08d}.safetensors" for done in (0, 2, 4)), "superseded"]
    assert stored(tmp_path / "superseded") == [f"step-{done:08d}.safetensors" for done in (4, 6)]
    assert torch.equal(load_file(tmp_path / "step-00000004.safetensors")["head.weight"], saved["head.weight"])


def test_the_same_run_begun_again_needs_no_warning(model, tmp_path):
    Recorder(model, tmp_path).record(2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Recorder(model, tmp_path).record(2)


def test_a_folder_of_another_run_is_refused(model, tmp_path):
    Recorder(model, tmp_path)
    with pytest.raises(ValueError, match=r"seed must be 0, as in .*, got 1"):
        Recorder(model, tmp_path, seed=1)
    with pytest.raises(ValueError, match=r"must have head.weight of shape \(7, 4\), got weight of shape \(2, 2\)"):
        Recorder(nn.Linear(2, 2), tmp_path)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"every": 0}, "every must be at least 1, got 0"),
        ({"every": "epochs"}, "every must be epoch or a number of optimizer steps, got 'epochs'"),
        ({"every": 1.5}, "every must be a whole number, got 1.5"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"dtype": torch.int8}, "dtype must be one of torch.float32, .*, got torch.int8"),
    ],
)
def test_bad_arguments(model, tmp_path, given, said):
    with pytest.raises(ValueError, match=said):
        Recorder(model, tmp_path, **given)
    assert stored(tmp_path) == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"step": True}, "step must be a whole number, got True"),
        ({"step": -1}, "step must be at least 0, got -1"),
        ({"step": 3}, "step must be at least 4, the last one recorded, got 3"),
        ({"step": 5, "epoch": float("inf")}, "epoch must be a finite number of at least 0, got inf"),
        ({"step": 5, "metrics": {"loss": "low"}}, "metrics must map names to numbers, got loss = 'low'"),
        ({"step": 5, "metrics": 0.5}, "metrics must map names to numbers, got 0.5"),
        ({"step": 5, "metrics": {"loss": torch.ones(2)}}, "metrics must map names to numbers, got loss = tensor"),
    ],
)
def test_bad_records(model, tmp_path, given, said):
    recorder = Recorder(model, tmp_path, initial=False)
    recorder.record(4)
    with pytest.raises(ValueError, match=said):
        recorder.record(**given)
    assert stored(tmp_path) == ["step-00000004.safetensors"]


def test_a_file_in_place_of_the_folder(model, tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(ValueError, match="folder must be a folder"):
        Recorder(model, tmp_path / "run")


def test_parameters_that_change_half_way(model, tmp_path):
    recorder = Recorder(model, tmp_path)
    model.frozen.requires_grad_(True)
    with pytest.raises(ValueError, match=r"model must have nothing more, got frozen\.weight"):
        recorder.record(1)


def test_sharded_parameters_are_refused(model, tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        mesh = torch.distributed.init_device_mesh("cpu", (1,))
        torch.distributed.fsdp.fully_shard(model, mesh=mesh)
        with pytest.raises(ValueError, match=r"sharded ones \(DTensor\): SnapshotCallback of harness.live.lightning"):
            Recorder(model, tmp_path / "run")
    finally:
        torch.distributed.destroy_process_group()


def test_parameters_of_deepspeed_are_refused(model, tmp_path):
    """As ZeRO-3 marks them."""
    model.head.weight.ds_id = 0
    with pytest.raises(ValueError, match=r"sharded ones \(DeepSpeed ZeRO-3\)"):
        Recorder(model, tmp_path / "run")
