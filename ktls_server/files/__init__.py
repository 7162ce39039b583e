"""From a request path to an open file inside the root, and to the answer that carries it."""
