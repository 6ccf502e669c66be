"""Results that the first version of the command left are read, and what has the same numbers is not run again."""

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
from command import here, state

from harness import load_frame, load_history
from harness.planning.compose import Request
from harness.planning.plan import make_plan
from harness.planning.resolve import resolve
from harness.results.columns import ADDED
from harness.storage.keys import harness_digest
from harness.storage.store import Store

EARLIER = Path(__file__).parents[1] / "earlier" / "results"
METHODS = ["base", "swa", "ema", "cmd_posthoc", "lookahead"]
ASKED = ("suite=smoke", "fast=true", "seeds=[0]", f"method=[{','.join(METHODS)}]", "trajectory.keep=none", "device=cpu")


@pytest.fixture
def earlier(tmp_path):
    return Path(shutil.copytree(EARLIER, tmp_path / "results"))


def test_its_frame_and_history_are_read_as_they_are():
    frame, history = load_frame(EARLIER, "smoke"), load_history(EARLIER, "smoke")
    assert list(frame["method"]) == METHODS
    assert set(frame["status"]) == {"done"}
    assert set(history["cell_key"]) == set(frame["cell_key"])


def test_a_report_builds_the_same_frame_and_history_from_its_records(earlier):
    """Only the package that made them has another name, and columns have been added of which nothing is known."""
    suite = earlier / "suites" / "smoke"
    then = {name: pd.read_parquet(suite / f"{name}.parquet") for name in ("frame", "history")}
    for name in then:
        (suite / f"{name}.parquet").unlink()
    done = here("report", "suite=smoke", "figures=none", results=earlier)
    assert all(method in done.stdout for method in METHODS)
    then["frame"]["versions"] = [text.replace('"cmdbench"', '"traindyn"') for text in then["frame"]["versions"]]
    now = load_frame(earlier, "smoke")
    assert [json.loads(text) for text in now["versions"]] == [json.loads(text) for text in then["frame"]["versions"]]
    assert set(now["federation"]) == {"none"}
    assert now[[name for name in ADDED if name != "federation"]].isna().all(axis=None)
    expected = then["frame"].drop(columns="versions")
    pd.testing.assert_frame_equal(now[[*expected.columns]], expected)
    history = load_history(earlier, "smoke")
    methods = dict(zip(history["cell_key"], history["method"], strict=True))
    assert methods == now.set_index("cell_key")["method"].to_dict()
    pd.testing.assert_frame_equal(history[[*then["history"].columns]], then["history"])


def test_finished_cells_of_methods_with_the_same_numbers_are_taken_over():
    """Those whose sources are the recorded ones, or are declared to give their numbers (storage/same_numbers.json)."""
    store = Store(EARLIER)
    asked = resolve(Request((*ASKED, f"results_dir={EARLIER}", "tracker=none")), "a test", compares=False)
    plan = make_plan(asked, store)
    found = [store.record(path.name) for path in EARLIER.glob("cells/*")]
    records = {record["method"]: record for record in found}
    (base,) = plan.bases
    assert base.key == records["base"]["base_key"]
    assert plan.base_status(base) == "done"
    for cell in base.cells:
        record = records[cell.method.name]
        if cell.source == record["sources"]["method"]:
            assert cell.key == record["cell_key"]
            same_harness = record["sources"]["harness"] == harness_digest()
            assert plan.statuses[cell.key] == ("done" if same_harness else "stale")
        else:
            assert plan.statuses[cell.key] == "left"


def test_a_plan_leaves_it_as_it_is(earlier):
    before = state(earlier)
    planned = here("plan", *ASKED, results=earlier)
    # controls of what was chosen are added, in a view beside the one that is there
    assert "view smoke-fast" in planned.stdout
    assert "1 base, 7 cells" in planned.stdout
    # the base is there; what is left trains branches, or runs it again for snapshots that are not kept
    assert re.search(r"^test_resnet .* 1 done  ", planned.stdout, re.MULTILINE)
    assert not re.search(r"\d of bases(?! run again)", planned.stdout)
    assert state(earlier) == before
