"""The reference of the public API: what `harness` exports, the contract, and every module of `baselines`."""

from __future__ import annotations

import ast
from pathlib import Path

import harness

ROOT = Path(__file__).parents[2]
OF_HARNESS = {
    "harness.method": "The contract between the harness and a method.",
    "harness.snapshots": "A model's weights as one vector, and trajectories of such vectors.",
    "harness.weights": "Weights put into a model, for good or for a while, and statistics made to fit them.",
    "harness.live": "Snapshots of a training of your own, and any observer of ours in it.",
    "harness.live.lightning": "Callbacks of Lightning.",
    "harness.live.trainer": "Callbacks of Hugging Face's Trainer.",
    "harness.conformance": "What holds a method of yours to the contract.",
    "harness.report.stats.power": "What a comparison can find.",
}
FEW = {
    "cmd": ("posthoc", "online", "embedded", "reference"),
    "dmd": ("decomposition", "dynamics", "rank"),
}
"""the modules of packages of `baselines` that have public classes, where not all have"""


def api_pages() -> dict[str, str]:
    """Pages by their paths, the list first."""
    pages = {"api/harness.md": _harness()}
    for module, purpose in OF_HARNESS.items():
        pages[f"api/{module}.md"] = (
            f"# {module}\n\n{purpose}\n\n::: {module}\n    options: {{show_root_heading: false}}\n"
        )
    for folder in sorted(path.parent for path in (ROOT / "baselines").glob("*/__init__.py")):
        modules = [path.stem for path in sorted(folder.glob("*.py")) if _classes(path)]
        chosen = [name for name in FEW[folder.name] if name in modules] if folder.name in FEW else modules
        title = (ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))) or "").split(
            "\n\n"
        )[0]
        blocks = [f"::: baselines.{folder.name}.{name}" for name in chosen]
        pages[f"api/baselines.{folder.name}.md"] = "\n\n".join([f"# baselines.{folder.name}", title, *blocks])
    for path in sorted((ROOT / "baselines").glob("*.py")):
        if path.stem != "__init__" and _classes(path):
            pages[f"api/baselines.{path.stem}.md"] = f"# baselines.{path.stem}\n\n::: baselines.{path.stem}\n"
    return {"api/index.md": _index(list(pages)), **pages}


def _classes(path: Path) -> list[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [node.name for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]


def _harness() -> str:
    text = [
        "# harness",
        "",
        "Results as DataFrames and models. These three names are all that the package itself exports.",
        "",
    ]
    for name in harness.__all__:
        text += [f"::: {getattr(harness, name).__module__}.{name}", ""]
    return "\n".join(text)


def _index(pages: list[str]) -> str:
    lines = "\n".join(f"- [`{Path(page).name.removesuffix('.md')}`]({Path(page).name})" for page in pages)
    return f"""# API

What stands here is public: it changes with a line in the [changelog](../changelog.md) alone. Everything else in
`harness` is internal. `baselines` needs nothing of the harness but `harness.method`, `harness.snapshots` and
`harness.weights`, which need torch and numpy alone.

Arrays carry their shape in their name: `theta_N` has shape (N,), `snapshots_TN` (T, N). N are weights, T snapshots,
K sampled weights, M modes, D dimensions of a subspace, B a block or a mini-batch.

{lines}
"""
