"""`benchmarks/gpu.py`: all of it on a CPU, what it refuses, and what becomes of parts that fail or take too long."""

import gzip
import json
import multiprocessing
import os
import signal
import struct
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import gpu
import numpy as np
import pytest
from gpu_parts import course, packages
from gpu_parts.course import Course, PartProcess
from gpu_parts.findings import Deadline, Findings, LeftOut, read
from gpu_parts.options import FILES, BadInput, Options, lay_out_images
from gpu_parts.report import Document, Part
from packaging.requirements import Requirement

from harness.problem.fashion_mnist import parse_idx

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SECONDS = 900
"""Longer than the script takes on a machine under load"""


def command(*words, code=0):
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "gpu.py", *map(str, words)], capture_output=True, text=True, timeout=SECONDS
    )
    assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def written(folder):
    return json.loads((folder / "gpu.json").read_text())


def columns(part, table):
    """A table of a part by its first column."""
    rows = part["found"]["tables"][table]
    return {next(iter(row.values())): row for row in rows}


def test_everything_runs_on_a_cpu(tmp_path):
    printed = command("--device", "cpu", "--tiny", "--out", tmp_path).stdout.splitlines()
    assert printed[-1] == str(tmp_path / "gpu.md")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gpu.json", "gpu.md"]
    parts = written(tmp_path)["parts"]
    assert {letter: part["status"] for letter, part in parts.items()} == {
        "m": "done", "a": "done", "b": "partly done", "c": "done", "d": "done", "e": "done",
    }  # fmt: skip
    assert all(part["found"]["failed"] == part["found"]["wrong"] == [] for part in parts.values())
    (killed,) = parts["a"]["found"]["tables"]["Resume after a kill"]
    assert killed["exit codes: undisturbed, killed, started again (3: it went on from the bundle)"] == "0, -9, 3"
    assert columns(parts["a"], "The contract")["cooldown"]["checks passed"] == 1
    assert len(parts["b"]["found"]["left_out"]) == 1  # bfloat16
    assert columns(parts["b"], "Images per second, medians of epochs that take turns")["float32, 32 px"]["rounds"] == 1
    assert set(columns(parts["c"], "Post-hoc CMD")) == {"20,000", "40,000"}
    apart = columns(parts["d"], "Numbers beside the CPU's, float32")
    assert apart["cmd_posthoc"]["apart, as a share"] == 0  # it is compared with itself
    assert columns(parts["e"], "3 seeds")["test_resnet"]["the same weights"]
    text = (tmp_path / "gpu.md").read_text()
    for part in parts.values():
        assert f"## {part['letter']}. {part['title']}" in text
        assert all(f"**{table}**" in text for table in part["found"]["tables"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--minutes", "0"], "--minutes must be above 0 and at most 1440, got 0"),
        (["--minutes", "soon"], "argument --minutes: invalid float value: 'soon'"),
        (["--parts", "abx"], "--parts must be some of abcde, got 'abx'"),
        (["--devise", "cpu"], "unrecognized arguments: --devise cpu"),
        (
            ["--device", "cpu", "--data", "nowhere"],
            "--data must be a folder of Fashion-MNIST's four files, got nowhere",
        ),
    ],
)
def test_bad_input_is_one_line(capsys, words, said):
    with pytest.raises(SystemExit) as end:
        gpu.main(words)
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {said}")


def test_a_gpu_that_is_not_there_is_one_line(capsys, monkeypatch, tmp_path):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as end:
        gpu.main(["--out", str(tmp_path / "out")])
    assert end.value.code == 2
    assert capsys.readouterr().err == "error: --device must be cpu where torch finds no CUDA device, got cuda\n"
    assert not (tmp_path / "out").exists()


def test_missing_packages_are_one_line(capsys, monkeypatch):
    found = metadata.version

    def version(name):
        if name == "timm":
            raise metadata.PackageNotFoundError(name)
        return "1.0" if name == "optuna" else found(name)

    monkeypatch.setattr(packages.metadata, "version", version)
    with pytest.raises(SystemExit) as end:
        gpu.main([])
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    lacking = "timm>=1.0.20, optuna>=5.0,<6 (found 1.0)"
    assert line == f"error: missing packages: {lacking}; python gpu.py --wheels lists them with versions"


def test_wheels_are_the_pinned_closure_beside_torch(capsys):
    assert gpu.main(["--wheels"]) == 0
    comment, *lines = capsys.readouterr().out.splitlines()
    assert comment.startswith("# beside torch==")
    found = {Requirement(line).name.lower(): Requirement(line) for line in lines}
    assert {"timm", "pytest", "torchvision", "hydra-core", "antlr4-python3-runtime"} <= set(found)  # the last: of hydra
    assert not {"torch", "triton", "ruff", "mypy", "ray"} & set(found)
    assert all(str(requirement.specifier).startswith("==") for requirement in found.values())


