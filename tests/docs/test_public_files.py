"""What visitors of a public project look for: licence, citation, how to take part, and what is promised to stay."""

import importlib
import re

import pytest
import yaml
from pages import DOCS, ROOT

import baselines.cmd
import harness

AUTHORS = "the traindyn authors"


def project():
    """The project's table in pyproject.toml."""
    import tomllib

    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_licence_and_citation_name_the_same():
    licence, citation = (ROOT / "LICENSE").read_text(), yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert licence.startswith("MIT License")
    assert AUTHORS in licence
    assert [author["name"] for author in citation["authors"]] == [AUTHORS]
    assert citation["license"] == project()["license"] == "MIT"
    assert citation["version"] == project()["version"]
    (paper,) = citation["references"]
    assert paper["title"] == "Enhancing Neural Training via a Correlated Dynamics Model"
    assert paper["authors"][0]["family-names"] == "Brokman"


def test_no_address_of_the_project_is_invented():
    assert "urls" not in project()
    for path in (*ROOT.glob("*.md"), *ROOT.glob(".github/**/*.*"), ROOT / "CITATION.cff", ROOT / "mkdocs.yml"):
        text = path.read_text()
        assert "github.com" not in text, path
        assert "badge" not in text, path
        assert not re.search(r"[\w.]+@(?!v\d)[\w-]+\.\w+", text), path


def test_ci_runs_what_a_change_must_pass():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    (job,) = workflow["jobs"].values()
    assert ".ci/run" in [step.get("run") for step in job["steps"]]
    assert (ROOT / ".ci" / "run").is_file()


def test_a_commit_is_held_to_style_and_types():
    (local,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [hook["id"] for hook in local["hooks"]] == ["ruff", "ruff-format", "mypy"]


def test_issues_have_templates():
    for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.md"):
        head = yaml.safe_load(path.read_text().split("---")[1])
        assert head["name"]
        assert head["about"]


def test_what_is_public_can_be_imported():
    assert {"load_frame", "load_history", "load_model"} <= set(harness.__all__)
    assert all(callable(getattr(harness, name)) for name in harness.__all__)
    for module in (
        "harness.method",
        "harness.snapshots",
        "harness.weights",
        "harness.live",
        "baselines.cmd",
        "baselines.dmd",
        "baselines.subspace",
    ):
        importlib.import_module(module)
    assert "public" in baselines.__doc__


def test_classes_of_cmd_are_its_own():
    """What it gives of the harness beside them are functions."""
    found = [getattr(baselines.cmd, name) for name in baselines.cmd.__all__]
    assert {one.__name__ for one in found if isinstance(one, type)} == {"CMD", "EmbeddedCMD", "OnlineCMD"}
    assert {one.__name__ for one in found} >= {"load_weights", "recalibrate", "weights_of"}


@pytest.mark.parametrize("package", ["harness", "baselines"])
def test_types_travel_with_the_package(package):
    assert (ROOT / package / "py.typed").exists()


def test_promises_name_tests_that_exist():
    named = re.findall(r"`(tests/[\w/.]+)`", (DOCS / "trust.md").read_text())
    assert len(named) > 10
    assert all((ROOT / place).exists() for place in named)


def test_scripts_that_pages_name_exist():
    """And every benchmark is listed."""
    listed = set(re.findall(r"^\| `(\w+\.py)`", (DOCS / "performance.md").read_text(), flags=re.MULTILINE))
    assert listed <= {path.name for path in (ROOT / "benchmarks").glob("*.py")}
    assert "train_overhead.py" in listed
