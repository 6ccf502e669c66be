"""The command as a person meets it: on a terminal, whose window changes its size, and with Ctrl-C at any moment."""

import re
import shutil
import subprocess
import sys

import pytest
from command import SHIM, traindyn
from pseudo_terminal import Terminal

ASKED = ("run", "model=test_resnet", "dataset=digits", "optimizer=sgd_momentum_cosine", "method=[base,swa]", "epochs=6")
ASKED += ("batches_per_epoch=6", "batch_size=64", "tracker=none", "engine.workers=1", "evaluate.recalibrate_images=64")
ASKED += ("trajectory.bundle_seconds=0",)
LABEL = "test_resnet-digits-sgd_momentum_cosine-s0"
CTRL_C = b"\x03"


def interrupted(terminal):
    """It ended as Ctrl-C ends it: one line, the last one on the screen, and nothing of what it was about to do. Keys
    that were pressed after that line are the terminal's own echo, on a line of theirs."""
    assert terminal.end() == 130, terminal.text
    assert "Traceback" not in terminal.text, terminal.text
    assert "Exception ignored" not in terminal.text, terminal.text
    lines = [line for line in terminal.screen.lines if line.replace("^C", "")]
    assert lines[-1].startswith("interrupted"), lines
    assert terminal.text.count("interrupted") == 1
    assert not any("..." in line for line in lines), lines
    return lines


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """A run that was held in its second epoch, seen at three widths, and interrupted: its folder and its terminal, and
    what stood on the screen at each width."""
    folder = tmp_path_factory.mktemp("watched")
    counter = folder / "steps"
    variables = {
        "PYTHONPATH": str(SHIM),
        "FAULT": f"hold step 9 {counter}",
        "CONSTANT": "harness.running.jobs.progress TELL_SECONDS 0",
    }
    results, screens = folder / "results", {}
    with Terminal(*ASKED, f"results_dir={results}", folder=folder, width=140, variables=variables) as terminal:
        terminal.shows("2/6")
        terminal.wait(lambda _: counter.with_name("steps.held").exists())
        for width in (140, 80, 50, 140):
            terminal.resize(width)
            # the view is drawn anew at every look at the jobs
            seen = len(terminal.text)
            terminal.wait(lambda now, seen=seen: now.text[seen:].count(LABEL[:20]) >= 2)
            screens.setdefault(width, list(terminal.screen.lines))
        terminal.press(CTRL_C)
        last = interrupted(terminal)
    counter.with_name("steps.held").unlink()
    return results, terminal, screens, last


def test_the_first_line_comes_at_once_and_says_what_will_be_done(watched):
    _, terminal, screens, _ = watched
    assert terminal.text.startswith("planning ...")
    above = " ".join(screens[140])
    assert "1 base, 3 cells: 3 left; epochs to train: 6 of bases" in above
    assert re.search(r"about \d+ (s|min) on this machine \(from training steps of test_resnet measured here", above)


@pytest.mark.parametrize("width", [140, 80, 50])
def test_a_window_of_any_size_shows_the_view_once_and_whole(watched, width):
    screen = watched[2][width]
    text = " ".join(" ".join(screen).split())
    assert max(map(len, screen)) <= width
    assert text.count("cells, about") == 1, screen
    assert text.count(LABEL) == 1, screen
    for word in ("2/6", "images/s", "elapsed", "left"):
        assert word in text, screen


def test_ctrl_c_leaves_nothing_of_the_view(watched):
    last = watched[3]
    assert last[-1] == "interrupted: run the same command again to go on from the last stored epoch"
    assert not any(LABEL in line or "cells, about" in line for line in last), last


def test_the_same_command_says_where_it_goes_on(watched):
    results, *_ = watched
    done = traindyn(*ASKED, results=results).stdout
    assert "go on from their last stored epoch: 1 half-trained base" in done
    assert f"{LABEL}: resumed at epoch 1/6" in done
    assert re.search(rf"{LABEL}: epoch 3/6, [\d,]+ images/s, .* cells, about .* left", done)
    assert " 0 images/s" not in done


@pytest.mark.parametrize(
    ("arguments", "module"),
    [
        (["--help"], "harness.cli"),
        (["run", "suite=smoke"], "harness.terminal"),
        (["tune", "suite=smoke"], "argcomplete"),
        (["list", "methods"], "harness.verbs.listing"),
        (["show", "suite=smoke"], "omegaconf"),
        (["plan", "suite=smoke"], "harness.planning.estimate"),
        (["run", "suite=smoke"], "harness.planning.resolve"),
        (["report", "suite=smoke"], "pandas"),
    ],
)
def test_ctrl_c_while_libraries_are_imported(tmp_path, arguments, module):
    """From the first import on, in whatever import it falls."""
    mark = tmp_path / "mark"
    variables = {"PYTHONPATH": str(SHIM), "HOLD_IMPORT": f"{module} {mark}"}
    with Terminal(*arguments, folder=tmp_path, variables=variables, fresh=True) as terminal:
        terminal.wait(lambda _: mark.exists())
        terminal.press(CTRL_C)
        interrupted(terminal)
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("module", "finished"),
    [("harness.report.tables.terminal", True), ("harness.running.jobs.branch", False)],
    ids=["half imported, it would swallow it", "the server of jobs has the signal too, and would print a traceback"],
)
def test_ctrl_c_in_an_import_in_the_midst_of_work_waits_for_its_end(tmp_path, smoke, module, finished):
    mark, results = tmp_path / "mark", tmp_path / "results"
    if finished:
        shutil.copytree(smoke.results, results)
    variables = {"PYTHONPATH": str(SHIM), "HOLD_IMPORT": f"{module} {mark}"}
    words = ("run", "suite=smoke", "save=final", "tracker=none", f"results_dir={results}")
    with Terminal(*words, folder=tmp_path, variables=variables, fresh=True) as terminal:
        terminal.wait(lambda _: mark.exists())
        terminal.press(CTRL_C)
        mark.unlink()
        interrupted(terminal)


def test_ctrl_c_twice_ends_at_once(watched, tmp_path):
    """Where jobs are slow to end, who presses again does not wait."""
    counter = tmp_path / "steps"
    variables = {"PYTHONPATH": str(SHIM), "FAULT": f"hold step 3 {counter}"}
    with Terminal(*ASKED, f"results_dir={tmp_path / 'results'}", folder=tmp_path, variables=variables) as terminal:
        terminal.wait(lambda _: counter.with_name("steps.held").exists())
        for _ in range(5):
            terminal.press(CTRL_C)
        interrupted(terminal)
    counter.with_name("steps.held").unlink()


def test_an_interrupt_in_a_callback_of_the_garbage_collector_is_one(tmp_path):
    """Python swallows what is raised there, and prints it with a traceback."""
    code = """if True:
        import weakref
        from harness import interrupt
        interrupt.arm()
        class Thing: pass
        def interrupted(reference): raise KeyboardInterrupt
        thing = Thing()
        reference = weakref.ref(thing, interrupted)
        del thing
        print("goes on")
    """
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")
