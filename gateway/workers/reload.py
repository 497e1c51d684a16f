"""Settings read again while the service runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from twisted.logger import Logger
from twisted.python.usage import UsageError

from gateway.options import Settings, resolve

__all__ = ["reread"]

_OF_THE_SUPERVISOR = ("listen", "workers", "shutdown_delay", "log_file")
_OF_THE_NODE = (
    "user",
    "password",
    "bucket",
    "bucket_password",
    "data",
    "nodes",
    "replicas",
    "node_rest_port",
    "node_kv_port",
    "sample",
)

_OPTIONS = {"password": "password-file", "bucket_password": "bucket-password-file"}

_log = Logger()


def reread(given: Mapping[str, Any], environment: Mapping[str, str], running: Settings) -> Settings:
    """Return the settings for new workers.

    What is bound to this process stays as it is, with a warning if it would be different: sockets,
    the number of workers, and everything about the embedded node and the account on it.

    :param given: what the command line says.
    :param running: the settings in force.
    :raises UsageError: they are wrong, or would need a restart to make sense.
    """
    wanted = resolve(given, environment)
    # Who may call depends on where it listens: on the sockets that are there, whatever is wanted now.
    settings = resolve({**given, "listen": running.listen}, environment)
    if (settings.cluster is None) != (running.cluster is None):
        raise UsageError("--cluster: between a cluster and the embedded node lies a restart")
    kept: tuple[str, ...] = _OF_THE_SUPERVISOR
    if running.cluster is None:
        kept += _OF_THE_NODE
        if wanted.user is None:
            # The account that was made up at the start.
            wanted = replace(wanted, user=running.user, password=running.password)
        if wanted.bucket_password is None:
            wanted = replace(wanted, bucket_password=running.bucket_password)
    for name in kept:
        if getattr(wanted, name) != getattr(running, name):
            option = _OPTIONS.get(name) or name.replace("_", "-")
            _log.warn("--{name}: a new value takes effect at the next start", name=option)
    return replace(settings, **{name: getattr(running, name) for name in kept})
