"""Best settings as files, and `tuned=true`: a base's own best settings as the parameters of its methods."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml
from omegaconf import OmegaConf
from pydantic import Field, JsonValue

from harness.config import Epochs, Seed, Settings, Text, TuneConfig
from harness.planning.compose import NO_SUITE, KeyPath, Values, overlay, parsed_yaml
from harness.planning.experiment import Entry
from harness.storage.files import CorruptFile, read_bytes, write_bytes
from harness.storage.inside import is_file
from harness.storage.masking import masked, masked_text
from harness.validation import ConfigError, printable, reason, validated


def search_folder(results_dir: Path, suite: str, method: str, problem: str, name: str | None) -> Path:
    """Where a search on `problem`, an entry's or a base's, keeps its study, trials, figures and best.yaml."""
    return results_dir / "tuning" / suite / method / (problem if name is None else f"{problem}.{name}")


def write_best(path: Path, best: dict[str, Any], comment: str) -> None:
    """Best settings with a line on where they come from."""
    write_bytes(path, f"# {masked_text(printable(comment))}\n{OmegaConf.to_yaml(masked(best))}".encode())


MOST_BYTES = 100_000
"""of a best.yaml"""
BEST = {
    "parameters": dict[str, JsonValue],
    "seeds": Annotated[list[Seed], Field(min_length=1)],
    "epochs": Epochs,
    "budget": Text,
}
"""what `tuned=true` reads of a best.yaml; the rest is for people"""


def read_best(path: Path) -> Values:
    """A file from `write_best`; ConfigError where it is not one. Parameters are checked as part of their preset."""
    try:
        best = parsed_yaml(path, _plain_yaml(read_bytes(path, MOST_BYTES)))
        for name, kind in BEST.items():
            if name not in best:
                raise ConfigError(f"{name} must be given")
            validated(name, kind, best[name])
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} must hold best settings: {reason(error)}; traindyn tune writes it anew") from error
    return best


def _plain_yaml(data: bytes) -> str:
    """A YAML text without tags and anchors, which `write_best` never writes; CorruptFile or ValueError otherwise."""
    text = data.decode()
    for token in yaml.scan(text, Loader=yaml.SafeLoader):
        if isinstance(token, yaml.TagToken | yaml.AnchorToken | yaml.AliasToken):
            raise CorruptFile(f"no tags and anchors, got one in line {token.start_mark.line + 1}")
    return text


def overlay_tuned(
    entries: Sequence[Entry],
    settings: Settings,
    tune: TuneConfig,
    overridden: set[KeyPath],
    added: Collection[str] = (),
) -> list[str]:
    """Lay each base's best settings over its methods in place, and give it seeds that were not tuned on.

    Returns what a reader must know, one line each. ConfigError where a method that can be tuned has no best settings
    there, but for controls that were `added`, or where the command line names a seed that was tuned on.
    """
    seeds: set[int] = set()
    budgets: dict[str, list[str]] = {}
    lengths: dict[tuple[int, int], list[str]] = {}
    lacking: dict[str, tuple[Entry, list[str]]] = {}
    for entry in entries:
        problem, values = entry.problem, entry.values
        for name, preset in values["method"].items():
            if not preset.get("search") or name in added:
                continue
            path = search_folder(Path(settings.results_dir), settings.suite, name, problem, tune.name) / "best.yaml"
            if not is_file(path):
                lacking.setdefault(problem, (entry, []))[1].append(name)
                continue
            best = read_best(path)
            overlay(preset, best["parameters"], overridden, ("method", name))
            seeds.update(best["seeds"])
            budgets.setdefault(str(best["budget"]), []).append(name)
            if best["epochs"] != values["epochs"]:
                lengths.setdefault((best["epochs"], values["epochs"]), []).append(f"{name} on {problem}")
    if lacking:
        problem, (entry, names) = next(iter(lacking.items()))
        named = {group: name for group, name in entry.names.items() if group != "federation" or entry.clients}
        of = " ".join(f"{group}={name}" for group, name in named.items())
        what = of if settings.suite == NO_SUITE else f"suite={settings.suite} {of}"
        raise ConfigError(
            f"tuned must find best settings of every method with a search space, got none of {', '.join(names)} on "
            f"{problem}; traindyn tune {what} method=[{','.join(names)}] makes them, with the "
            "settings that this run is given"
        )
    for entry in entries:
        values = entry.values
        values["seeds"] = fresh_seeds(values["seeds"], seeds, ("seeds",) in overridden)
    return [*_budget_lines(budgets, seeds), *_length_lines(lengths)]


def fresh_seeds(asked: list[int], tuned: set[int], overridden: bool) -> list[int]:
    """Seeds that were tuned on replaced by the next whole numbers; ConfigError where the command line names one."""
    taken = [seed for seed in asked if seed in tuned]
    if overridden and taken:
        raise ConfigError(f"seeds must not be among those tuned on ({_listed(tuned)}), got {taken[0]}")
    free = (seed for seed in range(max([*asked, *tuned], default=0) + len(taken) + 1) if seed not in {*asked, *tuned})
    return [next(free) if seed in tuned else seed for seed in asked]


def _listed(seeds: set[int]) -> str:
    return ", ".join(map(str, sorted(seeds)))


def _budget_lines(budgets: dict[str, list[str]], seeds: set[int]) -> list[str]:
    """What the settings were given: a comparison is fair where all methods had the same."""
    if not budgets:
        return ["tuned: no chosen method has a search space"]
    if len(budgets) == 1:
        return [f"tuned: every method had {next(iter(budgets))} on seeds {_listed(seeds)}"]
    parts = (f"{budget} for {', '.join(dict.fromkeys(names))}" for budget, names in budgets.items())
    return [f"tuned on seeds {_listed(seeds)} with different budgets: {'; '.join(parts)}"]


def _length_lines(lengths: dict[tuple[int, int], list[str]]) -> list[str]:
    return [f"tuned in {then} epochs, run in {now}: {', '.join(names)}" for (then, now), names in lengths.items()]
