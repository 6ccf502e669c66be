"""The command `traindyn` and its verbs. Help and completion import no heavy library."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from harness import interrupt
from harness.terminal import patient_streams
from harness.validation import ConfigError, printable, reason, seen
from harness.verbs.completion import complete
from harness.verbs.words import DESCRIPTION, EXAMPLES, GLOSSARY, NO_CONFIGURATION, OVERRIDES, SUMMARIES

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

    from harness.planning.experiment import Experiment
    from harness.planning.plan import Plan


class _Parser(argparse.ArgumentParser):
    """Errors in one line, like all bad input."""

    def error(self, message: str) -> NoReturn:
        print(f"error: {message}; see {self.prog} --help", file=sys.stderr)
        raise SystemExit(2)


class _Version(argparse.Action):
    """Prints the version, which is looked up only where it is asked for."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str | None = None) -> None:
        super().__init__(option_strings, dest, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from importlib.metadata import version

        print(f"traindyn {version('traindyn')} (Python {sys.version.split()[0]})")
        raise SystemExit(0)


def _parser() -> argparse.ArgumentParser:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = _Parser(prog="traindyn", description=DESCRIPTION, epilog=GLOSSARY, formatter_class=formatter)
    parser.add_argument("--version", action=_Version, help="show the versions of traindyn and of Python, and leave")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=_Parser)
    for verb, summary in SUMMARIES.items():
        one = verbs.add_parser(
            verb,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            epilog=f"{NO_CONFIGURATION.get(verb, OVERRIDES)}\nexamples:\n  {EXAMPLES[verb]}",
            formatter_class=formatter,
        )
        if verb == "report":
            one.add_argument("--open", action="store_true", help="show the page in a browser, where there is a screen")
        if verb == "plan":
            one.add_argument(
                "--details", action="store_true", help="also every base, operations, and what methods hold"
            )
        if verb in ("report", "list", "give") or verb not in NO_CONFIGURATION:
            one.add_argument(
                "--config-dir",
                action="append",
                default=[],
                type=lambda text: Path(os.path.expanduser(text)),
                metavar="DIR",
                help="a folder with presets (DIR/method/mine.yaml) and modules of your own; repeatable",
            )
        argument = one.add_argument("overrides", nargs="*", metavar="key=value", help="see below")
        argument.completer = complete  # type: ignore[attr-defined]
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and exit: 0 all done, 1 some cell failed, 2 bad input, 130 interrupted."""
    with patient_streams():
        raise SystemExit(_code(arguments))


def _code(arguments: Sequence[str] | None) -> int:
    """Run the command for its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = _parser()
    import argcomplete

    argcomplete.autocomplete(parser)
    for flag in ("-m", "--multirun"):
        if flag in given:
            parser.error(
                f"{flag} is not needed: a list does that here, such as model=[resnet18,test_vit] seeds=[0,1,2]"
            )
    parsed, unknown = parser.parse_known_args(given)
    for text in unknown:
        if text.startswith("-"):
            meant = f"; settings are given as {text.lstrip('-')}" if "=" in text else ""
            parser.error(f"unknown option {text}{meant}")
    # argparse takes one stretch of key=value arguments and leaves those that follow an option
    parsed.overrides += unknown
    # Hydra's own syntax allows ~key and +key, which argparse takes as positional already.
    verbs = {
        "list": _list,
        "show": _show_configuration,
        "plan": _plan,
        "run": _run,
        "tune": _tune,
        "adopt": _adopt,
        "analyse": _analyse,
        "give": _give,
        "report": _report,
        "publish": _publish,
        "sync": _sync,
        "doctor": _doctor,
        "merge": _merge,
    }
    verb = verbs[parsed.verb]
    interrupt.goes_on_from(None)
    try:
        with interrupt.sigterm_too():
            return verb(parsed, " ".join(["traindyn", *map(shlex.quote, given)]))
    except (Exception, KeyboardInterrupt) as error:
        return _code_of(error, parsed.verb)


def _code_of(error: BaseException, verb: str) -> int:
    """The exit code of a command that ended with an error, which is said in one line; a fault of ours is raised."""
    if _was_interrupted(error):
        return interrupt.said(verb)
    from harness.storage.files import CorruptFile, is_disk_trouble
    from harness.storage.masking import masked_text

    if isinstance(error, ConfigError | CorruptFile):
        print(f"error: {seen(masked_text(str(error)))}", file=sys.stderr)
        return 2
    if not isinstance(error, OSError):
        raise error
    trouble = is_disk_trouble(error)
    goes_on = "; what is done stays, run the same command again when it can be written" if trouble else ""
    where = "" if error.filename is None else f": {error.filename}"
    print(f"error: {printable(masked_text(f'{error.strerror or reason(error)}{where}'))}{goes_on}", file=sys.stderr)
    return 1 if trouble else 2


