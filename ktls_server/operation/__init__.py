"""What keeps it running: processes, limits, reload and shutdown, the redirect, numbers, systemd, privileges."""
