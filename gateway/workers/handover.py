"""The settings of one of several workers, and how they get there."""

from __future__ import annotations

from dataclasses import asdict, fields, replace
from typing import Any

from gateway.limits import Limits
from gateway.options import SETTINGS, Settings

__all__ = ["read_settings", "settings_for_worker"]

# What was bound by the process that systemd started cannot be found by that name in another.
_BY_NAME_ONLY = "systemd:"
_ANY_SOCKET = "tcp:0"


def settings_for_worker(settings: Settings) -> dict[str, Any]:
    """Return what a worker is told, for JSON.

    Limits on what all clients together may make the service hold are shared out. What one
    request may be is not, and there is always room for the largest one.
    """
    workers = settings.workers or 1
    limits = settings.limits
    largest = min(limits.max_buffered, max(limits.max_body, limits.max_line))
    shared = replace(
        limits,
        max_buffered=max(_share(limits.max_buffered, workers), largest),
        max_clients=_share(limits.max_clients, workers),
        max_connections=_share(limits.max_connections, workers),
    )
    listen = [_ANY_SOCKET if name.startswith(_BY_NAME_ONLY) else name for name in settings.listen]
    # Workers speak to the node as the service account.
    return asdict(replace(settings, limits=shared, listen=listen, bucket_password=None))


def read_settings(told: dict[str, Any]) -> Settings:
    """Return the settings that a worker was told.

    A supervisor that was started before an upgrade may not know all of them, or some more: those
    have their defaults, these are left out.
    """
    known = {setting.attribute: setting.default for setting in SETTINGS}
    limits = told.get("limits", {})
    values: dict[str, Any] = {
        field.name: told.get(field.name, known.get(field.name))
        for field in fields(Settings)
        if field.name != "limits"
    }
    names = {field.name for field in fields(Limits)}
    return Settings(
        **values, limits=Limits(**{name: value for name, value in limits.items() if name in names})
    )


def _share(total: int, workers: int) -> int:
    return -(-total // workers)
