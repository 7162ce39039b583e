"""`python -m ktls_server` is `ktls-server`."""

from ktls_server.cli import main

if __name__ == "__main__":
    main()
