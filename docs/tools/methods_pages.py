"""A page per method of conf/method, and one that lists them: from docstrings, YAML, notes and published results.

`docs/methods.yaml` holds what neither a docstring nor a preset says well: the formula, and when a method helps. A
method without notes there has its page all the same.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
from pathlib import Path
from typing import Any

import yaml
from presets import Preset, group
from prose import as_markdown, table
from results_tables import of_method

from harness.method import Method
from harness.planning.methods import RESERVED
from harness.report.method_styles import FAMILIES, style_of

NOTES = Path(__file__).parents[1] / "methods.yaml"
KINDS = {
    "observer": "observer: it watches a base as it trains",
    "reconstruction": "reconstruction: it reads the recorded weights of the whole run",
    "brancher": "branch: it leaves a base and trains on its own",
}


def methods_pages() -> dict[str, str]:
    """All pages by their paths, the list first, then by family as figures and tables have them."""
    found = group("method")
    notes = yaml.safe_load(NOTES.read_text(encoding="utf-8"))
    unknown = sorted(set(notes) - set(found))
    assert not unknown, f"docs/methods.yaml has notes on methods that conf/method lacks: {unknown}"
    order = sorted(found, key=lambda name: (FAMILIES.index(style_of(name).family), _place(name), name))
    pages = {f"methods/{name}.md": _page(found[name], notes.get(name, {})) for name in order}
    return {"methods/index.md": _list([found[name] for name in order]), **pages}


def _place(name: str) -> int:
    from harness.report.method_styles import KNOWN

    return list(KNOWN).index(name) if name in KNOWN else len(KNOWN)


def _class(preset: Preset) -> type[Method]:
    module, _, name = preset.values["_target_"].rpartition(".")
    found: type[Method] = getattr(importlib.import_module(module), name)
    return found


def _list(presets: list[Preset]) -> str:
    text = [
        "# Methods",
        "",
        "Every method is a file of `baselines/` and a preset of `conf/method/`. Name presets with "
        "`method=[ema,cmd_online]`, or take `method=all`. `traindyn list methods` prints this list.",
        "",
        "An *observer* watches a training run, a *reconstruction* reads its recorded weights afterwards, a *branch* "
        "leaves it and trains on its own. The *control* is the method that a method is compared with beside "
        "[`base_recalibrated`](base_recalibrated.md): it lacks what the method claims to add.",
        "",
        "Notation on these pages: $w(t)$ are all trainable weights after epoch $t$, $w(0)$ the initial ones, "
        "$\\hat w$ the weights that a method stands for, $E$ the number of epochs, $T$ the number of snapshots, "
        "and a bar is a mean over the snapshots.",
        "",
        "Averages of epochs and models that are linear in them have a *kernel*: the coefficients with which they "
        "combine the snapshots. They give it as a table `kernel`, with its age (`kernel_age`, how many epochs it lies "
        "behind the last snapshot) and its effective number of snapshots (`kernel_n_eff`). Methods with one kernel are "
        "one method.",
        "",
    ]
    for family in FAMILIES:
        own = [preset for preset in presets if style_of(preset.name).family == family]
        if not own:
            continue
        rows = []
        for preset in own:
            control = preset.values.get("control")
            rows.append(
                [
                    f"[`{preset.name}`]({preset.name}.md)",
                    _class(preset).kind.replace("brancher", "branch"),
                    as_markdown(_sentence(preset.purpose)),
                    f"[`{control}`]({control}.md)" if control else "",
                ]
            )
        text += [
            f"## {family[0].upper()}{family[1:]}",
            "",
            table(["preset", "kind", "what it is", "control"], rows),
            "",
        ]
    text += [
        "Shares of weights, such as `trainable_fraction` and embedded CMD's `percent`, are shares of the weights that "
        "move: those that ever had a gradient. In a model that is too deep for its images that may be half of all.",
        "",
        "To add one, see [Add a method](../add/method.md).",
    ]
    return "\n".join(text)


def _sentence(text: str) -> str:
    return f"{text.rstrip('.')}."


def _page(preset: Preset, notes: dict[str, Any]) -> str:
    method = _class(preset)
    control = preset.values.get("control")
    facts = [
        ["kind", KINDS[method.kind]],
        ["class", f"[`{preset.values['_target_']}`][{preset.values['_target_']}]"],
        ["control", f"[`{control}`]({control}.md)" if control else "none beside `base_recalibrated`"],
        ["BatchNorm", f"`{preset.values.get('batchnorm', 'recalibrate')}`"],
    ]
    text = [f"# {style_of(preset.name).label}", "", as_markdown(_sentence(preset.purpose)), ""]
    if "formula" in notes:
        text += ["$$", notes["formula"].strip(), "$$", ""]
    if "says" in notes:
        text += [notes["says"].strip(), ""]
    text += [table([f"`method={preset.name}`", ""], facts), ""]
    if "helps" in notes:
        text += ["## When it helps", "", notes["helps"].strip(), ""]
    text += ["## What it does", "", as_markdown(_without_shapes(inspect.getdoc(inspect.getmodule(method)) or "")), ""]
    if own := inspect.cleandoc(method.__doc__ or ""):
        text += [as_markdown(own), ""]
    text += ["## Parameters", "", _parameters(preset, method), ""]
    if results := of_method(preset.name):
        text += ["## In published results", "", results, ""]
    return "\n".join(text)


def _without_shapes(text: str) -> str:
    """A module's docstring without its legend of shape suffixes, which the code needs."""
    return "\n\n".join(part for part in text.split("\n\n") if not part.startswith("Shape suffix"))


def _parameters(preset: Preset, method: type[Method]) -> str:
    types = (
        {field.name: _type(field.type) for field in dataclasses.fields(method)}
        if dataclasses.is_dataclass(method)
        else {}
    )
    given = {name: value for name, value in preset.values.items() if name not in RESERVED}
    if not given:
        return "It has none.\n"
    search, fast = preset.values.get("search") or {}, preset.values.get("fast") or {}
    rows = [
        [
            f"`{name}`",
            f"`{_yaml(value)}`",
            types.get(name, ""),
            as_markdown(preset.comments.get(name, "")),
            _space(search[name]) if name in search else "",
            f"`{_yaml(fast[name])}`" if name in fast else "",
        ]
        for name, value in given.items()
    ]
    text = table(["parameter", "default", "type", "meaning", "searched by `tune`", "with `fast=true`"], rows)
    lengths = preset.values.get("lengths")
    if lengths:
        names = ", ".join(f"`{name}`" for name in lengths)
        text += f"\n{names}: whole numbers, or below 1 a share of the epochs.\n"
    return f"{text}\nSet one with `method.{preset.name}.{next(iter(given))}=...`.\n"


def _type(annotation: Any) -> str:
    text = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))
    tree = ast.parse(text, mode="eval").body
    return " or ".join(f"`{one}`" for one in ast.unparse(tree).split(" | "))  # a bar would end the table's cell


def _yaml(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("\n").removesuffix("\n...")


def _space(entry: dict[str, Any]) -> str:
    if entry["type"] == "categorical":
        return " or ".join(f"`{_yaml(choice)}`" for choice in entry["choices"])
    return f"{entry['low']:g} to {entry['high']:g}" + (", logarithmic" if entry.get("log") else "")
