"""Measures the server: load from client processes, the server's own CPU time and memory, a report."""
