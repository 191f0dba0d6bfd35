"""`python -m olla` is the `olla` command."""

from olla.cli import main

if __name__ == "__main__":
    main()
