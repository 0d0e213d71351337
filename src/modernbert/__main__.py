"""`python -m modernbert` is the command `modernbert`."""

from modernbert.cli import main

main()
