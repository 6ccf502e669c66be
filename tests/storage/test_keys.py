"""Keys change with what changes numbers, and with nothing else."""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys

import pytest

from harness.config import BaseConfig, DatasetConfig, EvaluateConfig, MethodConfig, ModelConfig, OptimizerConfig
from harness.storage import keys


@pytest.fixture
def base():
    dataset = DatasetConfig("d", "digits", "abc", 1, 8, 10, [0.3], [0.4], val_size=100)
    optimizer = OptimizerConfig("o", "torch.optim.SGD", {"lr": 0.1, "momentum": 0.9})
    return BaseConfig(
        ModelConfig("m", "test_resnet"),
        dataset,
        optimizer,
        0,
        5,
        32,
        None,
        "float32",
        False,
        "channels_last",
        True,
        "cuda",
    )


def test_base_key_ignores_names_and_spelling(base):
    key = keys.base_key(base, "abc", None)
    renamed = dataclasses.replace(base, model=dataclasses.replace(base.model, name="other"))
    assert keys.base_key(renamed, "abc", None) == key
    whole = dataclasses.replace(base, optimizer=dataclasses.replace(base.optimizer, params={"momentum": 0.9, "lr": 1}))
    point = dataclasses.replace(
        base, optimizer=dataclasses.replace(base.optimizer, params={"lr": 1.0, "momentum": 0.9})
    )
    assert keys.base_key(whole, "abc", None) == keys.base_key(point, "abc", None) != key
    # nor does it matter how many processes decode its images
    decoded = dataclasses.replace(base, dataset=dataclasses.replace(base.dataset, workers=4))
    assert keys.base_key(decoded, "abc", None) == key
    # evaluation is no part of a base
    more = dataclasses.replace(base, dataset=dataclasses.replace(base.dataset, test_size=50))
    assert keys.base_key(more, "abc", None) == key


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"epochs": 6},
        {"batch_size": 16},
        {"batches_per_epoch": 2},
        {"precision": "bfloat16"},
        {"compile": True},
        {"memory_format": "contiguous"},
        {"deterministic": False},
        {"device": "cpu"},
    ],
)
def test_base_key_changes_with_every_field_of_training(base, change):
    assert keys.base_key(dataclasses.replace(base, **change), "abc", None) != keys.base_key(base, "abc", None)


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("model", {"img_size": 16}),
        ("model", {"kwargs": {"drop_path_rate": 0.1}}),
        ("model", {"stem": "small"}),
        ("model", {"head_classes": 20}),
        ("dataset", {"val_size": 50}),
        ("dataset", {"train_size": 500}),
        ("dataset", {"split_seed": 1}),
        ("dataset", {"flip": True}),
        ("dataset", {"crop_padding": 2}),
        ("dataset", {"crop_scale": 0.5}),
        ("dataset", {"resize": 16}),
        ("dataset", {"mean": [0.5]}),
        ("optimizer", {"params": {"lr": 0.2, "momentum": 0.9}}),
        ("optimizer", {"target": "torch.optim.Adam"}),
    ],
)
def test_base_key_changes_with_every_part(base, part, change):
    changed = dataclasses.replace(base, **{part: dataclasses.replace(getattr(base, part), **change)})
    assert keys.base_key(changed, "abc", None) != keys.base_key(base, "abc", None)


def test_base_key_changes_with_data_and_weights(base):
    found = {keys.base_key(base, "abc", None), keys.base_key(base, "abd", None), keys.base_key(base, "abc", "w")}
    assert len(found) == 3


def test_options_of_data_that_came_later_are_in_no_key_at_their_defaults(base):
    def key(**changes):
        data = dataclasses.replace(base.dataset, **changes)
        return keys.base_key(dataclasses.replace(base, dataset=data), "abc", None)

    assert key() == key(probe_size=None, label_noise=0)
    found = {key(), key(probe_size=50), key(probe_size=60), key(label_noise=0.1), key(label_noise=0.2)}
    assert len(found) == 5


def test_cell_key_follows_what_is_evaluated():
    method, evaluate = MethodConfig("m", "baselines.ema.EMA", {"half_life": 1.5}), EvaluateConfig()
    key = keys.cell_key("b", method, evaluate, None, "s")
    often = dataclasses.replace(evaluate, every=5, test="every", reconstructions="every")
    assert keys.cell_key("b", method, often, None, "s") == key
    fewer = dataclasses.replace(evaluate, recalibrate_images=10)
    assert keys.cell_key("b", method, fewer, None, "s") != key
    as_is = dataclasses.replace(method, batchnorm="as_is")
    assert keys.cell_key("b", as_is, evaluate, None, "s") == keys.cell_key("b", as_is, fewer, None, "s") != key
    assert (
        len({key, keys.cell_key("b", method, evaluate, 7, "s"), keys.cell_key("b", method, evaluate, None, "t")}) == 3
    )


