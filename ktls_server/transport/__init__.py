"""Application data in and out of one TLS connection: the kernel encrypts, or userspace does."""
