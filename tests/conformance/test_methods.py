"""Every preset of conf/method, held to the contract; a new method is covered by adding its two files."""

import inspect
from importlib.resources import files

import pytest

import harness.method
from harness.conformance import MethodConformance
from harness.conformance.clauses import Clause
from harness.conformance.tiny import find_subject
from harness.planning.compose import available

PRESETS = sorted(available("method"))


class TestPresets(MethodConformance):
    @pytest.fixture(params=PRESETS)
    def subject(self, request):
        return find_subject(request.param)


def test_presets_are_the_files_and_of_all_three_kinds():
    names = {path.name.removesuffix(".yaml") for path in (files("conf") / "method").iterdir()}
    assert set(PRESETS) == names
    assert {find_subject(name).cell.kind for name in PRESETS} == {"observer", "reconstruction", "brancher"}


@pytest.mark.parametrize("clause", Clause)
def test_clauses_are_quoted_from_the_contract(clause):
    assert clause in " ".join(inspect.getsource(harness.method).split())
