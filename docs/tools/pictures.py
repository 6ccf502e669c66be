"""The pictures of README.md and of these pages, light and dark, from published results.

    python docs/tools/pictures.py [--out docs/pictures]

`quick` shows curves of validation accuracy and the differences at the end, `idea` how one training run serves many
methods. A picture of results holds the digest of what it was drawn from, so that a test says when results were
published anew and the picture was not drawn again.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from harness.report.method_styles import style_of  # noqa: E402

FIGURES = ROOT / "results" / "published" / "quick" / "figures"
ROWS = {
    "constant rate": "test_resnet-fashion_mnist-sgd_momentum",
    "annealed rate (cosine to 0)": "test_resnet-fashion_mnist-sgd_momentum_cosine",
}
PLAIN = "base_recalibrated"
IN_CURVES = (PLAIN, "ema", "time_mean", "pca2", "cmd_posthoc", "cmd_online")
COMPARED = ("pca2", "cooldown", "cmd_posthoc", "ema", "swa", "cmd_online", "cmd_mean_kernel", "time_mean")
STYLE = {
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.labelsize": 9,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.fontsize": 8.5,
    "axes.linewidth": 0.7,
    "svg.fonttype": "path",
    "svg.hashsalt": "traindyn",
}


@dataclass(frozen=True)
class Look:
    """Colours of a page that a picture stands on."""

    name: str
    ink: str
    paper: str
    faint: str

    def colour(self, method: str) -> str:
        """A method's colour, lightened where the page is dark."""
        red, green, blue = to_rgb(style_of(method).colour)
        if self.name == "dark":
            light = 0.3 * red + 0.59 * green + 0.11 * blue
            part = max(0.0, 0.62 - light)
            red, green, blue = (value + (1 - value) * part for value in (red, green, blue))
        return to_hex((red, green, blue))


LIGHT, DARK = Look("light", "#1f2328", "#ffffff", "#d8dee4"), Look("dark", "#e6edf3", "#0d1117", "#30363d")


def sources() -> list[Path]:
    """The files that `quick` is drawn from."""
    return [FIGURES / f"{row}-{kind}.csv" for row in ROWS.values() for kind in ("curves", "differences")]


def digest() -> str:
    """Of the files that `quick` is drawn from."""
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources())).hexdigest()


def digest_in(picture: Path) -> str | None:
    """The digest that a picture holds."""
    found = re.search(r"drawn from ([0-9a-f]{64})", picture.read_text(encoding="utf-8"))
    return None if found is None else found[1]


def draw_quick(look: Look) -> Figure:
    """Curves over the evaluated epochs above, differences to plain training at the end below; a column per rate."""
    colours = {
        **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color", "axes.edgecolor"), look.ink),
        "figure.facecolor": look.paper,
        "axes.facecolor": look.paper,
    }
    with mpl.rc_context({**STYLE, **colours}):
        figure = Figure(figsize=(7, 5.6), layout="constrained")
        grid = figure.subplots(2, 2, sharey="row", height_ratios=(1.05, 1))
        for column, (title, row) in enumerate(ROWS.items()):
            _draw_curves(grid[0, column], pd.read_csv(FIGURES / f"{row}-curves.csv"), look)
            grid[0, column].set_title(title)
            table = pd.read_csv(FIGURES / f"{row}-differences.csv")
            _draw_differences(grid[1, column], table[table["panel"] == PLAIN], look)
        grid[0, 0].set_ylabel("validation accuracy (%)")
        handles, labels = grid[0, 0].get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="outside upper center", ncols=6, frameon=False, handlelength=1.6, columnspacing=1
        )
        figure.draw_without_rendering()
    return figure


def _draw_curves(axes: Axes, table: pd.DataFrame, look: Look) -> None:
    for method in IN_CURVES:
        own, style = table[table["method"] == method], style_of(method)
        mean, std = own["val_accuracy_mean"].to_numpy(), own["val_accuracy_std"].fillna(0).to_numpy()
        known = np.isfinite(mean)
        epoch, mean, std = own["epoch"].to_numpy()[known], mean[known], std[known]
        colour = look.colour(method)
        marks = {"marker": style.point, "ms": 5} if len(epoch) <= 12 else {}
        axes.plot(epoch, mean, color=colour, label=style.label, zorder=3, lw=1.6, ls=style.line, **marks)
        if len(epoch) > 1:
            axes.fill_between(epoch, mean - std, mean + std, color=colour, alpha=0.1, lw=0)
    evaluated = sorted(set(table["epoch"]))
    if len(evaluated) <= 4:
        axes.set_xticks(evaluated)
    axes.set_xlabel("epoch")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=look.faint, lw=0.5)
    axes.set_axisbelow(True)


