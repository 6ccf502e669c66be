"""What is remembered of models: found once, by everything it follows from, and found again where it was damaged."""

import subprocess
import sys
from dataclasses import replace

import pytest

from harness.config import ConfigError, DatasetConfig, ModelConfig
from harness.planning import model_cost as facts
from harness.planning.model_cost import ModelFacts, image_cost, model_facts

GREY = DatasetConfig("grey", "digits", "", 1, 28, 10, [0.0], [1.0], 1)
LENET = ModelConfig("mine", "lenet5", kwargs={"width": 1})
# convolutions 6 of 5x5 and 16 of 6x5x5, then 256 to 120 to 84 to 10, each with biases; 28 pixels leave 4x4
WEIGHTS = 6 * 26 + 16 * 151 + 120 * 257 + 84 * 121 + 10 * 85
OPERATIONS = 2 * (24 * 24 * 6 * 25 + 8 * 8 * 16 * 150 + 256 * 120 + 120 * 84 + 84 * 10)


@pytest.fixture(autouse=True)
def forgetful(tmp_path, monkeypatch):
    """A cache of the test's own; the returned function forgets what this process has seen."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(facts, "_known", {})
    return lambda: monkeypatch.setattr(facts, "_known", {})


def kept(folder):
    return sorted((folder / "traindyn" / "model-facts").glob("*.json"))


def test_facts_are_found_once_and_then_read(tmp_path, monkeypatch, forgetful):
    first = model_facts(LENET, GREY), image_cost(LENET, GREY)
    assert first[0] == ModelFacts(WEIGHTS, 0, False)
    assert len(kept(tmp_path)) == 2
    forgetful()
    for name in ("_measure", "_count"):
        monkeypatch.setattr(facts, name, lambda *arguments: pytest.fail("found again"))
    assert (model_facts(LENET, GREY), image_cost(LENET, GREY)) == first
    # only the shape of the images matters
    model_facts(LENET, DatasetConfig("other", "digits", "", 1, 28, 10, [0.5], [2.0], 7))


def test_weights_that_meet_padding_alone_are_counted():
    """In test_resnet (32, 48, 48 and 96 channels) the last stage works on 1 x 1 maps at 28 pixels and 2 x 2 at 36: of
    its 3 x 3 kernels 8 of 9 taps meet no image in the first case; its first has stride 2 on 2 x 2, which meets 4."""
    resnet = ModelConfig("test_resnet", "test_resnet")
    facts_at = {pixels: image_cost(resnet, replace(GREY, size=pixels)).unreached for pixels in (28, 36)}
    assert facts_at[36] == 0
    assert 0.4 < facts_at[28] / model_facts(resnet, GREY).N < 0.5
    assert image_cost(LENET, GREY).unreached == 0


@pytest.mark.parametrize("change", ["versions", "classes", "kwargs"])
def test_what_a_fact_follows_from_has_a_place_of_its_own(tmp_path, monkeypatch, forgetful, change):
    before = model_facts(LENET, GREY)
    forgetful()
    monkeypatch.setattr(facts, "_code", lambda: ("another torch",) if change == "versions" else ("these",))
    classes = 9 if change == "classes" else 10
    width = 2 if change == "kwargs" else 1
    data = DatasetConfig("grey", "digits", "", 1, 28, classes, [0.0], [1.0], 1)
    after = model_facts(ModelConfig("mine", "lenet5", kwargs={"width": width}), data)
    assert len(kept(tmp_path)) == 2
    assert (after == before) == (change == "versions")


@pytest.mark.parametrize(
    "content", ["", "{", "[1]", '{"N": 1}', '{"N": "7", "buffer_floats": 0, "running_stats": false}']
)
def test_a_damaged_memory_is_replaced(tmp_path, forgetful, content):
    model_facts(LENET, GREY)
    (path,) = kept(tmp_path)
    path.write_text(content)
    forgetful()
    assert model_facts(LENET, GREY).N == WEIGHTS
    assert str(WEIGHTS) in path.read_text()


def test_refusals_are_not_remembered(tmp_path, forgetful):
    small = DatasetConfig("small", "digits", "", 1, 8, 10, [0.0], [1.0], 1)
    for _ in range(2):
        with pytest.raises(ConfigError, match="refuses images of 8x8"):
            model_facts(LENET, small)
    assert kept(tmp_path) == []


HEAVY = (
    "torch", "timm", "torchvision", "sklearn", "pandas", "scipy.stats", "matplotlib", "wandb", "optuna"
)  # fmt: skip
"""what takes long to import and no plan needs, once the facts of its models are known"""


def test_a_remembered_suite_is_planned_without_heavy_libraries(tmp_path):
    """A second process, as one command after the other; timm is what the first one measures models with."""
    code = f"""if True:
        import sys
        from harness.cli import main
        try:
            main(["plan", "suite=quick", "results_dir={tmp_path}/results"])
        except SystemExit as end:
            print(end.code, [name for name in {HEAVY} if name in sys.modules])
    """
    words = [sys.executable, "-c", code]
    first, second = (subprocess.run(words, capture_output=True, text=True, check=True).stdout for _ in range(2))
    assert "'timm'" in first.splitlines()[-1]
    assert second.splitlines()[-1] == "0 []"


def test_help_needs_neither_pydantic_nor_torch():
    code = """if True:
        import sys
        from harness.cli import main
        try:
            main(["run", "--help"])
        except SystemExit as end:
            print(end.code, [name for name in ("pydantic", "torch", "hydra") if name in sys.modules])
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 []"


def test_a_cache_that_cannot_be_written_costs_time_only(tmp_path):
    (tmp_path / "traindyn").write_text("a file where the folder should be")
    assert model_facts(LENET, GREY).N == WEIGHTS
    assert image_cost(LENET, GREY).operations == OPERATIONS
