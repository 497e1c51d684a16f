"""Limits on the memory and time that clients can take from the gateway."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.http import limits

__all__ = ["Limits"]

MEBIBYTE = limits.MEBIBYTE


@dataclass(frozen=True)
class Limits(limits.Limits):
    """Limits of one gateway; sizes in bytes, times in seconds."""

    max_connections: int = 64
    """Largest number of open connections to the cluster, one per bucket and user."""
    max_line: int = 28 * MEBIBYTE
    """Largest size of one operation of a batch: a document of 20 MiB in base64, and its other members."""
    batch_operations: int = 1024
    """Largest number of concurrent operations of one batch."""
    batch_bytes: int = 16 * MEBIBYTE
    """Memory for the operations and answers of one batch."""
    max_service_requests: int = 256
    """Largest number of concurrent requests to the cluster's other services; one caller may have half of
    them."""
    metrics_callers: int = 0
    """Largest number of callers that the metrics count separately; 0 for none."""
    drain_seconds: float = 120.0
    """How long a replaced worker waits for its connections to close."""
