"""Tests of couchgateway; the folders mirror the packages. Run with trial."""

try:
    from hypothesis import HealthCheck, settings
except ImportError:  # only tests with properties need it
    pass
else:
    # The duration of an example depends on the machine's other users.
    settings.register_profile("couchgateway", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("couchgateway")
