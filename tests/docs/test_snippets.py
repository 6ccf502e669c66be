"""Every command and snippet of README.md and of the pages in docs/ runs as it stands there.

Commands that would train for long are resolved whole, as `show` does, and what reads results reads those of
`suite=smoke` in place of the suite that is named.
"""

import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
from unittest import mock

import numpy as np
import pytest
import torch
from command import here, traindyn
from pages import ROOT, blocks, commands, files, name, pages
from PIL import Image
from safetensors.numpy import save_file
from torch import nn

from harness import kernel
from harness.arguments import PublishArguments, SyncArguments, read_arguments
from harness.cli import main
from harness.report.command import Options

RESOLVED, OF_RESULTS = ("plan", "run", "tune", "show"), ("report", "publish", "sync", "doctor", "merge")
SLOW = ("figures.landscape",)
"""keys of a report that are read, and not drawn here"""
OTHERS = {"make", "pip", "python", "python3", "mkdir", "echo", "eval", ".venv/bin/pre-commit"}
FLOWER = {".venv-flower/bin/pip", "flower-superlink", "flower-supernode"}
TRAINDYN = (".venv/bin/traindyn", "traindyn", ".venv-flower/bin/traindyn")


def pictures(root):
    """A folder of images as a reader has one."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 90), ("val", 5)):
        for label in ("cat", "dog"):
            folder = root / part / label
            folder.mkdir(parents=True)
            for index in range(count):
                Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(folder / f"{index}.png")


def checkpoints(root):
    """A run as a reader's own training leaves it."""
    rng = np.random.default_rng(0)
    for step in range(8, 72, 8):
        (root / f"checkpoint-{step}").mkdir(parents=True)
        save_file({"w": rng.normal(size=(9, 9))}, root / f"checkpoint-{step}" / "model.safetensors")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The folder that a reader is in, which is the home too: with pictures in it, and an own run that is adopted."""
    folder = tmp_path_factory.mktemp("reader")
    pictures(folder / "pets")
    checkpoints(folder / "runs")
    here("adopt", "gpt2", f"from={folder / 'runs'}", results=folder / "results")
    return folder


@pytest.fixture
def in_place(place, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.setenv("HOME", str(place))
    return place


@pytest.fixture(scope="module")
def finished(smoke, tmp_path_factory):
    """A copy of the finished results, to be reported on and set right."""
    return shutil.copytree(smoke.results, tmp_path_factory.mktemp("finished") / "results")


def write_files(page, place):
    for path, content in files(page).items():
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        (place / path).write_text(content)


def overrides(words):
    """Settings and folders of presets, without what says how to show something."""
    return [word for word in words if word not in ("--open", "--details")]


@pytest.mark.parametrize("page", [page for page in pages() if commands(page)], ids=name)
def test_commands_are_known(page):
    """A line is a command of this project, a target of its Makefile, or one of a few tools."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    for words in commands(page):
        assert words[0] in (*TRAINDYN, *OTHERS, *FLOWER)
        if words[0] == "make":
            assert words[1] in targets
        if words[0] == "python" and words[1] != "-m":
            assert (ROOT / words[1]).is_file()


@pytest.mark.parametrize("page", [page for page in pages() if commands(page)], ids=name)
def test_what_is_to_be_run_resolves(page, in_place):
    """Plans, runs and searches: every key, value, preset and file of theirs is taken."""
    write_files(page, in_place)
    for words in commands(page):
        if words[0] in ("mkdir", "echo"):
            subprocess.run(_shell(words), shell=True, check=True, cwd=in_place)
        if words[0] not in TRAINDYN or words[1] not in RESOLVED:
            continue
        given, _, into = " ".join(words[2:]).partition(" > ")
        if "tuned=true" in given:
            refused = here("plan", *overrides(words[2:]), results=in_place / "results", code=2)
            assert "traindyn tune" in refused.stderr
            continue
        shown = here("show", *overrides(words[2:][: len(given.split(" "))]), results=in_place / "results").stdout
        assert "defaults:" in shown
        if into:
            (in_place / into).write_text(shown)


def _shell(words):
    """Words as a line of a shell, `>` being its own."""
    import shlex

    return " ".join(word if word == ">" else shlex.quote(word) for word in words)


@pytest.mark.parametrize("verb", ["adopt", "analyse", "give"])
def test_what_is_done_with_an_own_run_runs(verb, in_place):
    asked = [words for page in pages() for words in commands(page) if words[0] in TRAINDYN and words[1] == verb]
    assert asked
    for words in {tuple(words): words for words in asked}.values():
        shutil.rmtree(in_place / "out", ignore_errors=True)
        more = ("figures=none",) if verb == "analyse" else ()
        here(verb, *words[2:], *more, results=in_place / "results")


