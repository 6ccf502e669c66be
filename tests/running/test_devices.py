"""What of the GPU path can be tried without one: sharing devices, running out of memory, states that lay on one."""

import json
import warnings
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from types import SimpleNamespace

import pytest
import torch
from still_clock import still_clock

from harness.config import ConfigError, EngineConfig
from harness.conformance.tiny import as_in_a_job, find_subject
from harness.planning.compose import Request
from harness.planning.resolve import resolve
from harness.problem.splits import load_split
from harness.running.engine import local
from harness.running.engine.local import LocalEngine
from harness.running.events import Message
from harness.running.jobs import environment, progress, run_job
from harness.storage.tensors import pack, unpack
from harness.training.evaluate import Evaluator
from harness.training.kernels import told_kernels
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


@pytest.mark.parametrize(
    "said",
    [
        "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes",
        "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "CUDA ran out of memory outside PyTorch's allocator. If this workload uses many dynamic shapes, ...",
    ],
)
def test_libraries_that_find_no_memory_are_told_what_to_change(said):
    """In the words of torch 2.14's libraries and drivers, none of which raise torch's own OutOfMemoryError."""
    with (
        pytest.raises(OutOfMemory, match=r"^out of memory at batch_size=1: set a smaller"),
        bounded_by("batch_size", 1),
    ):
        raise RuntimeError(said)


def test_what_lay_on_a_gpu_is_marked_and_read_where_there_is_none(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    tensors, text = pack({"here": torch.ones(2), "there": torch.ones(2, device="meta")})
    kinds = [next(iter(value)) for _, value in json.loads(text)["dict"]]
    assert kinds == ["tensor", "device_tensor"]
    back = unpack({name: torch.ones(2) for name in tensors}, text)
    assert back["there"].device == CPU


@pytest.fixture
def switches():
    """torch's switches, set back afterwards."""
    cuda, cudnn = torch.backends.cuda, torch.backends.cudnn
    asked = (cuda.flash_sdp_enabled, cuda.mem_efficient_sdp_enabled, cuda.cudnn_sdp_enabled)
    before = torch.are_deterministic_algorithms_enabled(), cudnn.benchmark, [enabled() for enabled in asked]
    yield asked
    torch.use_deterministic_algorithms(before[0], warn_only=True)
    cudnn.benchmark = before[1]
    enables = (cuda.enable_flash_sdp, cuda.enable_mem_efficient_sdp, cuda.enable_cudnn_sdp)
    for enable, value in zip(enables, before[2], strict=True):
        enable(value)


def test_determinism_sets_what_numbers_depend_on(monkeypatch, switches):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    base = base_of("device=cpu")
    for deterministic in (False, True):
        set_determinism(replace(base, deterministic=deterministic))
        assert torch.are_deterministic_algorithms_enabled() is deterministic
        assert torch.backends.cudnn.benchmark is not deterministic
        assert not torch.backends.cudnn.allow_tf32
        assert not torch.backends.cuda.matmul.allow_tf32


@pytest.mark.parametrize(
    ("device", "deterministic", "fused"),
    [("cuda", True, False), ("cuda", False, True), ("cpu", True, True), ("cpu", False, True)],
)
def test_attention_is_fused_but_where_its_gradients_would_not_repeat(switches, device, deterministic, fused):
    """On a CPU they do, and its numbers are those of the fused form."""
    set_determinism(replace(base_of("device=cpu"), device=device, deterministic=deterministic))
    assert [enabled() for enabled in switches] == [fused] * 3


ATTENTION = (
    "Memory Efficient attention defaults to a non-deterministic algorithm. To explicitly enable determinism call "
    "torch.use_deterministic_algorithms(True, warn_only=False). (Triggered internally at attention_backward.cu:1.)"
)
POOLING = (
    "max_pool2d_with_indices_backward_cuda does not have a deterministic implementation, but you set "
    "'torch.use_deterministic_algorithms(True, warn_only=True)'. You can file an issue."
)
PRODUCTS = (
    "Deterministic behavior was enabled with either `torch.use_deterministic_algorithms(True)` or "
    "`at::Context::setDeterministicAlgorithms(true)`, but this operation is not deterministic because it uses CuBLAS "
    "and you have CUDA >= 10.2."
)


def test_operations_that_do_not_repeat_are_named_once():
    """In the words that torch 2.14 warns with; other warnings stay warnings."""
    said = []
    with warnings.catch_warnings(record=True) as others, told_kernels(said.append):
        for text in (ATTENTION, POOLING, POOLING + " Elsewhere", PRODUCTS, "something else"):
            warnings.warn(text, stacklevel=1)
    assert [str(other.message) for other in others] == ["something else"]
    rest = "has no deterministic form on this device: another run may differ in the last bits"
    assert said == [
        f"Memory Efficient attention {rest}",
        f"max_pool2d_with_indices_backward_cuda {rest}",
        f"CuBLAS {rest}",
    ]


def test_a_job_says_what_does_not_repeat_and_its_log_too(monkeypatch, tmp_path):
    train = Trainer.train_epoch

    def warns(self, *arguments, **more):
        warnings.warn(POOLING, stacklevel=1)
        return train(self, *arguments, **more)

    monkeypatch.setattr(Trainer, "train_epoch", warns)
    told = []
    with as_in_a_job(find_subject("base").base.config):
        run_job(find_subject("base").recording(tmp_path), told.append)
    (text,) = [event.text for event in told if isinstance(event, Message)]
    assert "max_pool2d_with_indices_backward_cuda has no deterministic form" in text
    (log,) = tmp_path.glob("bases/*/log.txt")
    assert log.read_text().count("max_pool2d_with_indices_backward_cuda has no deterministic form") == 1


class LateEvent:
    """A mark in the queue of a GPU that is `behind` batches behind the loop."""

    behind = 3
    recorded = 0

    def record(self):
        LateEvent.recorded += 1
        self.number = LateEvent.recorded

    def query(self):
        return self.number <= LateEvent.recorded - self.behind


class Batches:
    """Six batches of a device, one a second."""

    def __init__(self, clock, device):
        self.clock, self.device = clock, torch.device(device)

    def steps(self, batch_size, limit=None):
        return 6

    def train_batches(self, *arguments):
        for _ in range(6):
            self.clock.now += 1.0
            yield SimpleNamespace(images_B=SimpleNamespace(device=self.device))


@pytest.mark.parametrize(("device", "done"), [("cpu", [2, 3, 4, 5]), ("cuda", [2])])
def test_batches_are_done_when_the_device_has_done_them(monkeypatch, device, done):
    """The loop fills a GPU's queue faster than the GPU empties it."""
    clock = still_clock(monkeypatch, progress)
    monkeypatch.setattr(torch.cuda, "Event", LateEvent)
    monkeypatch.setattr(LateEvent, "recorded", 0)
    told = []
    for _ in progress.CountedImages(Batches(clock, device), told.append).train_batches(10, 0, 0):
        pass
    assert [event.batches for event in told] == done
    assert [event.images_per_second for event in told] == [10.0] * len(done)


def test_a_place_that_is_not_installed_is_no_version(monkeypatch):
    def version(name):
        if name == "traindyn":
            raise PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(environment, "version", version)
    assert environment.versions.__wrapped__()["traindyn"] == "not installed"
    assert environment.versions.__wrapped__()["timm"] == "1.0"
