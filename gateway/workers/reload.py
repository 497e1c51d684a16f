"""Reads the settings again while the service runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from twisted.logger import Logger
from twisted.python.usage import UsageError

from gateway.settings import Settings, check_tracing, resolve

__all__ = ["reread"]

_OF_THE_SUPERVISOR = ("listen", "workers", "shutdown_delay", "log_file", "log_format")
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

    Settings bound to this process keep their values, with a warning if they would change: sockets, the number
    of workers, and everything about the embedded node and its account.

    :param given: values of the command line.
    :param running: the current settings.
    :raises UsageError: they are invalid, or would need a restart.
    """
    wanted = resolve(given, environment)
    # The default of ``--auth`` depends on the addresses: use those of the open sockets, whatever the new
    # settings say.
    settings = resolve({**given, "listen": running.listen}, environment)
    if (settings.cluster is None) != (running.cluster is None):
        raise UsageError("--cluster: a change between a cluster and the embedded node needs a restart")
    kept: tuple[str, ...] = _OF_THE_SUPERVISOR
    if running.cluster is None:
        kept += _OF_THE_NODE
        if wanted.user is None:
            # The account generated at the start.
            wanted = replace(wanted, user=running.user, password=running.password)
        if wanted.bucket_password is None:
            wanted = replace(wanted, bucket_password=running.bucket_password)
    if settings.tracing:
        check_tracing(environment)
    for name in kept:
        if getattr(wanted, name) != getattr(running, name):
            option = _OPTIONS.get(name) or name.replace("_", "-")
            _log.warn("--{name}: a new value takes effect at the next start", name=option)
    return replace(settings, **{name: getattr(running, name) for name in kept})
