"""The server beside others: measurements that need their programs, and so are no part of the package."""
