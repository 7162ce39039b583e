"""Sockets: listening, and waiting for one to be readable or writable, the same on every event loop."""
