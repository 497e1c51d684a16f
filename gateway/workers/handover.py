"""The settings of a worker: sent by the supervisor, and read by the worker."""

from __future__ import annotations

from dataclasses import asdict, fields, replace
from typing import Any

from gateway.limits import Limits
from gateway.options import SETTINGS
from gateway.settings import Settings

__all__ = ["read_settings", "settings_for_worker"]

# Only the process that systemd started can find systemd's sockets by this name.
_BY_NAME_ONLY = "systemd:"
_ANY_SOCKET = "tcp:0"


def settings_for_worker(settings: Settings) -> dict[str, Any]:
    """Return the settings to send to a worker, as values for JSON.

    Limits on all clients together are divided by the number of workers. Limits on one request are not,
    and there is always room for the largest request.
    """
    workers = settings.workers or 1
    limits = settings.limits
    largest = min(limits.max_buffered, max(limits.max_body, limits.max_line))
    shared = replace(
        limits,
        max_buffered=max(_share(limits.max_buffered, workers), largest),
        max_clients=_share(limits.max_clients, workers),
        max_connections=_share(limits.max_connections, workers),
        max_service_requests=_share(limits.max_service_requests, workers),
    )
    listen = [_ANY_SOCKET if name.startswith(_BY_NAME_ONLY) else name for name in settings.listen]
    # Workers log in to the node with the service account.
    return asdict(replace(settings, limits=shared, listen=listen, bucket_password=None))


def read_settings(told: dict[str, Any]) -> Settings:
    """Return the settings that a worker received.

    A supervisor started before an upgrade may send fewer or more settings: missing ones get their defaults,
    unknown ones are ignored.
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
