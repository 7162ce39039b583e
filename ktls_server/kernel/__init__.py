"""Kernel TLS: constants, structures, system calls, and what the running kernel can do."""
