"""The TLS handshake, in userspace: policy, driver, record framing, and the session that comes out of it."""
