"""Other Debian releases to run tests in: a tree of files made by mmdebstrap, entered by chroot. See docs/testing.md."""
