"""Static files over HTTPS, encrypted by the Linux kernel."""

__version__ = "0.1.0"
