"""Where W&B runs go: online, offline or nowhere, from configuration and what W&B itself would read."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit
from urllib.request import getproxies

from harness.config import TrackerConfig

if TYPE_CHECKING:
    import wandb

Mode = Literal["online", "offline", "disabled"]

CONNECT_SECONDS = 5


def resolve_mode(config: TrackerConfig) -> tuple[Mode, str | None]:
    """The mode to run in, and a line that says so where it was chosen here.

    `auto` follows WANDB_MODE and W&B's settings file where these say offline or disabled; otherwise it is
    online where W&B itself would find a key (environment, settings, netrc), else offline. No network, no question.
    """
    if config.name == "none":
        return "disabled", None
    if config.mode in ("online", "offline", "disabled"):
        return config.mode, None  # type: ignore[return-value]
    try:
        settings = user_settings()
        if settings.mode == "disabled":
            return "disabled", "W&B is disabled by WANDB_MODE or W&B's settings"
        if settings.mode in ("offline", "dryrun"):
            return "offline", "W&B runs offline, as WANDB_MODE or W&B's settings say"
        if has_key(settings):
            return "online", f"W&B runs online at {settings.base_url}"
    except Exception as error:  # its text may quote a key
        return "offline", f"W&B runs offline: its settings or key cannot be used ({type(error).__name__})"
    return "offline", "W&B runs offline: no API key is configured"


def user_settings() -> wandb.Settings:
    """W&B's settings from its files and the environment, without starting anything."""
    import wandb

    settings = wandb.Settings()
    folder = os.environ.get("WANDB_CONFIG_DIR", "~/.config/wandb")
    settings.settings_system = str(Path(folder).expanduser() / "settings")
    settings.update_from_system_settings()
    settings.update_from_env_vars(dict(os.environ))
    return settings


def has_key(settings: wandb.Settings) -> bool:
    """Whether W&B would find credentials for its server; without any it asks for them."""
    from wandb.sdk.lib import wbauth

    if settings.api_key or settings.identity_token_file:
        return True
    return wbauth.read_netrc_auth(host=settings.base_url) is not None


def connect(server: str) -> None:
    """OSError where no connection can be made; wandb itself would go on trying for its whole time-out."""
    url = urlsplit(server)
    if url.scheme in getproxies() or url.hostname is None:
        return  # only the proxy can tell
    port = url.port or (443 if url.scheme == "https" else 80)
    socket.create_connection((url.hostname, port), timeout=CONNECT_SECONDS).close()
