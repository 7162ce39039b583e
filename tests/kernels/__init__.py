"""Kernels that have kernel TLS, for machines whose own kernel has none.

A *lane* is a kernel that a command can be run on. `python -m tests.kernels LANE -- COMMAND` gets the kernel (Debian
packages, extracted and never installed), boots it with the host's file system as its root, runs COMMAND in it as if it
ran here, and ends with COMMAND's exit status. docs/testing.md tells what each lane is for and where it differs from a
real machine.

Reading order: `__main__` (the command line), `machine` (one boot, from the host's side), `guest` (the same boot, from
the inside). Everything here uses the standard library only, so that a system Python can run it.
"""