def test_lists_are_printed(in_place):
    asked = [words for page in pages() for words in commands(page) if words[:2] == ["traindyn", "list"]]
    assert asked
    for words in asked:
        assert here("list", *words[2:], results=in_place / "results").stdout.count("\n") > 5


def of_smoke(words, results):
    """A command on results, with those that there are in place of those that are named."""
    other = str(results)
    found = [re.sub(r"^(suite|name)=\w+$", "name=smoke", word) for word in words]
    return [
        re.sub(r"^(compare=\.\./before|from=.*)$", lambda m: f"{m[0].split('=')[0]}={other}", word) for word in found
    ]


@pytest.mark.parametrize("verb", OF_RESULTS)
def test_what_reads_results_runs(verb, finished, smoke, in_place):
    asked = [words for page in pages() for words in commands(page) if words[0] in TRAINDYN and words[1] == verb]
    assert asked
    for words in {tuple(words): words for words in asked}.values():
        given = overrides(of_smoke(words[2:], smoke.results))
        if verb == "report":
            Options.of([*given, f"results_dir={finished}"], ())
            if not any(word.startswith(SLOW) for word in given):
                here("report", *given, "figures=none", results=finished)
        elif verb == "sync":
            read_arguments(SyncArguments, "sync", given)
        elif verb == "publish" and "tracker=csv" not in given:
            read_arguments(PublishArguments, "publish", given)
        else:
            here(verb, *given, results=finished)


def test_the_method_of_the_page_is_replayed(smoke_copy, in_place):
    """Class and preset as they stand, on bases that are there: nothing is trained."""
    write_files(ROOT / "docs" / "add" / "method.md", in_place)
    asked = ("suite=smoke", "--config-dir", in_place / "mine", "method=[base,base_recalibrated,halfway]")
    assert "nothing to train" in traindyn("plan", *asked, results=smoke_copy).stdout
    assert "halfway" in traindyn("run", *asked, "tracker=none", results=smoke_copy).stdout


def test_the_reconstruction_and_the_brancher_of_the_page_run(smoke_copy, in_place):
    """As they stand: of the smoke suite's two bases nothing is trained again, and 2 epochs of each in a branch."""
    write_files(ROOT / "docs" / "add" / "method.md", in_place)
    asked = ("suite=smoke", "--config-dir", in_place / "mine", "method=[base,base_recalibrated,tail,halved]")
    assert "epochs to train: 4 of branches" in traindyn("plan", *asked, results=smoke_copy).stdout
    done = traindyn("run", *asked, "tracker=none", results=smoke_copy).stdout
    assert "failed" not in done
    assert {"tail", "halved"} <= set(done.split())


def test_the_method_of_the_readme_is_replayed(smoke_copy, in_place):
    page = ROOT / "README.md"
    write_files(page, in_place)
    for words in commands(page):
        if words[0] in ("mkdir", "echo"):
            subprocess.run(_shell(words), shell=True, check=True, cwd=in_place)
    asked = ("suite=smoke", "--config-dir", in_place / "mine", "method=[base,halfway]")
    assert "nothing to train" in traindyn("plan", *asked, results=smoke_copy).stdout
    assert "halfway" in traindyn("run", *asked, "tracker=none", results=smoke_copy).stdout


@pytest.mark.long
def test_the_method_of_the_page_passes_its_conformance_suite(in_place):
    write_files(ROOT / "docs" / "add" / "method.md", in_place)
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "mine"],
        cwd=in_place,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout
    assert "passed" in run.stdout


