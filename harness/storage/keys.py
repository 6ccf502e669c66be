"""Content keys: what a base or a cell is, as a hash of exactly the fields that change its numbers.

The lists below are explicit and versioned. A field added later is left out while it has its default, so that a
new option renames nothing. Where a source file lies is no part of a key: a source is digested by its text and by the
names that it imports from its own package, without its own path and the paths that these names come from.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import io
import json
import tokenize
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from harness.config import SCHEDULE_KEYS, BaseConfig, EvaluateConfig, FederationConfig, MethodConfig
from harness.storage.cache import remembered

VERSION = 1
NUMERIC_SOURCES = (
    "averaging.py",
    "federated/*.py",
    "randomness.py",
    "snapshots.py",
    "training/evaluate.py",
    "training/flat_model.py",
    "training/loop.py",
    "training/probe.py",
    "training/scores.py",
    "training/session.py",
    "problem/*.py",
)
"""below harness/: what can change a number of a base or a cell, beside the method's own source"""
SAME_NUMBERS = Path(__file__).with_name("same_numbers.json")
"""Sources that were shown to give the numbers of earlier ones to the last bit (`benchmarks/same_numbers.py`), by their
digests: the digest that keys and records of the earlier ones hold, and for a method the module that these name, if
any, with the parameters that it has had since then (`later`), which these leave out at the values given."""


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
    model, dataset, optimizer, schedule = base.model, base.dataset, base.optimizer, base.optimizer.schedule
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
        "schedule": ["none" if schedule.name == "constant" else schedule.name, schedule.warmup_epochs],
        "length": [base.epochs, base.batches_per_epoch, base.batch_size],
        "precision": [base.precision, base.compile, base.memory_format, base.device],
        "seed": base.seed,
    }
    if not base.deterministic:
        fields["deterministic"] = False
    if schedule.values and (schedule.name, schedule.values) != ("cosine", SCHEDULE_KEYS["cosine"]):
        fields["schedule_values"] = schedule.values
    if dataset.crop_scale != 1.0:
        fields["crop_scale"] = dataset.crop_scale
    if dataset.probe_size is not None:
        fields["probe_size"] = dataset.probe_size
    if dataset.label_noise != 0:
        fields["label_noise"] = dataset.label_noise
    if model.head_classes is not None:
        fields["head_classes"] = model.head_classes
    if base.federation.clients > 0:
        fields["federation"] = _federation(base.federation)
    return _hash(fields)


def _federation(federation: FederationConfig) -> dict[str, Any]:
    """What a federation changes numbers by; a round of all clients is one of that many."""
    of_partition = {"dirichlet": ("alpha", "least"), "shards": ("shards",), "iid": ()}[federation.partition]
    names = ("clients", "partition", *of_partition, "partition_seed", "local_epochs", "weighting", "optimizer_state")
    return {name: getattr(federation, name) for name in names} | {"per_round": federation.taking_part}


@cache
def _same_numbers() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = json.loads(SAME_NUMBERS.read_bytes())
    return found


def _class_name(target: str, source: str) -> str:
    """The name of a method's class, after the module that earlier keys name where they hold the digest `source`."""
    name = target.rpartition(".")[2]
    earlier = dict.fromkeys(entry["module"] for entry in _earlier(source) if entry["module"] is not None)
    return ".".join([*earlier, name])


def _earlier(source: str) -> list[dict[str, Any]]:
    """What is known of sources that have the digest `source` in earlier keys."""
    return [entry for entry in _same_numbers()["methods"].values() if entry["source"] == source]


def _without_later(params: dict[str, Any], source: str) -> dict[str, Any]:
    """Parameters as earlier keys with the digest `source` hold them: without those that came later, at the values by
    which nothing changed."""
    later: dict[str, Any] = {}
    for entry in _earlier(source):
        later |= entry.get("later", {})
    return {name: value for name, value in params.items() if name not in later or value != later[name]}