def _was_interrupted(error: BaseException | None) -> bool:
    """Whether an error is an interrupt, or was raised on the way out of one: where a library cleans up after itself,
    such as Optuna with its lock, an interrupt can come to the surface as another error."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


@contextlib.contextmanager
def _saying(what: str) -> Iterator[Callable[[], None]]:
    """On a terminal, say at once what is going on, until the block ends or calls what it is given."""
    shown = sys.stderr.isatty()

    def clear() -> None:
        nonlocal shown
        if shown:
            print("\r\x1b[2K", end="", file=sys.stderr, flush=True)
        shown = False

    if shown:
        print(f"{what} ...", end="", file=sys.stderr, flush=True)
    try:
        yield clear
    finally:
        clear()


def _make_plan(parsed: argparse.Namespace, command: str) -> Plan:
    from harness.planning.compose import Request
    from harness.planning.plan import make_plan
    from harness.planning.resolve import resolve
    from harness.storage.store import Store

    compares = parsed.verb != "tune"
    experiment = resolve(Request(tuple(parsed.overrides), tuple(parsed.config_dir)), command, compares)
    if not compares:
        from harness.tune.command import tunable

        experiment = tunable(experiment)
    plan = make_plan(experiment, Store(Path(experiment.settings.results_dir)))
    if parsed.verb != "plan":
        plan.check_folders()
    return plan


def _say(console: Console, text: str) -> None:
    """One line or several: on a terminal wrapped at words, elsewhere each as it is."""
    console.print(text, highlight=False, soft_wrap=not console.is_terminal)


def _console() -> Console:
    from rich.console import Console

    class Plainly(Console):
        """Texts without characters that move the cursor or turn the direction of what is read."""

        def print(self, *objects: Any, **options: Any) -> None:
            super().print(*(seen(one) if isinstance(one, str) else one for one in objects), **options)

    # paths and names may hold [brackets] and :colons: of their own
    return Plainly(width=None if sys.stdout.isatty() else 120, markup=False, emoji=False)


def _list(parsed: argparse.Namespace, command: str) -> int:
    from harness.verbs.listing import listing

    words = [text for text in parsed.overrides if "=" not in text]
    given = [text for text in parsed.overrides if "=" in text]
    others = [text for text in given if not text.startswith("results_dir=")]
    if others:
        raise ConfigError(f"list takes what to list and results_dir= only, got {others[0]!r}")
    root = given[-1].partition("=")[2] if given else "results"
    for line in listing(words, parsed.config_dir, Path(os.path.expanduser(root))):
        print(line)
    return 0


def _show_configuration(parsed: argparse.Namespace, command: str) -> int:
    with _saying("composing"):
        from harness.planning.compose import Request
        from harness.verbs.show import suite_text

        text = suite_text(Request(tuple(parsed.overrides), tuple(parsed.config_dir)), command)
    print(text, end="")
    return 0


def _plan(parsed: argparse.Namespace, command: str) -> int:
    with _saying("planning"):
        from harness.planning.duration import duration
        from harness.planning.estimate import estimate
        from harness.planning.flops import work_left
        from harness.planning.summary import bases_table, cost_text, details_text, plan_table, plan_text

        plan = _make_plan(parsed, command)
        cost, work, time = estimate(plan), work_left(plan), duration(plan)
    console, settings = _console(), plan.experiment.settings

    _say_view(plan, console)
    _say(console, cost_text(plan, cost, time, work))
    _say(console, f"\nview {settings.view} in {settings.results_dir}")
    console.print(plan_table(plan))
    _say(console, f"\n{plan_text(plan, cost)}")
    _say(console, _power(plan))
    if parsed.details:
        console.print("", bases_table(plan), "")
        _say(console, details_text(plan, cost, work))
    return 0


def _say_view(plan: Plan, console: Console) -> None:
    """What a run of a plan makes of the view of its name, where that shows something else."""
    if plan.view_line is not None:
        console.print(plan.view_line, highlight=False, soft_wrap=True)


def _power(plan: Plan) -> str:
    """What the plan's comparisons can find."""
    from harness.report.stats.power import STD, earlier_std, smallest_difference

    statistics = plan.experiment.statistics
    added = {*plan.experiment.added}
    chosen_methods = [cell.method.name for _, cell in plan.cells if cell.method.name not in added]
    asked = statistics.comparisons(chosen_methods, plan.experiment.plain)
    rows: dict[tuple[str, ...], set[int]] = {}
    methods: dict[tuple[str, ...], set[str]] = {}
    for base in plan.bases:
        row = base.config.row
        rows.setdefault(row, set()).add(base.config.seed)
        methods.setdefault(row, set()).update(cell.method.name for cell in base.cells)
    chosen = {cell.method.name for _, cell in plan.cells}
    if not any({*pair} <= chosen for pair in asked):
        return "decides nothing: no primary comparison is among the chosen methods (statistics.primary)"
    # as the report counts them: the rows that have both methods, every row where none has
    tests = sum(sum({*pair} <= own for own in methods.values()) or len(rows) for pair in asked)
    std, suites = earlier_std(plan.store.root, {(model, data) for model, data, *_ in rows})
    known = f"the median over methods in {', '.join(suites)}" if suites else "which is assumed"
    models: dict[int, dict[str, None]] = {}
    for (model, *_), of_row in rows.items():
        models.setdefault(len(of_row), {})[model] = None
    parts, few = [], []
    for seeds, of in models.items():
        found = smallest_difference(seeds, std or STD, tests)
        where = f" ({', '.join(of)})" if len(models) > 1 else ""
        if found != found:
            few.append(f"{seeds} seed{'' if seeds == 1 else 's'}{where}")
        else:
            parts.append(f"differences of {found:.1f} points and more with {seeds} seeds{where}")
    untested = f"with {' and '.join(few)} nothing can be tested: seeds=[0,1,2] or more" if few else ""
    if not parts:
        return untested
    return (
        f"finds {', '.join(parts)}: {tests} comparisons, 4 times of 5, "
        f"where differences vary by {std or STD:.2g} points between seeds, {known}" + (f"; {untested}" if few else "")
    )