def own_loop(epochs):
    """What a page says is its reader's: a model, and how it is trained and evaluated."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1))
    x, y = torch.randn(64, 8), torch.randn(64, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    seen = []
    space = {
        "model": model,
        "optimizer": optimizer,
        "batches": lambda: torch.arange(64).split(16),
        "loss": lambda batch: nn.functional.mse_loss(model(x[batch]), y[batch]),
        "evaluate": lambda evaluated: seen.append(nn.functional.mse_loss(evaluated(x), y).item()),
        "epochs": epochs,
    }

    def train_epoch(model):
        for batch in space["batches"]():
            optimizer.zero_grad()
            space["loss"](batch).backward()
            optimizer.step()

    return {**space, "train_epoch": train_epoch}, seen


def python_of(page):
    return [block.content for block in blocks(ROOT / page) if block.language == "python" and not block.title]


def check_loop(space, seen):
    """A model of the last snapshot from ten modes lies nearer to it than the plain average of all does."""
    last_N = space["snapshots"][-1]
    assert len(seen) == 12
    assert torch.equal(torch.cat([p.detach().reshape(-1) for p in space["model"].parameters()]), last_N)
    mean_N = torch.stack(space["snapshots"]).mean(0)
    assert (space["theta_N"] - last_N).norm() < (mean_N - last_N).norm()


def test_cmd_in_your_own_loop():
    space, seen = own_loop(12)
    loop, loaded, others = python_of("docs/own-loop.md")
    exec(loop, space)
    check_loop(space, seen)
    assert space["embedded"].trainable_fraction < 1
    exec(loaded, space | {"training_data": [torch.randn(16, 8)]})
    exec(others, space)
    assert space["forecast_N"].shape == space["theta_N"].shape
    assert space["direction_N"].shape == space["theta_N"].shape


def test_your_own_training_live(tmp_path, monkeypatch):
    """Every epoch is evaluated as trained, averaged, and from the end of its warm-up on modelled."""
    monkeypatch.chdir(tmp_path)
    space, seen = own_loop(12)
    model, optimizer, loss = space["model"], space["optimizer"], space["loss"]

    def train_step(batch):
        optimizer.zero_grad()
        loss(batch).backward()
        optimizer.step()

    evaluate = space["evaluate"]
    space |= {"train_step": train_step, "steps_per_epoch": 4, "training_data": [torch.randn(16, 8)]}
    space["evaluate"] = lambda model: evaluate(model) or seen[-1]
    loop, kept = python_of("docs/live.md")
    exec(loop, space)
    assert len(seen) == 12 + 12 + 12 - 5
    assert len(list((tmp_path / "snapshots").iterdir())) == 13
    exec(kept, space)
    assert torch.equal(torch.cat([p.detach().reshape(-1) for p in model.parameters()]), space["average"].weights())


def test_lines_for_timms_script(tmp_path):
    """In a loop as timm's script has it; that of callbacks is run by tests/live."""
    parts = [block.content for block in blocks(ROOT / "docs" / "live.md") if block.language == "diff"]
    imports, above, within = ["\n".join(line[1:] for line in part.splitlines()) for part in parts]
    script = f"{imports}\nif True:\n{above}\n            train_one_epoch()\n            eval_metrics = validate()\n"
    script += f"{within}\n    except KeyboardInterrupt:\n        pass\n"
    space, _ = own_loop(3)
    args = mock.Mock(seed=42)
    space |= {"args": args, "output_dir": tmp_path, "start_epoch": 0, "num_epochs": 3, "updates_per_epoch": 4}
    space["train_one_epoch"], space["validate"] = lambda: None, lambda: {"loss": 0.5, "top1": 80.0}
    exec(script, space)
    assert len(list((tmp_path / "snapshots").iterdir())) == 4


def test_the_loop_of_the_readme():
    space, seen = own_loop(12)
    (loop,) = python_of("README.md")
    exec(loop, space)
    check_loop(space, seen)


def test_results_in_python(smoke, monkeypatch):
    """The page's code, on the finished results."""
    monkeypatch.chdir(smoke.results.parent)
    space = {}
    for code in python_of("docs/results-folder.md"):
        exec(code.replace('"quick"', '"smoke"'), space)
    assert set(space["frame"]["method"]) >= {"base", "cmd_online"}
    assert isinstance(space["model"], nn.Module)
    assert space["table"].loc["swa"].notna().all()
    assert space["curve"].index.tolist() == sorted(set(space["history"]["epoch"]))


def test_power_in_python():
    (code,) = python_of("docs/report.md")
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(code, {})
    assert float(said.getvalue()) == pytest.approx(1.0, abs=0.05)  # as the page says of 6 seeds


def test_kernels(smoke, monkeypatch):
    """The numbers of the example are those of the page's formulas: (0.5 + 0) epochs, and 1 / (0.25 + 0.25)."""
    monkeypatch.chdir(smoke.results.parent)
    in_frame, own = python_of("docs/kernels.md")
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(in_frame.replace('"quick"', '"smoke"'), {})
    assert {"age", "n_eff", "cmd_posthoc"} <= set(said.getvalue().split())
    space = {}
    exec(own, space)
    assert kernel.numbers(kernel.checked(space["tables"](None)["kernel"]), 10) == {"age": 0.5, "n_eff": 2.0}


def test_every_python_block_is_run_by_a_test_above():
    own = {"docs/own-loop.md", "docs/live.md", "docs/results-folder.md", "docs/report.md", "docs/kernels.md"}
    assert {name(page) for page in pages() if python_of(name(page))} == {"README.md", *own}


def test_completion_is_installed():
    assert shutil.which("register-python-argcomplete", path=os.path.dirname(sys.executable) + ":" + os.environ["PATH"])


def test_the_version_is_said(capsys):
    with mock.patch.object(sys, "argv", ["traindyn", "--version"]), pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    assert re.match(r"traindyn \d+\.\d+\.\d+ \(Python 3\.\d+", capsys.readouterr().out)
