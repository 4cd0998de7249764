"""Tests that run on every supported Python, beside the unit tests: tests/versions.sh."""
