"""Content keys: what a base or a cell is, as a hash of exactly the fields that change its numbers.

The lists below are explicit and versioned. A field added later is left out while it has its default, so that a
new option renames nothing.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import io
import json
import tokenize
from functools import cache
from pathlib import Path
from typing import Any

from harness.config import BaseConfig, EvaluateConfig, MethodConfig

VERSION = 1
NUMERIC_MODULES = ("session", "evaluate", "params", "randomness", "train", "problem")


def _plain(value: Any) -> Any:
    """Equal numbers hash alike: 1.0 as 1."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value


def _hash(fields: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(_plain(fields), sort_keys=True).encode()).hexdigest()[:20]


def base_key(base: BaseConfig, data_digest: str, pretrained_digest: str | None) -> str:
    """20 hex digits for a base."""
    model, dataset, optimizer = base.model, base.dataset, base.optimizer
    fields: dict[str, Any] = {
        "version": VERSION,
        "model": [model.timm, model.img_size, model.patch_size, model.in_chans, model.stem, model.drop_rate],
        "model_kwargs": model.kwargs,
        "pretrained": pretrained_digest,
        "data": [data_digest, dataset.channels, dataset.classes, dataset.image_size],
        "split": [dataset.split_seed, dataset.val_size, dataset.train_size],
        "normalisation": [dataset.mean, dataset.std],
        "augmentation": [dataset.crop_padding, dataset.flip],
        "optimizer": [optimizer.target, optimizer.params],
        "schedule": [optimizer.schedule.name, optimizer.schedule.warmup_epochs],
        "length": [base.epochs, base.batches_per_epoch, base.batch_size],
        "precision": [base.precision, base.compile, base.memory_format, base.device],
        "seed": base.seed,
    }
    if not base.deterministic:
        fields["deterministic"] = False
    if dataset.crop_scale != 1.0:
        fields["crop_scale"] = dataset.crop_scale
    if model.head_classes is not None:
        fields["head_classes"] = model.head_classes
    return _hash(fields)


def cell_key(base: str, method: MethodConfig, evaluate: EvaluateConfig, test_size: int | None, source: str) -> str:
    """20 hex digits for a cell of the base with key `base`; `source` is the digest of the method's source."""
    recalibrate = evaluate.recalibrate_images if method.batchnorm == "recalibrate" else None
    return _hash(
        {
            "version": VERSION,
            "base": base,
            "method": [method.name, method.target, method.params, method.batchnorm],
            "evaluate": [recalibrate, evaluate.batch_size, test_size],
            "source": source,
        }
    )


def stripped(source: str) -> str:
    """Python text without comments, docstrings, blank lines and trailing space: what can change a result.

    Text rather than a syntax tree, whose dump differs between Python versions.
    """
    lines = source.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    for node in ast.walk(ast.parse(source)):
        if not (
            isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        ):
            continue
        first, last = node.lineno - 1, node.end_lineno or node.lineno
        # ast counts columns in bytes; code that shares a line with the string stays, and the string with it
        before = lines[first].encode()[: node.col_offset]
        after = lines[last - 1].encode()[node.end_col_offset :]
        if not before.strip() and not after.strip():
            lines[first:last] = [""] * (last - first)
    return "\n".join(line.rstrip() for line in lines if line.strip())


def _imports(tree: ast.AST, module: str, is_package: bool) -> list[str]:
    """Names of modules that a module may import, relative ones resolved."""
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parent = node.module or ""
            if node.level:
                package = module.split(".") if is_package else module.split(".")[:-1]
                package = package[: len(package) - node.level + 1]
                parent = ".".join([*package, *([parent] if parent else [])])
            names += [parent, *(f"{parent}.{alias.name}" for alias in node.names)]
    return names


def _source_file(root: Path, inner: list[str]) -> Path | None:
    """The file of a module by its names below the folder `root`, found by path: importlib would import parents."""
    path = root.joinpath(*inner)
    for candidate in (path.with_name(f"{path.name}.py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


@cache
def source_digest(module: str) -> str:
    """Digest of a module's source and of all that it imports within its own top-level package.

    A top-level module that is a single file counts the single files beside it as its own package.
    `__init__.py` files are followed where something is imported from them, and left out themselves.
    """
    top = module.split(".")[0]
    spec = importlib.util.find_spec(top)
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        raise ModuleNotFoundError(f"no source found for module {module!r}")
    origin = Path(spec.origin)
    single = origin.name != "__init__.py"
    texts: dict[str, str] = {}
    queue, seen = [module], set()
    while queue:
        name = queue.pop()
        inner = name.split(".")
        if name in seen or (len(inner) > 1 if single else inner[0] != top):
            continue
        seen.add(name)
        path = _source_file(origin.parent, inner if single else inner[1:])
        if path is None:
            continue
        source = path.read_text()
        is_package = path.name == "__init__.py"
        if not is_package:
            texts[name] = stripped(source)
        queue += _imports(ast.parse(source), name, is_package)
    return hashlib.sha256(json.dumps(sorted(texts.items())).encode()).hexdigest()[:20]


@cache
def harness_digest() -> str:
    """Digest of the harness's modules that can change a number."""
    root = Path(__file__).parent
    paths = [
        p
        for name in NUMERIC_MODULES
        for p in ([root / f"{name}.py"] if (root / f"{name}.py").exists() else sorted((root / name).glob("*.py")))
    ]
    texts = [(str(p.relative_to(root)), stripped(p.read_text())) for p in paths]
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:20]
