"""The parts of `benchmarks/gpu.py` on a GPU that is only pretended, which refuses tensors of two devices."""

import time

import cmd_speed
import pytest
import torch
import train_overhead
from gpu_parts import held, loops, machine, modes, suite
from gpu_parts.findings import Deadline, Findings, read
from gpu_parts.options import Options, lay_out_images

from harness.conformance.pretended_gpu import pretended_gpu

SECONDS = 1e6
"""that a part has here"""
FILL, LOADER = cmd_speed.Motion.fill, train_overhead.DataLoader


@pytest.fixture
def there(tmp_path, monkeypatch):
    """Options of a run on the pretended GPU, where a generator of its own and pinned memory are not pretended."""

    def fill(motion, t, theta_N):
        drawn_N = torch.empty(motion.N)
        FILL(motion, t, drawn_N)
        theta_N.copy_(drawn_N)

    monkeypatch.setattr(cmd_speed.Motion, "fill", fill)
    monkeypatch.setattr(train_overhead, "DataLoader", lambda *given, pin_memory, **more: LOADER(*given, **more))
    monkeypatch.setattr(machine, "_products", lambda dtype: 1.0)
    (tmp_path / "work").mkdir()
    options = Options(1.0, tmp_path, "cuda", True, "abcde", None)
    deterministic, benchmark = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    compiled = torch.compile
    with pretended_gpu():
        yield options
    torch.compile = compiled
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    torch.backends.cudnn.benchmark = benchmark
    torch.backends.cuda.enable_flash_sdp(True)
    torch.backends.cuda.enable_mem_efficient_sdp(True)
    torch.backends.cuda.enable_cudnn_sdp(True)


def found(part, options):
    findings = Findings(options.work / "part.jsonl", Deadline(SECONDS))
    part.run(options, findings)
    return read(findings.path)


def test_the_machine_is_told(there):
    told = found(machine, there)
    facts = {row["fact"]: row["value"] for row in told.tables["What it runs on"]}
    assert facts["GPU"] == "pretended GPU"
    assert facts["compute capability"] == "9.0"
    assert facts["driver and clocks, by nvidia-smi"] is None
    assert {row["type"] for row in told.tables["Matrix products, TF32 off"]} == {"float32", "bfloat16"}


def test_cmd_stays_on_the_device(there, monkeypatch):
    monkeypatch.setattr(modes, "TINY", modes.Sizes((5_000,), 50, 1))
    told = found(modes, there)
    assert told.failed == []
    assert [row["weights"] for row in told.tables["Online CMD, one update"]] == ["5,000"]
    assert [row["snapshots"] for row in told.tables["Post-hoc CMD"]] == [50]


def test_no_more_snapshots_than_the_device_holds(there):
    """Of 1 GiB half may be taken: 86 million weights have 1.56 snapshots there, below the least; 10 million have 13."""
    device = torch.device("cuda")
    assert [modes._snapshots(N, device) for N in (86_000_000, 10_000_000)] == [10, 13]


@pytest.mark.long
def test_loops_stay_on_the_device(there, monkeypatch):
    lay_out_images(there)
    monkeypatch.setattr(loops, "TINY_VARIANTS", loops.TINY_VARIANTS[:3])
    told = found(loops, there)
    assert told.failed == told.left_out == []
    assert len(told.tables[loops.SPEEDS]) == 3
    parts = [row["part of a step"].rpartition(": ")[2] for row in told.tables["Where an epoch's time goes"]]
    assert parts == 2 * ["batch", "forward", "backward", "step", "counting"]


@pytest.mark.long
def test_numbers_of_a_suite_are_the_cpus_within_the_tolerance(there):
    lay_out_images(there)
    told = found(suite, there)
    assert told.failed == told.wrong == []
    apart = [row["apart, as a share"] for row in told.tables["Numbers beside the CPU's, float32"]]
    assert len(apart) == len(suite.TINY_METHODS)
    assert max(apart) <= 1e-3  # it computes what the CPU computes, in other blocks


@pytest.mark.parametrize(("printed", "mean"), [("90\\n80\\n0\\n10\\n20\\n30\\n", 15.0), ("50\\n", None), ("", None)])
def test_utilisation_is_the_mean_of_what_is_sampled_after_the_start(tmp_path, monkeypatch, printed, mean):
    """By a program that prints all its samples before it is ended."""
    program, mark = tmp_path / "nvidia-smi", tmp_path / "printed"
    program.write_text(f"#!/bin/sh\nprintf '{printed}'\ntouch {mark}\nexec sleep 600\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with machine.Utilisation() as utilisation:
        while not mark.exists():
            time.sleep(0.002)
    assert utilisation.mean == mean


def test_utilisation_is_not_available_without_the_program(monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    with machine.Utilisation() as utilisation:
        pass
    assert utilisation.mean is None


def test_processes_are_forked_before_anything_asks_for_the_gpu(tmp_path, monkeypatch):
    """After that they could not use it; planning a job asks."""
    asked, forked = [], []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: asked.append("planning") or True)
    monkeypatch.setattr(held, "_in_a_process", lambda root, kills: forked.append(list(asked)) or 0)

    def planned():
        held.torch.cuda.is_available()
        raise RuntimeError("planned")

    monkeypatch.setattr(held, "_subject", planned)
    with pytest.raises(RuntimeError, match="planned"):
        held._killed(Options(1.0, tmp_path, "cuda", True, "a", None), Findings(tmp_path / "a.jsonl", Deadline(SECONDS)))
    assert forked == [[], [], []]
    assert asked == ["planning"]
