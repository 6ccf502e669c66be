"""Arguments of the verbs that resolve no configuration: one reader, typed, whose refusals are one line."""

from typing import get_args, get_type_hints

import pytest

from harness.arguments import (
    Arguments,
    DoctorArguments,
    MergeArguments,
    PublishArguments,
    ReportArguments,
    SyncArguments,
    read_arguments,
)
from harness.config import ConfigError
from harness.report.tables import METRICS


def test_texts_stay_texts_and_all_else_is_yaml():
    report = read_arguments(ReportArguments, "report", ["results_dir=007", "tables.target=85", "tables.columns=[a,b]"])
    assert (report.results_dir, report.target, report.columns) == ("007", 85, "[a,b]")
    assert read_arguments(DoctorArguments, "doctor", ["free=true"]) == DoctorArguments(free=True)
    assert read_arguments(MergeArguments, "merge", ["from=a", "from=b=c"]).other == "b=c"


def test_what_is_said_of_the_tracker_lies_below_it():
    given = ["suite=2024", "tracker=csv", "tracker.tags=[a,3]", "tracker.entity=null", "tracker.project=5"]
    arguments = read_arguments(PublishArguments, "publish", given)
    assert arguments.suite == "2024"
    assert arguments.tracker == {"name": "csv", "tags": ["a", "3"], "entity": None, "project": "5"}


@pytest.mark.parametrize(
    ("cls", "given", "line"),
    [
        (DoctorArguments, "repair=maybe", "repair must be true or false, got 'maybe'"),
        (DoctorArguments, "repairs=true", "v takes results_dir=, repair=, free= only, got 'repairs=true'; near"),
        (DoctorArguments, "repair", "v takes results_dir=, repair=, free= only, got 'repair'"),
        (MergeArguments, "results_dir=a", "from must be given"),
        (MergeArguments, "from=", "from must be text, got None"),
        (ReportArguments, "tables.target=0", "tables.target must be above 0, got 0"),
        (ReportArguments, "tables.target=101", "tables.target must be at most 100, got 101"),
        (ReportArguments, "figures.landscape=2", "figures.landscape must be 0 or 3 to 61 points along "),
        (ReportArguments, "figures=some", "figures must be one of all, none, got 'some'"),
        (SyncArguments, "suite=quick", "v takes results_dir=, tracker.*= only, got 'suite=quick'"),
        (SyncArguments, "tracker.mode=loud", "tracker.mode must be one of auto, offline, online, disabled, got 'loud'"),
        (PublishArguments, "tracker.tags=mine", "tracker.tags must be a list, got 'mine'"),
    ],
)  # fmt: skip
def test_bad_arguments_are_one_line(cls: type[Arguments], given, line):
    with pytest.raises(ConfigError) as refusal:
        read_arguments(cls, "v", [given])
    assert str(refusal.value).startswith(line)


def test_metrics_are_those_of_the_tables():
    assert set(get_args(get_type_hints(ReportArguments)["metric"])) == set(METRICS)
