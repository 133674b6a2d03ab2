"""Tests without Docker."""

from hypothesis import settings

# The machine may have other work: how long one example takes is no promise.
settings.register_profile("tests", deadline=None)
settings.load_profile("tests")