def cell_key(base: str, method: MethodConfig, evaluate: EvaluateConfig, test_size: int | None, source: str) -> str:
    """20 hex digits for a cell of the base with key `base`; `source` is the digest of the method's source."""
    recalibrate = evaluate.recalibrate_images if method.batchnorm == "recalibrate" else None
    return _hash(
        {
            "version": VERSION,
            "base": base,
            "method": [
                method.name,
                _class_name(method.target, source),
                _without_later(method.params, source),
                method.batchnorm,
            ],
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


def _source_file(root: Path, inner: list[str]) -> Path | None:
    """The file of a module by its names below the folder `root`, found by path: importlib would import parents."""
    path = root.joinpath(*inner)
    for candidate in (path.with_name(f"{path.name}.py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


class _Source(NamedTuple):
    """What one file says, without what cannot change a result."""

    digest: str
    imports: list[str]
    """names of all modules that it may import, relative ones resolved"""


def _read(path: Path, module: str, single: bool) -> _Source:
    """The source of a module, remembered where a file of this content was read before."""
    content = path.read_bytes()
    about = f"{module} {path.name == '__init__.py'} {single} "
    key = hashlib.sha256(about.encode() + content).hexdigest()

    def find() -> _Source:
        return _digested(content.decode(), module, path.name, single)

    return remembered("sources", key, find, plain=tuple, read=lambda stored: _Source(str(stored[0]), [*stored[1]]))


def _digested(source: str, module: str, file_name: str, single: bool) -> _Source:
    """The digest of a module's text, in which imports of its own package are reduced to the names that they bring."""
    top = module.split(".")[0]
    lines = source.splitlines()
    modules: list[str] = []
    brought: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        found, names = _imports(node, module, file_name == "__init__.py")
        modules += found
        if not single and found and all(name.split(".")[0] == top for name in found):
            brought += names
            lines[node.lineno - 1] = " " * node.col_offset + "pass"
            lines[node.lineno : node.end_lineno] = [""] * ((node.end_lineno or node.lineno) - node.lineno)
    kept = [line for line in stripped("\n".join(lines)).splitlines() if line.strip() != "pass"]
    text = "\n".join([*sorted(brought), *kept])
    return _Source(hashlib.sha256(text.encode()).hexdigest(), modules)


def _imports(node: ast.Import | ast.ImportFrom, module: str, is_package: bool) -> tuple[list[str], list[str]]:
    """The modules that a statement may import, relative ones resolved, and the names that it brings."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names], [f"{alias.name} as {alias.asname}" for alias in node.names]
    parent = node.module or ""
    if node.level:
        package = module.split(".") if is_package else module.split(".")[:-1]
        package = package[: len(package) - node.level + 1]
        parent = ".".join([*package, *([parent] if parent else [])])
    names = [f"{alias.name} as {alias.asname}" for alias in node.names]
    return [parent, *(f"{parent}.{alias.name}" for alias in node.names)], names


def _content_digest(digests: Iterable[str]) -> str:
    """Of sources by their digests, in whatever files they are."""
    return hashlib.sha256(json.dumps(sorted(digests)).encode()).hexdigest()[:20]


@cache
def source_digest(module: str) -> str:
    """Digest of a module's source and of all that it imports within its own top-level package.

    A top-level module that is a single file counts the single files beside it as its own package.
    `__init__.py` files are followed where something is imported from them, and left out themselves. Sources that are
    known to give the numbers of earlier ones have the digest of these.
    """
    digest = content_digest(module)
    return str(_same_numbers()["methods"].get(digest, {}).get("source", digest))


def content_digest(module: str) -> str:
    """As `source_digest`, whatever numbers the sources are known to give."""
    top = module.split(".")[0]
    spec = importlib.util.find_spec(top)
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        raise ModuleNotFoundError(f"no source found for module {module!r}")
    origin = Path(spec.origin)
    single = origin.name != "__init__.py"
    digests, queue, seen = [], [module], set()
    while queue:
        name = queue.pop()
        inner = name.split(".")
        if name in seen or (len(inner) > 1 if single else inner[0] != top):
            continue
        seen.add(name)
        path = _source_file(origin.parent, inner if single else inner[1:])
        if path is None:
            continue
        source = _read(path, name, single)
        if path.name != "__init__.py":
            digests.append(source.digest)
        queue += source.imports
    return _content_digest(digests)


@cache
def harness_digest() -> str:
    """Digest of the harness's sources that can change a number, or of those whose numbers they are known to give."""
    digest = harness_content_digest()
    return str(_same_numbers()["harness"].get(digest, digest))


def harness_content_digest() -> str:
    """As `harness_digest`, whatever numbers the sources are known to give."""
    root = Path(__file__).parents[1]
    paths = [path for pattern in NUMERIC_SOURCES for path in sorted(root.glob(pattern))]
    names = (".".join(["harness", *path.relative_to(root).with_suffix("").parts]) for path in paths)
    return _content_digest(_read(path, name, single=False).digest for path, name in zip(paths, names, strict=True))
