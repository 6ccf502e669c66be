"""What is said of `engine=flower` where Flower need not be there; with it: tests/flower."""

from pathlib import Path

import pytest
from command import here

from harness.config import ConfigError, FlowerConfig
from harness.running.engine import flower as engine
from harness.running.engine import open_engine

ROOT = Path(__file__).parents[2]
CLASHES = {"certifi", "packaging", "protobuf", "ray", "rich", "typer"}
"""what Flower 1.42 wants other versions of than constraints.txt has"""
FEDERATED = ("run", "dataset=digits", "model=test_resnet", "method=base", "fast=true", "engine=flower")


def pins(name):
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return dict(line.lower().replace("_", "-").split("==") for line in lines if not line.startswith("#"))


def test_the_environment_differs_where_flowers_pins_do_alone():
    """torch, NumPy and all else that makes numbers are of the same versions."""
    tested, flowers = pins("constraints.txt"), pins("constraints-flower.txt")
    assert {name for name in tested.keys() & flowers if tested[name] != flowers[name]} == CLASHES
    assert {"torch", "numpy", "timm", "scipy", "flwr"} <= flowers.keys()


def refused(*arguments, results):
    done = here(*FEDERATED, *arguments, results=results, code=2)
    (line,) = done.stderr.splitlines()
    assert not list(results.glob("bases/*/base.json"))
    return line


@pytest.fixture
def without(monkeypatch):
    monkeypatch.setattr(engine.importlib.util, "find_spec", lambda name: None)


def test_without_the_package(without, tmp_path):
    with pytest.raises(ConfigError) as error:
        open_engine(FlowerConfig("flower"), "cpu", tmp_path, {10})
    assert str(error.value) == "engine=flower needs the package flwr: pip install 'traindyn[flower]'"


@pytest.mark.parametrize("federation", ["none", "[none,iid_10]"])
def test_a_base_without_clients(federation, tmp_path):
    line = refused(f"federation={federation}", results=tmp_path / "results")
    assert line.startswith("error: engine=flower runs federations: federation must have clients")


def test_a_gpu_is_not_asked_for(tmp_path):
    line = refused("federation=iid_10", "device=cuda", results=tmp_path / "results")
    assert line.startswith("error: device must be cpu or auto with engine=flower")


def test_one_superlink_has_one_number_of_nodes(tmp_path, monkeypatch):
    monkeypatch.setattr(engine.importlib.util, "find_spec", lambda name: object())
    with pytest.raises(ConfigError) as error:
        open_engine(FlowerConfig("flower", superlink="127.0.0.1:1"), "cpu", tmp_path, {10, 4})
    said = "engine.superlink takes bases of one number of clients, its nodes, got 4, 10"
    assert str(error.value) == said


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere", "127.0.0.1:0", "127.0.0.1:70000", "127.0.0.1:"])
def test_a_superlink_that_does_not_answer(address, tmp_path, monkeypatch):
    monkeypatch.setattr(engine.importlib.util, "find_spec", lambda name: object())
    with pytest.raises(ConfigError) as error:
        open_engine(FlowerConfig("flower", superlink=address), "cpu", tmp_path, {2})
    said = f"engine.superlink must be host:port of a SuperLink that answers, got '{address}': "
    assert str(error.value).startswith(said)
