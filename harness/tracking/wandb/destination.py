"""Where W&B runs go: online, offline or nowhere, from configuration and what W&B itself would read."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from harness.config import TrackerConfig, WandbName
from harness.storage.masking import masked_text
from harness.tracking.tracker import fitting_tags
from harness.validation import ConfigError, validated

if TYPE_CHECKING:
    import wandb

Mode = Literal["online", "offline", "disabled"]

PROJECT = "traindyn"
OF_A_RUN = (
    "RUN_ID",
    "NAME",
    "RUN_GROUP",
    "JOB_TYPE",
    "NOTES",
    "TAGS",
    "RESUME",
    "SWEEP_ID",
    "LAUNCH",
    "SERVICE",
    "DIR",
)
"""W&B's environment variables on a single run: a tracker's many runs say these themselves"""
READ_HERE = {f"WANDB_{name}" for name in (*OF_A_RUN, "PROJECT") if name != "NOTES"}
"""W&B's environment variables that it does not judge: for one that is mistaken it refuses all of its settings"""
FREE = {"WANDB_API_KEY", "WANDB_CONFIG_DIR", "WANDB_ENTITY", "WANDB_NOTES"}
"""those that may hold any text, as far as W&B's settings go"""
LONGEST_REASON = 300
"""characters of W&B's error that are shown at most"""


def resolve_mode(config: TrackerConfig) -> tuple[Mode, str | None]:
    """The mode to run in, and a line that says so where it was chosen here.

    `auto` follows WANDB_MODE and W&B's settings file where these say offline or disabled; otherwise it is
    online where W&B itself would find a key (environment, settings, netrc), else offline. No network, no question.
    """
    if config.name != "wandb":
        return "disabled", None
    if config.mode in ("online", "offline", "disabled"):
        return config.mode, None
    try:
        settings = user_settings()
        if settings.mode == "disabled":
            return "disabled", "W&B is disabled by WANDB_MODE or W&B's settings"
        if settings.mode in ("offline", "dryrun"):
            return "offline", "W&B runs offline, as WANDB_MODE or W&B's settings say"
        server = resolve_target(config).server
        if has_key(settings, server):
            return "online", f"W&B runs online at {masked_text(server)}"
    except Exception as error:  # its text may quote a key
        return "offline", f"W&B runs offline: its settings or key cannot be used ({type(error).__name__})"
    return "offline", "W&B runs offline: no API key is configured"


def user_settings() -> wandb.Settings:
    """W&B's settings from its files and the environment, without starting anything."""
    import wandb

    settings = wandb.Settings()
    folder = os.path.expanduser(os.environ.get("WANDB_CONFIG_DIR", "~/.config/wandb"))
    settings.settings_system = str(Path(folder) / "settings")
    settings.update_from_system_settings()
    settings.update_from_env_vars({name: value for name, value in os.environ.items() if name not in READ_HERE})
    return settings


def check_environment(config: TrackerConfig) -> None:
    """ConfigError where one of W&B's environment variables has a value that W&B would refuse with every run."""
    if config.name != "wandb" or config.mode == "disabled":
        return
    given = {name: value for name, value in os.environ.items() if name.startswith("WANDB_")}
    for name, chosen in (("WANDB_PROJECT", config.project), ("WANDB_ENTITY", config.entity)):
        if chosen is None and given.get(name):
            validated(name, WandbName, given[name])
    others = {name: value for name, value in given.items() if name not in READ_HERE | FREE}
    if others:
        import wandb
        from pydantic import ValidationError

        for name, value in others.items():
            try:
                wandb.Settings().update_from_env_vars({name: value})
            except Exception as error:  # its text may quote a key
                found = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
                reason = " ".join(masked_text(found).split())[:LONGEST_REASON]
                raise ConfigError(f"{name} must have a value that W&B takes: {reason}") from None


def api_key(settings: wandb.Settings, server: str) -> str | None:
    """The key that W&B would use for a server."""
    from wandb.sdk.lib import wbauth

    return settings.api_key or wbauth.read_netrc_auth(host=server)


def check_server(config: TrackerConfig) -> None:
    """ConfigError where a plan, which may be a stranger's, names a server that neither W&B's settings nor netrc know.

    It would be given the key.
    """
    if config.name != "wandb" or config.mode in ("offline", "disabled") or config.base_url is None:
        return
    from wandb.sdk.lib import wbauth

    server = config.base_url.rstrip("/")
    if server != str(user_settings().base_url).rstrip("/") and wbauth.read_netrc_auth(host=server) is None:
        raise ConfigError(
            "tracker.base_url must be given where the plan names a server of which netrc has no key, got none; "
            f"the plan says {masked_text(server)}"
        )


def has_key(settings: wandb.Settings, server: str) -> bool:
    """Whether W&B would find credentials for a server; without any it asks for them."""
    return bool(settings.identity_token_file) or api_key(settings, server) is not None


@dataclass(frozen=True)
class Target:
    """Where runs go and what they all carry: the configuration, where it is silent W&B's environment and settings."""

    server: str
    project: str
    entity: str | None
    tags: tuple[str, ...]
    notes: str | None


def resolve_target(config: TrackerConfig) -> Target:
    """The target of a configuration; tags of the environment stand beside those of the configuration."""
    check_environment(config)
    settings = user_settings()
    return Target(
        server=str(settings.base_url if config.base_url is None else config.base_url).rstrip("/"),
        project=config.project or os.environ.get("WANDB_PROJECT") or settings.project or PROJECT,
        entity=config.entity or settings.entity,
        tags=fitting_tags([*config.tags, *os.environ.get("WANDB_TAGS", "").split(","), *(settings.run_tags or ())]),
        notes=config.notes or settings.run_notes,
    )


def forget_single_run() -> None:
    """Take what speaks of a single run out of this process's environment."""
    for name in OF_A_RUN:
        os.environ.pop(f"WANDB_{name}", None)
