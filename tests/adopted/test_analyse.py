"""What an analysis says of a run, held against the run in memory; its page and figures; what it refuses."""

import math
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch
from command import here
from layouts import STEPS, trained, written

from harness.adopted import dynamics
from harness.adopted.analyse import DRAWN
from harness.adopted.figures import OfTime
from harness.adopted.following import fitted
from harness.checkpoints.registry import read_name, read_run
from harness.storage.store import Store

RUNS = [trained(9, seed) for seed in (0, 1)]
NAMES = ("norm.bias", "norm.weight", "wte.weight")
CPU = torch.device("cpu")


def weights_TN(runs):
    return torch.stack([torch.cat([states[n].reshape(-1) for n in NAMES]) for states, _ in runs]).double().numpy()


@pytest.fixture(scope="module")
def analysed(tmp_path_factory):
    """Two seeds, adopted and analysed through the command."""
    root = tmp_path_factory.mktemp("analysed")
    for seed, runs in enumerate(RUNS):
        written(root / f"s{seed}", "trainer", runs)
    here("adopt", "words", f"from={root}/s{{seed}}", "seeds=[0,1]", results=root / "results")
    printed = here("analyse", "words", "modes=3", "samples=30", "figures=none", results=root / "results").stdout
    return root, printed


def table(root, name):
    return pd.read_csv(root / "results" / "analyses" / "words" / "tables" / f"{name}.csv")


def test_distances_and_cosines_are_those_of_the_weights(analysed):
    root, _ = analysed
    for seed, runs in enumerate(RUNS):
        W_TN = weights_TN(runs)
        found = table(root, "distances").query(f"seed == {seed}")
        apart = np.linalg.norm(W_TN[:, None] - W_TN[None], axis=2)
        assert np.allclose(found["distance"].to_numpy().reshape(apart.shape), apart, atol=1e-6)
        assert found["at"].unique().tolist() == [STEPS * t for t in range(10)]
        steps = np.diff(W_TN, axis=0)
        wanted = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in pairwise(steps)]
        assert np.allclose(table(root, "cosines").query(f"seed == {seed}")["cosine"], wanted, atol=1e-6)


def test_components_are_those_of_a_singular_value_decomposition(analysed):
    root, _ = analysed
    W_TN = weights_TN(RUNS[0])
    values = np.linalg.svd(W_TN - W_TN.mean(0), compute_uv=False) ** 2
    found = table(root, "components").query("seed == 0 and kind == 'the run'")["share"]
    assert np.allclose(found, (values / values.sum())[: len(found)], atol=1e-9)


def test_a_random_walk_of_many_weights_is_as_its_inner_products_say():
    rng = np.random.default_rng(0)
    W_TN = np.concatenate([np.zeros((1, 200_000)), rng.normal(size=(8, 200_000)).cumsum(0)])
    gram = W_TN @ W_TN.T
    assert np.allclose(dynamics.walk(gram), gram, rtol=0.02, atol=0.01 * gram.max())


def test_motion_counts_the_weights_that_move(analysed):
    root, _ = analysed
    found = table(root, "motion").query("seed == 0").set_index("tensor")
    own = torch.stack([states["wte.weight"].reshape(-1) for states, _ in RUNS[0]])
    assert found.loc["wte.weight", "moved"] == (own[1:] != own[:-1]).any(0).double().mean()
    assert found.loc["wte.weight", "changed"] == pytest.approx((own[1:] != own[:-1]).double().mean())
    steps = (own.diff(dim=0).double().norm(dim=1) / own[:-1].double().norm(dim=1)).square().mean().sqrt()
    assert found.loc["wte.weight", "step"] == pytest.approx(float(steps))
    assert found["below_spacing"].isna().all()


