"""Dates in HTTP's form."""

from __future__ import annotations

from email.utils import formatdate

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from gateway.http.encoding import http_date

DAY = 86_400


class DateTests(SynchronousTestCase):
    """http_date()."""

    @given(st.integers(0, 2**32 - 1))
    def test_dates_are_those_of_the_library(self, seconds: int) -> None:
        """Any time that a document's expiry can have."""
        self.assertEqual(http_date(seconds).decode(), formatdate(seconds, usegmt=True))

    def test_the_first_and_the_last_second_of_a_day(self) -> None:
        """Also of a leap day, and after the same day has been shown before."""
        for day in (0, 31 + 28, 19_782, 19_783, 0):
            for second in (0, 59, 60, 3599, 3600, DAY - 1):
                moment = day * DAY + second
                self.assertEqual(http_date(moment).decode(), formatdate(moment, usegmt=True))

    def test_fractions_do_not_count(self) -> None:
        """A date has no later second than its time."""
        self.assertEqual(http_date(1_700_000_000.75), b"Tue, 14 Nov 2023 22:13:20 GMT")
