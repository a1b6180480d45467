"""`python -m dimint`."""

from dimint.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
