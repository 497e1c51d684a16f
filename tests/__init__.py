"""Tests of couchgateway; the folders mirror the packages. Run with trial."""

import os

try:
    from hypothesis import HealthCheck, settings
except ImportError:  # only tests with properties need it
    settings = None

PERCENT = int(os.environ.get("EXAMPLES") or 30)
"""Share of the examples that are tried for each property. CI tries half of them, EXAMPLES=100 all."""


def tries(number):
    """Return how many of this number of examples of a property to try in this run."""
    return max(number * PERCENT // 100, 5)


if settings is None:
    SHARED = []
else:
    SHARED = [HealthCheck.differing_executors, HealthCheck.too_slow]
    """Checks that a property of two classes leaves out; naming some replaces those of the profile below."""
    # The duration of an example depends on the machine's other users.
    settings.register_profile(
        "couchgateway",
        max_examples=tries(100),
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    settings.load_profile("couchgateway")
