"""`python -m autometa` is the command `autometa`."""

from autometa.cli.main import main

if __name__ == "__main__":
    main()
