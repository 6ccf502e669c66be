"""A model from its cell, where what its training began at is gone."""

from command import here
from safetensors.torch import load_file, save_file

from harness import load_frame, load_model
from harness.planning.compose import Request
from harness.planning.resolve import resolve
from harness.problem.models import build_model


def test_a_model_needs_no_weights_that_its_training_began_at(tmp_path):
    """Its own, stored with the cell, are all that it has: the pretrained file may be gone, or another by now."""
    results, weights = tmp_path / "results", tmp_path / "weights.safetensors"
    asked = ("dataset=digits", "model=test_resnet", "method=base", "fast=true", "tracker=none", "save=final")
    base = resolve(Request(asked), "test").bases[0][0]
    save_file(build_model(base.model, base.dataset, 7).state_dict(), weights)
    here("run", *asked, "epochs=1", f"model.test_resnet.pretrained={weights}", results=results)
    weights.unlink()
    (cell,) = load_frame(results).cell_key
    found = load_model(results, cell).state_dict()
    stored = load_file(results / "cells" / cell / "weights.safetensors")
    assert found.keys() == stored.keys()
    assert all(found[name].equal(stored[name]) for name in stored)
