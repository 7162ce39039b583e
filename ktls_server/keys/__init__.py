"""From OpenSSL's key log to the keys of one connection's records."""
