"""Limits on what clients can make the gateway hold or wait for."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.http import limits

__all__ = ["Limits"]

MEBIBYTE = limits.MEBIBYTE


@dataclass(frozen=True)
class Limits(limits.Limits):
    """Limits of one gateway; sizes in bytes, times in seconds."""

    max_connections: int = 64
    """Connections to the cluster open at once, one per bucket and user."""
    max_line: int = 28 * MEBIBYTE
    """Size of one operation of a batch: a document of 20 MiB in base64, and the members around it."""
    batch_operations: int = 1024
    """Operations of one batch that run at once."""
    batch_bytes: int = 16 * MEBIBYTE
    """Memory for the operations and answers of one batch."""
    max_service_requests: int = 256
    """Requests to the cluster's other services under way at once; half of them for one caller."""
    metrics_callers: int = 0
    """Callers that the metrics count separately; 0 for none."""
    drain_seconds: float = 120.0
    """How long a replaced worker waits for its connections to close."""
