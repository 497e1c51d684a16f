"""The producer of a transport: pausing and resuming it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet._producer_helpers import _PullToPush
from twisted.internet.interfaces import IConsumer, IPushProducer
from zope.interface import implementer

__all__ = ["Relay", "Source"]


@implementer(IPushProducer)
class Relay:
    """A producer that passes on what the stream below wants of it.

    :param pause: called when the stream's buffer is full.
    :param resume: called when it has room.
    """

    def __init__(self, pause: Callable[[], None], resume: Callable[[], None]) -> None:
        self.pauseProducing = pause
        self.resumeProducing = resume

    def stopProducing(self) -> None:
        """Do nothing: the stream is gone, and ``connectionLost`` follows."""


class Source:
    """Where the written bytes of a transport come from, if a producer has registered."""

    def __init__(self) -> None:
        self.producer: Any = None
        """It, or ``None``."""
        self.is_paused = False

    def register(self, producer: Any, consumer: IConsumer, *, streaming: bool) -> None:
        """Take a producer.

        :param consumer: the transport.
        :param streaming: whether it writes by itself; else it is asked for each part.
        :raises RuntimeError: there is one already.
        """
        if self.producer is not None:
            raise RuntimeError(f"cannot register {producer}: {self.producer} is still registered")
        if streaming:
            self.producer = producer
        else:
            self.producer = _PullToPush(producer, consumer)
            self.producer.startStreaming()

    def unregister(self) -> bool:
        """Forget the producer; return whether there was one."""
        producer, self.producer, self.is_paused = self.producer, None, False
        if isinstance(producer, _PullToPush):
            producer.stopStreaming()
        return producer is not None

    def pause(self) -> None:
        """Pause the producer, if it is running."""
        if self.producer is not None and not self.is_paused:
            self.is_paused = True
            self.producer.pauseProducing()

    def resume(self) -> None:
        """Resume the producer."""
        if self.is_paused:
            self.is_paused = False
            self.producer.resumeProducing()
