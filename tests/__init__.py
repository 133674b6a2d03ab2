import pytest

# What stands outside test_*.py says as much when it fails.
pytest.register_assert_rewrite("tests.stack", "tests.faults", "tests.unit")
