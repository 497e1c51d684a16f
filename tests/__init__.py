"""Tests of couchgateway; the folders mirror the packages. Run with trial."""

try:
    from hypothesis import HealthCheck, settings
except ImportError:  # only tests with properties need it
    pass
else:
    # How long an example takes says something about the machine's other users only.
    settings.register_profile("couchgateway", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("couchgateway")
