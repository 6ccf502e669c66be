"""Norms with running statistics: those of a model that can be recalibrated, and whatever else training changes in it.

torch's norms and timm's EvoNorm-B keep an exponential average whose step is their `momentum`, so that they can be made
to average anything. Buffers that a forward pass in training changes and that belong to no such norm cannot be reset:
nothing says what they hold.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def _evonorms() -> tuple[type[nn.Module], ...]:
    # timm takes seconds to import, and where there are models it is imported anyway
    from timm.layers.evo_norm import EvoNorm2dB0, EvoNorm2dB1, EvoNorm2dB2

    return EvoNorm2dB0, EvoNorm2dB1, EvoNorm2dB2


def running_norms(model: nn.Module) -> list[Any]:
    """The modules whose running statistics `reset_statistics` resets and whose `momentum` weighs the next batch."""
    torchs = [m for m in model.modules() if isinstance(m, _NormBase) and m.running_mean is not None]
    return torchs + [m for m in model.modules() if isinstance(m, _evonorms())]


def reset_statistics(norm: Any) -> None:
    """Running statistics as a fresh norm has them."""
    if isinstance(norm, _NormBase):
        norm.reset_running_stats()
    else:
        norm.running_var.fill_(1)


class ChangedBuffers(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Finds, while it is entered, the buffers of a model that are written to, also on the meta device."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.model = model
        self._before = dict(model.named_buffers())
        self._storages = {name: buffer.untyped_storage()._cdata for name, buffer in self._before.items()}
        self._written: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, arguments = kwargs or {}, func._schema.arguments
        given = dict(zip([argument.name for argument in arguments], args, strict=False)) | kwargs
        written = [a.name for a in arguments if a.alias_info is not None and a.alias_info.is_write]
        if "batch_norm" in str(func) and given.get("training", given.get("train", True)):
            written += ["running_mean", "running_var"]  # which torch declares as written to in some versions of it only
        leaves = tree_leaves([given.get(name) for name in written])
        self._written.update(leaf.untyped_storage()._cdata for leaf in leaves if isinstance(leaf, Tensor))
        return func(*args, **kwargs)

    def found(self) -> Iterator[str]:
        """The floating-point buffers written to or replaced, by name."""
        for name, buffer in self.model.named_buffers():
            same = buffer is self._before.get(name) and buffer.untyped_storage()._cdata == self._storages[name]
            if buffer.is_floating_point() and (not same or self._storages[name] in self._written):
                yield name


def not_recalibrated(model: nn.Module, changed: ChangedBuffers) -> str | None:
    """The first module with a buffer that training changes and recalibration cannot: `norm1 (RunningRMS)`."""
    known = {id(buffer) for norm in running_norms(model) for buffer in norm.buffers(recurse=False)}
    for name in changed.found():
        if id(model.get_buffer(name)) not in known:
            owner = name.rpartition(".")[0]
            return f"{owner or 'the model'} ({type(model.get_submodule(owner)).__name__})"
    return None