def test_bfloat16_tells_what_its_spacing_hides(tmp_path):
    """Of the weights 1 + k/128, one moves by a spacing per snapshot, one in half of the snapshots, one never."""
    for t in range(5):
        values = torch.tensor([1 + t / 128, 1 + (t // 2) / 128, 1.5], dtype=torch.bfloat16)
        torch.save({"step": t, "state_dict": {"w": values}}, tmp_path / f"{t}.pt")
    here("adopt", "low", f"from={tmp_path}", results=tmp_path / "results")
    store = Store(tmp_path / "results")
    run = read_run(store, read_name(store.root, "low").keys[0])
    found = dynamics.motion(run, CPU).tensors.iloc[0]
    assert found["below_spacing"] == pytest.approx(2 / 3)
    assert found["moved"] == pytest.approx(2 / 3)
    assert found["changed"] == pytest.approx((1 + 0.5 + 0) / 3)


def test_errors_of_models_are_their_distances(analysed):
    root, _ = analysed
    W_TN = weights_TN(RUNS[0])[1:]
    whole = np.linalg.norm(W_TN[-1] - W_TN[0])
    errors = table(root, "errors_over_time").query("seed == 0").set_index("model")
    wanted = np.linalg.norm(W_TN - W_TN.mean(0), axis=1) / whole
    assert np.allclose(errors.loc["Time mean", "error"], wanted, atol=1e-6)
    centred = W_TN - W_TN.mean(0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    rest = np.linalg.norm(centred - centred @ axes[:2].T @ axes[:2], axis=1) / whole
    assert np.allclose(errors.loc["PCA (rank 2)", "error"], rest, atol=1e-5)
    # half of 9 snapshots is 4, and modelled are those after the next
    persistence = errors.loc["Persistence"]
    assert persistence["t"].min() == 6
    assert np.allclose(
        persistence["error"].to_numpy()[1:], np.linalg.norm(W_TN[6:] - W_TN[4], axis=1) / whole, atol=1e-6
    )


def test_it_is_told_in_a_sentence(analysed):
    root, printed = analysed
    assert "words: 2 seeds, 9 snapshots of 36 weights. Two principal components have" in printed
    assert printed.splitlines()[-2].strip() in (root / "results" / "analyses" / "words" / "index.html").read_text()


def test_own_figures_are_drawn_from_their_tables(analysed):
    root, _ = analysed
    for draw, needed in DRAWN.values():
        figure = draw({name: table(root, name) for name in needed}, OfTime("words", unit="step"))
        assert any(axes.get_xlabel() for axes in figure.axes)


@pytest.mark.long
def test_the_page_has_every_figure(analysed):
    root, _ = analysed
    here("analyse", "words", "modes=3", "samples=30", results=root / "results")
    folder = root / "results" / "analyses" / "words"
    page = (folder / "index.html").read_text()
    names = {path.stem for path in (folder / "figures").glob("*.png")}
    assert {"distances", "path", "motion", "errors_over_time", "cmd_posthoc-rho"} <= names
    assert "dmd_reconstruction-eigenvalues" in names
    for name in names:
        assert f"figures/{name}.png" in page
        assert (folder / "figures" / f"{name}.pdf").read_bytes().startswith(b"%PDF")


def test_a_changed_source_is_named(analysed, tmp_path):
    runs = written(tmp_path / "runs", "plain", RUNS[0])
    here("adopt", "mine", f"from={runs}", results=tmp_path / "results")
    (runs / "c3.pt").write_bytes((runs / "c4.pt").read_bytes())
    printed = here("analyse", "mine", results=tmp_path / "results", code=2)
    assert f"{runs / 'c3.pt'}: changed since it was adopted" in printed.stderr
    assert len(printed.stderr.splitlines()) == 1
    assert not (tmp_path / "results" / "analyses" / "mine").exists()


def test_what_is_refused(analysed):
    root, _ = analysed
    results = root / "results"
    assert "adopted must be a name of" in here("analyse", "nobody", results=results, code=2).stderr
    assert "modes must be at least 1, got 0" in here("analyse", "words", "modes=0", results=results, code=2).stderr
    store = Store(results)
    run = read_run(store, read_name(results, "words").keys[0])
    for name, why in (
        ("cmd_embedded", "must not train on its own"),
        ("ema", "must watch snapshots"),
        ("greedy_soup", "must not ask for the loss on a probe"),
    ):
        with pytest.raises(ValueError, match=f"method.{name} {why}"):
            fitted(name, run)


def test_gaps_and_a_missing_beginning_are_told(tmp_path):
    folder = written(tmp_path / "runs", "plain", RUNS[0], ts=(1, 2, 3, 5, 8))
    said = here("adopt", "mine", f"from={folder}", results=tmp_path / "results").stdout
    assert "gaps between snapshots are of 10 to 30 steps" in said
    printed = here("analyse", "mine", "modes=2", "samples=20", "figures=none", results=tmp_path / "results").stdout
    assert "not fitted: method.dmd_reconstruction must have snapshots at equal distances, got 10 to 30 steps" in printed
    run = read_run(Store(tmp_path / "results"), read_name(tmp_path / "results", "mine").keys[0])
    with pytest.raises(ValueError, match=r"method.cmd_posthoc must not read w\(0\), which was not adopted"):
        fitted("cmd_posthoc", run, {"include_initial": True})
    assert math.isclose(run.gaps[-1], 30)
