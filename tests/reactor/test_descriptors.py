"""The limit on open files."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from reactor import descriptors
from reactor.descriptors import raise_limit


class FakeResource:
    """The system's limits, which a test sets."""

    RLIMIT_NOFILE = 7
    RLIM_INFINITY = -1

    def __init__(self, soft: int, hard: int, refuses: bool = False) -> None:
        self.limits = soft, hard
        self._refuses = refuses

    def getrlimit(self, which: int) -> tuple[int, int]:
        assert which == self.RLIMIT_NOFILE
        return self.limits

    def setrlimit(self, which: int, limits: tuple[int, int]) -> None:
        assert which == self.RLIMIT_NOFILE
        if self._refuses:
            raise ValueError("current limit exceeds maximum limit")
        self.limits = limits


class LimitTests(SynchronousTestCase):
    """``raise_limit`` on systems of every kind."""

    def test_raised(self) -> None:
        """The soft limit becomes the hard one, or 2**20 where there is no hard one; it never sinks."""
        for soft, hard, raised in (
            (1024, 4096, 4096),
            (4096, 4096, 4096),
            (1024, -1, 2**20),
            (2**21, -1, 2**21),
        ):
            fake = FakeResource(soft, hard)
            self.patch(descriptors, "resource", fake)
            self.assertEqual(raise_limit(), raised)
            self.assertEqual(fake.limits, (raised, hard))

    def test_no_limit(self) -> None:
        """Without a limit, or if the system reports none, nothing is raised."""
        self.patch(descriptors, "resource", FakeResource(-1, -1))
        self.assertIsNone(raise_limit())
        self.patch(descriptors, "resource", None)
        self.assertIsNone(raise_limit())

    def test_refused(self) -> None:
        """If the system refuses, the limit in effect is returned."""
        self.patch(descriptors, "resource", FakeResource(256, -1, refuses=True))
        self.assertEqual(raise_limit(), 256)