def _run(parsed: argparse.Namespace, command: str) -> int:
    with _saying("planning"):
        from harness.planning.estimate import check_room, estimate

        plan = _make_plan(parsed, command)
        from harness.storage.views import write_joined

        left = "left" in plan.statuses.values()
        cost = estimate(plan)
        if not cost.base_epochs + cost.branch_epochs + cost.shadow_epochs + cost.rederived_epochs:
            interrupt.goes_on_from("finished cell")
    console = _console()
    _say_view(plan, console)
    with interrupt.gently():
        if left:
            from harness.running.engine.local import warm_up
            from harness.tracking import check_environment

            check_environment(plan.experiment.settings.tracker)
            warm_up()
            plan = _with_data(plan, lambda: _make_plan(parsed, command), console)
            check_room(plan, estimate(plan))
            if plan.experiment.evaluate.is_own:
                from harness.running.own_trial import measured_names

                with _saying("trying the evaluation on the last snapshot"):
                    plan.measured = measured_names(plan)
        write_joined(plan.store, plan.as_record())
        if "left" in plan.statuses.values():
            return _execute(plan, tuple(str(folder.resolve()) for folder in parsed.config_dir), console)
    ended = Counter(plan.statuses.values())
    again = " (redo=failed runs those again)" if ended["failed"] else ""
    sums = ", ".join(f"{count} {status}" for status, count in ended.items())
    _say(console, f"nothing is left of this plan: {sums}{again}")
    with interrupt.gently():
        return _show(plan, console)


def _with_data(plan: Plan, again: Callable[[], Plan], console: Console) -> Plan:
    """The plan made `again`, once data and weights are here: data that is not what was declared has keys of its own."""
    from harness.problem.datasets import obtain

    pretrained = {repr(b.config.model): b.config for b in plan.bases if b.config.model.pretrained is not False}
    for config in pretrained.values():
        from harness.problem.models import obtain_weights

        if config.model.pretrained is True:
            _say(console, f"pretrained weights of {config.model.name}: looking for them")
        obtain_weights(config.model, config.dataset)
    datasets = {base.config.dataset.name: base.config.dataset for base in plan.bases if base.shows_images}
    messages = [message for message in (obtain(dataset) for dataset in datasets.values()) if message is not None]
    for message in messages:
        _say(console, message)
    plan = again() if messages else plan
    for note in plan.notes:
        _say(console, note)
    return plan