def test_wheels_of_a_machine_without_packages_are_all_that_are_pinned(monkeypatch):
    def requires(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(packages.metadata, "requires", requires)
    lines = list(packages.wheels(BENCHMARKS.parent))
    assert lines[1].startswith("# all tested packages")
    names = {Requirement(line).name for line in lines if not line.startswith("#")}
    assert {"timm", "antlr4-python3-runtime", "ruff"} <= names
    assert not any(name.startswith(("nvidia", "triton")) or name == "torch" for name in names)


def test_every_requirement_is_pinned():
    """So that `--wheels` never names one without its version."""
    lines = (BENCHMARKS.parent / "constraints.txt").read_text().splitlines()
    pinned = {packages._name(line) for line in lines if "==" in line}
    assert {packages._name(requirement) for requirement in packages.needed(BENCHMARKS.parent)} <= pinned


def chosen(folder, parts="abc", minutes=10.0, data=None):
    (folder / "work").mkdir()
    return Options(minutes, folder, "cpu", True, parts, data)


def idx(*shape):
    return struct.pack(f">4B{len(shape)}I", 0, 0, 8, len(shape), *shape) + bytes(int(np.prod(shape)))


def test_images_are_random_where_none_are_given(tmp_path):
    one = chosen(tmp_path)
    lay_out_images(one)
    raw = one.root / "FashionMNIST" / "raw"
    shapes = [parse_idx((raw / name).read_bytes()).shape for name in FILES]
    assert shapes == [(60_000, 28, 28), (60_000,), (10_000, 28, 28), (10_000,)]
    labels = parse_idx((raw / FILES[1]).read_bytes())
    assert set(labels.tolist()) == set(range(10))
    assert "random pixels" in one.images


def test_images_are_unpacked_from_the_folder_that_is_given(tmp_path):
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    out.mkdir()
    for number, name in enumerate(FILES):
        content = idx(number + 1, 2)
        (data / (f"{name}.gz" if number % 2 else name)).write_bytes(gzip.compress(content) if number % 2 else content)
    one = chosen(out, data=data)
    lay_out_images(one)
    shapes = [parse_idx((one.root / "FashionMNIST" / "raw" / name).read_bytes()).shape for name in FILES]
    assert shapes == [(1, 2), (2, 2), (3, 2), (4, 2)]
    assert one.images == f"Fashion-MNIST from {data}"
    (data / f"{FILES[1]}.gz").write_bytes(b"\x1f\x8bno more")
    with pytest.raises(BadInput, match=r"^--data must hold whole files, got .*train-labels-idx1-ubyte\.gz"):
        lay_out_images(one)


class Clock:
    """Moves on by what parts take."""

    now = 100.0

    def __call__(self):
        return self.now


class Pretended:
    """A part that takes so long and then ends with a code, having found what `finds` writes."""

    def __init__(self, clock, takes, code, finds, findings):
        self.clock, self.end_at, self.exit_code = clock, clock.now + takes, code
        self.ended = False
        finds(findings)

    def wait(self, seconds):
        self.clock.now = min(self.clock.now + seconds, max(self.end_at, self.clock.now))
        return self.clock.now >= self.end_at

    def end(self):
        self.ended = True


def one_row(findings):
    findings.row("Figures", {"of": "it", "figure": 1.5})


def run_pretended(monkeypatch, one, works):
    """A course whose parts are `works`: letter to seconds, exit code and what they find; the parts that were begun."""
    monkeypatch.setattr(course, "run_alone", lambda task: None)
    monkeypatch.setattr(course, "lay_out_images", lambda given: None)
    clock, begun = Clock(), {}

    def start(letter, given, seconds, path):
        takes, code, finds = works.get(letter, (1.0, 0, one_row))
        begun[letter] = Pretended(clock, takes, code, finds, Findings(path, Deadline(seconds, clock)))
        return begun[letter]

    code = Course(one, start, clock).run()
    return code, written(one.out)["parts"], begun


def test_a_part_that_fails_leaves_the_others(monkeypatch, tmp_path):
    def crashes(findings):
        one_row(findings)
        findings.path.with_suffix(".log").write_text("Traceback\nRuntimeError: CUDA error: an illegal memory access\n")

    def runs_out(findings):
        with findings.piece("the large one"):
            raise MemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore")
        one_row(findings)

    works = {"a": (2.0, -6, crashes), "b": (2.0, 0, runs_out)}
    code, parts, _ = run_pretended(monkeypatch, chosen(tmp_path), works)
    assert code == 1
    assert [part["status"] for part in parts.values()] == ["done", "failed", "partly done", "done"]
    assert parts["a"]["message"] == "SIGABRT: RuntimeError: CUDA error: an illegal memory access"
    assert parts["a"]["found"]["tables"] == {"Figures": [{"of": "it", "figure": 1.5}]}
    assert parts["b"]["found"]["failed"] == [
        "the large one: MemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."
    ]
    text = (tmp_path / "gpu.md").read_text()
    assert "failed, 2 s of" in text
    assert "- the large one: MemoryError" in text


def test_a_part_is_ended_at_its_share_of_the_time_and_the_rest_goes_on(monkeypatch, tmp_path):
    code, parts, begun = run_pretended(monkeypatch, chosen(tmp_path), {"a": (1e6, 0, one_row)})
    assert code == 0
    assert parts["a"]["status"] == "ended"
    assert begun["a"].ended
    assert parts["a"]["found"]["tables"]["Figures"]
    # of 10 minutes, less 1 s for the machine and 3 s for ending what must be ended, by the shares of a, b and c
    assert parts["a"]["limit"] == pytest.approx(596 * 0.27 / 0.67)
    assert parts["a"]["seconds"] == pytest.approx(parts["a"]["limit"], abs=0.5)
    assert [parts[letter]["status"] for letter in "bc"] == ["done", "done"]


def test_no_part_is_begun_when_the_time_is_up(monkeypatch, tmp_path):
    one = chosen(tmp_path, minutes=0.25)
    works = {letter: (1e6, 0, one_row) for letter in "mabc"}
    code, parts, begun = run_pretended(monkeypatch, one, works)
    assert code == 0
    assert parts["c"]["status"] == "left out"
    assert parts["c"]["message"] == "the time was up"
    assert "c" not in begun
    assert sum(part["seconds"] for part in parts.values()) <= 15


def test_an_interrupt_keeps_what_was_found(monkeypatch, tmp_path, capsys):
    class Interrupted(Pretended):
        def wait(self, seconds):
            raise KeyboardInterrupt

    monkeypatch.setattr(course, "run_alone", lambda task: None)
    monkeypatch.setattr(course, "lay_out_images", lambda given: None)
    clock, begun = Clock(), []

    def start(letter, given, seconds, path):
        kind = Interrupted if letter == "a" else Pretended
        begun.append(kind(clock, 1.0, 0, one_row, Findings(path, Deadline(seconds, clock))))
        return begun[-1]

    assert Course(chosen(tmp_path), start, clock).run() == 130
    assert begun[-1].ended
    parts = written(tmp_path)["parts"]
    assert [part["status"] for part in parts.values()] == ["done", "ended", "waiting", "waiting"]
    assert parts["a"]["found"]["tables"]["Figures"]
    assert "interrupted" in capsys.readouterr().err


def test_a_piece_without_time_is_left_out_and_wrong_rows_are_named(tmp_path):
    clock = Clock()
    findings = Findings(tmp_path / "a.jsonl", Deadline(10.0, clock))
    clock.now += 7
    with findings.piece("the long one"):
        findings.deadline.need(5.0)
        raise AssertionError("there was no time for it")
    with findings.piece("another"):
        raise LeftOut("not here")
    findings.row("Checks", {"method": "ema", "passed": 1}, ok=False)
    findings.row("Checks", {"method": "swa", "passed": float("nan")}, ok=False)
    findings.row("Checks", {"method": "ema", "passed": 2}, ok=True)
    with open(findings.path, "a") as file:
        file.write('{"table": "torn')
    found = read(findings.path)
    assert found.left_out == ["the long one: needs about 5 s, 3 s were left", "another: not here"]
    assert found.tables == {"Checks": [{"method": "ema", "passed": 2}, {"method": "swa", "passed": None}]}
    assert found.wrong == ["Checks: swa"]
    assert not Part("a", "A part", "done", found=found).as_it_should_be


def test_markdown_has_nothing_that_breaks_a_table(tmp_path):
    findings = Findings(tmp_path / "a.jsonl", Deadline(10.0))
    findings.row("T", {"what": "a | b\nc", "n": 1234567.0, "small": 0.012345, "none": None})
    text = Document({"command": "x"}, [Part("a", "A", "done", found=read(findings.path))]).markdown()
    assert "| a \\| b c | 1,234,567 | 0.0123 | not available |" in text


def _waits_for_another(told):
    """A part's process that has started another, and waits for it."""
    os.setsid()
    other = multiprocessing.get_context("fork").Process(target=time.sleep, args=(SECONDS,))
    other.start()
    told.send(other.pid)
    other.join()


def test_a_part_ends_with_what_it_has_started():
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    running = PartProcess(context.Process(target=_waits_for_another, args=(there,)))
    other = here.recv()
    assert not running.wait(0.0)
    running.end()
    assert running.wait(0.0)
    assert running.exit_code == -signal.SIGTERM
    deadline = time.monotonic() + SECONDS
    while Path(f"/proc/{other}/stat").exists() and Path(f"/proc/{other}/stat").read_text().rsplit(")")[1][1] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.01)
