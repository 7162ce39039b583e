"""The test suite; docs/testing.md says how it is run, and on which kernels."""