def _draw_differences(axes: Axes, table: pd.DataFrame, look: Look) -> None:
    for place, method in enumerate(reversed(COMPARED)):
        own, colour = table[table["method"] == method], look.colour(method)
        if own.empty:
            continue
        first = own.iloc[0]
        axes.plot([first["low"], first["high"]], [place, place], color=colour, lw=2, solid_capstyle="butt")
        axes.plot(own["difference"], [place - 0.26] * len(own), ".", color=colour, ms=3.5, alpha=0.8)
        filled = first["verdict"] in ("better", "worse", "equivalent")
        axes.plot(
            first["mean"], place, marker="o", ms=6, color=colour, markerfacecolor=colour if filled else look.paper, lw=0
        )
    axes.axvline(0, color=look.ink, lw=0.8, ls="--")
    axes.set_yticks(range(len(COMPARED)), [style_of(method).label for method in reversed(COMPARED)])
    axes.set_xlim(-3.6, 2.6)
    axes.set_xlabel("test accuracy, points above the plain run")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=look.faint, lw=0.5)
    axes.set_axisbelow(True)


def idea(look: Look) -> str:
    """How one training run serves many methods, as SVG."""
    accent, second, third = (look.colour(method) for method in ("cmd_online", "ema", "p_sgd"))
    box = f'fill="none" stroke="{look.ink}" stroke-width="1.2" rx="5"'
    places = range(120, 521, 80)
    names = ("w(0)", "w(1)", "w(2)", "w(3)", "…", "w(E)")
    dots = "".join(f'<circle cx="{x}" cy="106" r="4.5" fill="{look.ink}"/>' for x in places)
    marks = "".join(f'<text x="{x}" y="92" text-anchor="middle">{n}</text>' for x, n in zip(places, names, strict=True))
    drops = "".join(_arrow(f"M{x} 113 V162", second, ' stroke-dasharray="3 3"') for x in places)
    arrows = "".join(
        _arrow(path, look.ink) for path in ("M207 194 V234", "M433 194 V234", "M528 106 H576", "M538 256 H576")
    )
    lines = "".join(
        f'<text x="{x}" y="{y}" font-weight="600">{title}</text>'
        f'<text x="{x}" y="{y + 17}" font-size="11.5">{text}</text>'
        for x, y, title, text in (
            (14, 34, "branch", "trains on"),
            (14, 102, "base", "trained once"),
            (14, 176, "snapshots", "recorded"),
            (14, 250, "replay", "no training"),
        )
    )
    cell = "".join(
        f'<text x="633" y="{y}" text-anchor="middle" font-size="11.5">{text}</text>'
        for y, text in ((112, "recalibrate"), (130, "BatchNorm,"), (148, "evaluate,"), (166, "one record"),
                        (202, "tables, page,"), (220, "W&amp;B"))
    )  # fmt: skip
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 700 292" width="700" height="292"
 font-family="system-ui, sans-serif" font-size="13" fill="{look.ink}" role="img">
<title>One training run serves many methods</title>
<defs><marker id="a" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">
<path d="M0 0 L8 4 L0 8 z" fill="{look.ink}"/></marker></defs>
<rect width="700" height="292" fill="{look.paper}"/>
{lines}
<path d="M120 106 H520" stroke="{look.ink}" stroke-width="2" fill="none"/>{dots}{marks}
{_arrow("M366 103 C400 97 380 44 414 42 H576", third)}
<text x="120" y="40">embedded CMD, cooldown, P-BFGS</text>
<text x="120" y="56" font-size="11.5">from the exact state of the base</text>
<rect x="104" y="164" width="432" height="30" {box}/>
<text x="320" y="184" text-anchor="middle">all weights after every epoch</text>{drops}
<rect x="104" y="236" width="206" height="40" {box} style="stroke:{second}"/>
<text x="207" y="253" text-anchor="middle">observers</text>
<text x="207" y="269" text-anchor="middle" font-size="11.5">SWA, LAWA, online CMD</text>
<rect x="330" y="236" width="206" height="40" {box} style="stroke:{accent}"/>
<text x="433" y="253" text-anchor="middle">reconstructions</text>
<text x="433" y="269" text-anchor="middle" font-size="11.5">post-hoc CMD, PCA, clock</text>
<rect x="578" y="20" width="110" height="256" {box}/>
<text x="633" y="84" text-anchor="middle" font-weight="600">cell</text>{cell}{arrows}
</svg>
"""


def _arrow(path: str, colour: str, more: str = "") -> str:
    return f'<path d="{path}" stroke="{colour}" stroke-width="1.3" fill="none" marker-end="url(#a)"{more}/>'


def draw(out: Path) -> None:
    """Draw every picture into a folder."""
    out.mkdir(parents=True, exist_ok=True)
    for look in (LIGHT, DARK):
        metadata = {"Date": None, "Description": f"drawn from {digest()}", "Title": "traindyn: suite quick"}
        draw_quick(look).savefig(out / f"quick-{look.name}.svg", metadata=metadata)
        (out / f"idea-{look.name}.svg").write_text(idea(look), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "pictures")
    draw(parser.parse_args().out)
