"""What of the GPU path can be tried without one: sharing devices, running out of memory, states that lay on one."""

import json
from dataclasses import replace

import pytest
import torch

from harness.config import ConfigError, EngineConfig
from harness.planning.compose import Request
from harness.planning.resolve import resolve
from harness.problem.splits import load_split
from harness.running.engine import local
from harness.running.engine.local import LocalEngine
from harness.storage.tensors import pack, unpack
from harness.training.evaluate import Evaluator
from harness.training.loop import Trainer, set_determinism
from harness.training.out_of_memory import OutOfMemory, bounded_by

CPU = torch.device("cpu")


def base_of(*overrides):
    return resolve(Request(("dataset=digits", "method=base", "fast=true", *overrides)), "a test").bases[0][0]


def exhausted(*_):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore lines")


@pytest.mark.parametrize(("per_device", "slots"), [(1, 2), (3, 6)])
def test_processes_share_gpus_when_asked(monkeypatch, tmp_path, per_device, slots):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert LocalEngine(EngineConfig("local", per_device=per_device), "cuda", tmp_path).slots == slots
    assert LocalEngine(EngineConfig("local", workers=5, per_device=per_device), "cuda", tmp_path).slots == 5


def test_per_device_says_nothing_of_a_cpu(tmp_path):
    one, three = (LocalEngine(EngineConfig("local", per_device=count), "cpu", tmp_path) for count in (1, 3))
    assert one.slots == three.slots
    with pytest.raises(ConfigError, match=r"engine\.per_device must be at least 1, got 0"):
        EngineConfig("local", per_device=0)


def test_gpus_are_those_that_the_process_was_given(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert [local._visible(gpu) for gpu in (0, 1)] == ["3", "5"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert local._visible(1) == "1"


def test_cuda_asked_for_and_absent_is_refused_and_auto_takes_what_there_is(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"^device must be cpu or auto where no CUDA device is found, got cuda$"):
        base_of("device=cuda")
    assert base_of("device=auto").device == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert base_of("device=auto", "precision=bfloat16").device == "cuda"


def test_running_out_of_memory_in_training_names_the_batch(monkeypatch):
    base = base_of("device=cpu")
    trainer = Trainer(base, load_split(base.dataset, "train"), CPU)
    monkeypatch.setattr(trainer, "logits", exhausted)
    with pytest.raises(OutOfMemory, match=r"^out of memory at batch_size=32: set a smaller batch_size, ") as caught:
        trainer.train_epoch()
    assert "\n" not in str(caught.value)


def test_running_out_of_memory_in_evaluation_names_its_batch(monkeypatch):
    study = resolve(Request(("dataset=digits", "method=base", "fast=true", "device=cpu")), "a test")
    base = study.bases[0][0]
    images = load_split(base.dataset, "train")
    evaluator = Evaluator(base, study.evaluate, images, CPU)
    monkeypatch.setattr(evaluator, "prepare", exhausted)
    with pytest.raises(OutOfMemory, match=r"^out of memory at evaluate\.batch_size=256: "):
        evaluator.evaluate(Trainer(base, images, CPU).snapshot(), None, "as_is", ("val",))


def test_other_errors_stay_what_they_are():
    with pytest.raises(RuntimeError, match=r"^shapes differ$") as caught, bounded_by("batch_size", 1):
        raise RuntimeError("shapes differ")
    assert not isinstance(caught.value, OutOfMemory)
    with pytest.raises(OutOfMemory), bounded_by("batch_size", 1):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")


def test_what_lay_on_a_gpu_is_marked_and_read_where_there_is_none(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    tensors, text = pack({"here": torch.ones(2), "there": torch.ones(2, device="meta")})
    kinds = [next(iter(value)) for _, value in json.loads(text)["dict"]]
    assert kinds == ["tensor", "device_tensor"]
    back = unpack({name: torch.ones(2) for name in tensors}, text)
    assert back["there"].device == CPU


def test_determinism_sets_what_numbers_depend_on(monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    base = base_of("device=cpu")
    try:
        for deterministic in (False, True):
            set_determinism(replace(base, deterministic=deterministic))
            assert torch.are_deterministic_algorithms_enabled() is deterministic
            assert torch.backends.cudnn.benchmark is not deterministic
            assert not torch.backends.cudnn.allow_tf32
            assert not torch.backends.cuda.matmul.allow_tf32
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=True)
        torch.backends.cudnn.benchmark = before[1]