SOURCE = '''"""A docstring."""
import math  # a comment

class Mine:
    """Another."""

    def double(self, x: float) -> str:
        """Of one line."""
        return "# no comment" + str(2 * x)
'''


def test_stripped_drops_attribute_docstrings_and_keeps_code_beside_a_string():
    assert keys.stripped('SIZE = 3\n"""what it is,\nin two lines"""\n') == "SIZE = 3"
    assert keys.stripped("def f(): 'é'; return 1\n") != keys.stripped("def f(): 'é'; return 2\n")


def test_stripped_keeps_exactly_what_runs():
    assert keys.stripped(SOURCE) == (
        'import math\nclass Mine:\n    def double(self, x: float) -> str:\n        return "# no comment" + str(2 * x)'
    )


@pytest.fixture
def package(tmp_path, monkeypatch):
    root = tmp_path / "ownmethods"
    (root / "parts").mkdir(parents=True)
    (root / "__init__.py").write_text("from ownmethods.parts import kernel\n")
    (root / "parts" / "__init__.py").write_text("from ownmethods.parts.kernel import f\n")
    (root / "parts" / "kernel.py").write_text("def f():\n    return 1\n")
    (root / "unused.py").write_text("x = 1\n")
    (root / "method.py").write_text("import math\nfrom ownmethods.parts import f\nfrom . import parts\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    yield root
    for name in [n for n in sys.modules if n.startswith("ownmethods")]:
        del sys.modules[name]


def digest():
    keys.source_digest.cache_clear()
    return keys.source_digest("ownmethods.method")


def test_source_digest_follows_imports_within_the_package(package):
    first = digest()
    (package / "unused.py").write_text("x = 2\n")
    (package / "method.py").write_text(
        "# a comment\nimport math\n\nfrom ownmethods.parts import f\nfrom . import parts\n"
    )
    (package / "__init__.py").write_text('"""Changed."""\nfrom ownmethods.parts import kernel\n')
    assert digest() == first
    (package / "parts" / "kernel.py").write_text("def f():\n    return 2\n")
    assert digest() != first


def test_source_digest_of_a_single_file_follows_files_beside_it(tmp_path, monkeypatch):
    (tmp_path / "lonely.py").write_text("import lonely_part\nimport torch\n")
    (tmp_path / "lonely_part.py").write_text("x = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    keys.source_digest.cache_clear()
    first = keys.source_digest("lonely")
    (tmp_path / "lonely_part.py").write_text("x = 2\n")
    keys.source_digest.cache_clear()
    assert keys.source_digest("lonely") != first


def test_source_digest_does_not_depend_on_where_files_lie(package):
    """The kernel in another folder, imported from there, in another order and by a relative import."""
    (package / "method.py").write_text("import math\nfrom ownmethods.parts.kernel import f\n\nx = f()\n")
    first = digest()
    (package / "kernels").mkdir()
    (package / "parts" / "kernel.py").rename(package / "kernels" / "fast.py")
    (package / "method.py").write_text("from .kernels.fast import f\nimport math\n\nx = f()\n")
    assert digest() == first
    (package / "method.py").write_text("import math\nfrom ownmethods.kernels.fast import g as f\n\nx = f()\n")
    assert digest() != first


def test_sources_that_give_the_numbers_of_earlier_ones_keep_their_keys(package, monkeypatch, tmp_path):
    method = MethodConfig("m", "ownmethods.method.Mine", {})
    first, earlier = digest(), "0123456789abcdef0123"
    table = tmp_path / "same_numbers.json"
    table.write_text(json.dumps({"harness": {}, "methods": {first: {"module": "ownmethods.old", "source": earlier}}}))
    monkeypatch.setattr(keys, "SAME_NUMBERS", table)
    keys._same_numbers.cache_clear()
    try:
        assert digest() == earlier
        key = keys.cell_key("b", method, EvaluateConfig(), None, earlier)
        moved = dataclasses.replace(method, target="ownmethods.elsewhere.Mine")
        assert keys.cell_key("b", moved, EvaluateConfig(), None, earlier) == key
        assert keys.cell_key("b", method, EvaluateConfig(), None, first) != key
        # of sources that are known twice, and parameters that came later
        later = {"later": {"every": None}}
        entries = {first: {"module": None, "source": earlier} | later, "2": {"module": None, "source": earlier} | later}
        table.write_text(json.dumps({"harness": {}, "methods": entries}))
        keys._same_numbers.cache_clear()
        with_none, with_two = (dataclasses.replace(method, params={"k": 5, "every": every}) for every in (None, 2))
        without = dataclasses.replace(method, params={"k": 5})
        of = [keys.cell_key("b", one, EvaluateConfig(), None, earlier) for one in (without, with_none, with_two)]
        assert of[0] == of[1] != of[2]
        assert keys.cell_key("b", with_none, EvaluateConfig(), None, "other") not in of
    finally:
        monkeypatch.undo()
        keys._same_numbers.cache_clear()
