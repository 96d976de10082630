"""The project's tests: `tests/app` and `tests/training` mirror the packages."""
