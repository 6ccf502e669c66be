"""What can be wrong with somebody's checkpoints. None of these ever leads to a file being set aside: it is theirs."""

from __future__ import annotations

from harness.validation import ConfigError


class Unreadable(ConfigError):
    """A file that is no checkpoint, or a damaged one."""


class NoWeights(Unreadable):
    """A readable file without the weights of a model, such as the state of an optimizer."""


class SourceChanged(ConfigError):
    """A checkpoint that is not what it was when it was adopted."""
