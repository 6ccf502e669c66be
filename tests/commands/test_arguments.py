"""Arguments of the verbs that resolve no configuration: one reader, typed, whose refusals are one line."""

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
from harness.results.columns import METRICS


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
        (
            DoctorArguments,
            "repairs=true",
            "v takes results_dir=, repair=, free= only, got 'repairs=true'; nearest: repair",
        ),
        (DoctorArguments, "repair", "v takes results_dir=, repair=, free= only, got 'repair'"),
        (MergeArguments, "results_dir=a", "from must be given"),
        (MergeArguments, "from=", "from must be text, got None"),
        (ReportArguments, "tables.target=0", "tables.target must be above 0, got 0"),
        (ReportArguments, "tables.target=101", "tables.target must be at most 100, got 101"),
        (
            ReportArguments,
            "figures.landscape=2",
            "figures.landscape must be 0 or 3 to 61 points along each direction, got 2",
        ),
        (ReportArguments, "figures=some", "figures must be one of all, none, got 'some'"),
        (SyncArguments, "suite=quick", "v takes results_dir=, tracker.*= only, got 'suite=quick'"),
        (SyncArguments, "tracker.mode=loud", "tracker.mode must be one of auto, offline, online, disabled, got 'loud'"),
        (PublishArguments, "tracker.tags=mine", "tracker.tags must be a list, got 'mine': tracker.tags=[mine]"),
    ],
)  # fmt: skip
def test_bad_arguments_are_one_line(cls: type[Arguments], given, line):
    with pytest.raises(ConfigError) as refusal:
        read_arguments(cls, "v", [given])
    assert str(refusal.value).startswith(line)


@pytest.mark.parametrize("metric", METRICS)
def test_every_metric_of_the_tables_can_be_asked_for(metric):
    assert read_arguments(ReportArguments, "report", [f"tables.metric={metric}"]).metric == metric
    with pytest.raises(ConfigError, match=r"^tables\.metric must be one of test_accuracy, .*, got 'accuracy'$"):
        read_arguments(ReportArguments, "report", ["tables.metric=accuracy"])
