"""`python -m ktls_server` is `ktls-server`."""

from .cli import main

if __name__ == "__main__":
    main()