def _execute(plan: Plan, python_path: tuple[str, ...], console: Console) -> int:
    """Run what is left, followed by a tracker, and show the suite."""
    settings, root = plan.experiment.settings, plan.store.root
    with _saying("estimating the time it takes"):
        from harness.planning.duration import duration
        from harness.planning.estimate import estimate
        from harness.planning.summary import run_text

        time = duration(plan)
        text = run_text(plan, estimate(plan), time)
    with contextlib.ExitStack() as stack:
        with _saying("starting"):
            from harness.processes import METHOD
            from harness.publishing.tracking_process import TrackingProcess
            from harness.running.display import Display
            from harness.running.engine import open_engine
            from harness.running.event_files import EventFolder
            from harness.running.event_loop import no_notices
            from harness.running.origin import ask_origin
            from harness.running.scheduler import Scheduler, epochs_left
            from harness.tracking import tracks

            origin = ask_origin(plan.experiment.command, root)
            events = stack.enter_context(EventFolder(plan.store))
            engine = open_engine(settings.engine, plan.bases[0].config.device, events.path, plan.clients)
            ended = sum(status != "left" for status in plan.statuses.values())
            display = Display(console, ended, len(plan.statuses), epochs_left(plan), engine.slots, time.per_epoch)
            tracking = None
            if tracks(settings.tracker):
                tracking = TrackingProcess(settings.tracker, root, settings.view, METHOD, events.path)
        display.line(text)
        display.start()
        try:
            try:
                scheduler = Scheduler(plan, engine, display, python_path, events.tell, origin)
                scheduler.run(no_notices if tracking is None else tracking.lines)
            finally:
                display.stop()
                engine.close()
            code = _show(plan, console)
            for line in () if tracking is None else tracking.finish():
                _say(console, line)
        except BaseException:
            if tracking is not None:
                tracking.leave()
            raise
    return code


def _tune_rates(experiment: Experiment, parsed: argparse.Namespace, command: str) -> int:
    """Search the learning rates of bases, each a base of an ordinary run."""
    from harness.planning.estimate import check_room, estimate
    from harness.planning.plan import make_plan
    from harness.results.frame import load_frame
    from harness.running.engine.local import warm_up
    from harness.storage.store import Store
    from harness.storage.views import write_joined
    from harness.tune.rates import rates_table, search_rates, write_rates

    console, root = _console(), Path(experiment.settings.results_dir)

    def run(asked: Experiment) -> pd.DataFrame:
        plan = make_plan(asked, Store(root))
        plan.check_folders()
        if "left" in plan.statuses.values():
            warm_up()
            plan = _with_data(plan, lambda: make_plan(asked, Store(root)), console)
            check_room(plan, estimate(plan))
        write_joined(plan.store, plan.as_record())
        if "left" in plan.statuses.values():
            _execute(plan, tuple(str(folder.resolve()) for folder in parsed.config_dir), console)
        return load_frame(root, asked.settings.view)

    with interrupt.gently():
        tables = search_rates(experiment, run, _console_line())
    folder = root / "tuning" / experiment.settings.suite / "base"
    write_rates(folder, tables, command)
    console.print(rates_table(tables))
    _say(console, f"rates: {folder}")
    return 0 if all(table["best"].any() for table in tables) else 1


def _tune(parsed: argparse.Namespace, command: str) -> int:
    with _saying("planning"):
        from harness.planning.compose import Request
        from harness.planning.resolve import resolve
        from harness.tune.rates import BASE_ALONE

        experiment = resolve(Request(tuple(parsed.overrides), tuple(parsed.config_dir)), command, compares=False)
    if {method.name for _, methods in experiment.bases for method in methods} <= BASE_ALONE:
        return _tune_rates(experiment, parsed, command)
    with _saying("planning"):
        from harness.planning.estimate import check_room, estimate
        from harness.running.engine import open_engine
        from harness.running.engine.local import warm_up
        from harness.running.event_files import EventFolder
        from harness.tracking import check_environment

        plan = _make_plan(parsed, command)
        check_environment(plan.experiment.settings.tracker)
        warm_up()
        from harness.tune.command import tune
    console = _console()
    folders = tuple(parsed.config_dir)
    python_path = tuple(str(folder.resolve()) for folder in folders)
    with interrupt.gently():
        plan = _with_data(plan, lambda: _make_plan(parsed, command), console)
        check_room(plan, estimate(plan))
        if plan.experiment.evaluate.is_own:
            from harness.running.own_trial import measured_names

            with _saying("trying the evaluation on the last snapshot"):
                names, metric = measured_names(plan), plan.experiment.tune.metric
            if metric not in names:
                raise ConfigError(f"tune.metric must be among what is measured ({', '.join(names)}), got {metric}")
    with interrupt.gently(), EventFolder(plan.store) as events:
        settings = plan.experiment.settings
        engine = open_engine(settings.engine, plan.bases[0].config.device, events.path, plan.clients)
        with contextlib.closing(engine):
            return tune(plan, engine, events, console, folders, python_path)


