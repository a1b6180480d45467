"""What every test runs under: property tests without wall-clock deadlines, since machines are shared."""

from hypothesis import HealthCheck, settings

settings.register_profile("default", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("default")