def _show(plan: Plan, console: Console) -> int:
    """Write what the view of a plan shows, print the table, and name what is not as it should be."""
    with _saying("making tables"):
        from harness.report.tables.terminal import terminal_table
        from harness.report.views import write_views
        from harness.report.warnings import warnings

        store, view = plan.store, plan.experiment.settings.view
        frame = write_views(store, view)
    console.print(terminal_table(frame))
    for warning in warnings(frame, store.root):
        _say(console, warning)
    _say(console, f"tables and frame: {store.suite_folder(view)}")
    where = "" if store.root == Path("results").absolute() else f" results_dir={shlex.quote(str(store.root))}"
    _say(console, f"what it says, with figures and page: traindyn report name={view}{where}")
    asked = frame[frame["cell_key"].isin([cell.key for _, cell in plan.cells])]
    return 1 if (asked["status"] == "failed").any() else 0


def _report(parsed: argparse.Namespace, command: str) -> int:
    with _saying("making tables, figures and page") as done_saying:
        from harness.report.command import Options, make_report, open_page, sentences
        from harness.report.tables.terminal import printed_table, terminal_table
        from harness.report.warnings import warnings

        options, console = Options.of(parsed.overrides, parsed.config_dir), _console()

        def say(text: str) -> None:
            done_saying()
            _say(console, text)

        with interrupt.gently():
            report = make_report(options, say)
    frame = report.found.frame
    console.print(printed_table(report.tables) if report.tables else terminal_table(frame))
    notes = warnings(frame, options.root)
    for text in (*notes, *report.texts, sentences(report.found), f"report: {report.page}"):
        say(text)
    if parsed.open and not open_page(report.page):
        say("there is no screen to open it on")
    return 1 if (frame["status"] == "failed").any() else 0


def _publish(parsed: argparse.Namespace, command: str) -> int:
    from harness.arguments import PublishArguments, read_arguments

    given = read_arguments(PublishArguments, "publish", parsed.overrides)
    from harness.publishing.publish import publish

    with interrupt.gently():
        return publish(given, _console_line())


def _sync(parsed: argparse.Namespace, command: str) -> int:
    from harness.arguments import SyncArguments, read_arguments

    given = read_arguments(SyncArguments, "sync", parsed.overrides)
    from harness.publishing.sync import sync

    with interrupt.gently():
        return sync(given, _console_line())


def _adopt(parsed: argparse.Namespace, command: str) -> int:
    from harness.arguments import AdoptArguments, name_and_rest, read_arguments

    name, rest = name_and_rest("adopt", parsed.overrides)
    given = read_arguments(AdoptArguments, "adopt", rest)
    with _saying("reading checkpoints"):
        from harness.adopted.adopt import adopt

    with interrupt.gently():
        adopt(name, given, _console_line())
    return 0


def _analyse(parsed: argparse.Namespace, command: str) -> int:
    from harness.arguments import AnalyseArguments, name_and_rest, read_arguments

    name, rest = name_and_rest("analyse", parsed.overrides)
    given = read_arguments(AnalyseArguments, "analyse", rest)
    with _saying("reading snapshots"):
        from harness.adopted.analyse import analyse
    say = _console_line()
    with interrupt.gently():
        page = analyse(name, given, say)
    say(f"analysis: {page}")
    return 0


def _give(parsed: argparse.Namespace, command: str) -> int:
    from harness.arguments import GiveArguments, name_and_rest, read_arguments, values_of_method

    name, rest = name_and_rest("give", parsed.overrides)
    values, rest = values_of_method(rest)
    given = read_arguments(GiveArguments, "give", rest)
    with _saying("reading snapshots"):
        from harness.adopted.give import give_weights
        from harness.planning.methods import make_importable
    make_importable(parsed.config_dir)
    say = _console_line()
    with interrupt.gently():
        path = give_weights(name, given, values, parsed.config_dir, say)
    say(f"checkpoint: {path}")
    return 0


def _doctor(parsed: argparse.Namespace, command: str) -> int:
    from harness.arguments import DoctorArguments, read_arguments

    given = read_arguments(DoctorArguments, "doctor", parsed.overrides)
    from harness.upkeep.doctor import doctor

    with interrupt.gently():
        return doctor(Path(given.results_dir), given.repair, given.free, _console_line())


def _merge(parsed: argparse.Namespace, command: str) -> int:
    from harness.arguments import MergeArguments, read_arguments

    given = read_arguments(MergeArguments, "merge", parsed.overrides)
    from harness.upkeep.merge import merge

    with interrupt.gently():
        return merge(Path(given.results_dir), Path(given.other), _console_line())


def _console_line() -> Callable[[str], None]:
    console = _console()
    return lambda line: _say(console, line)
