"""Let `python -m stack` be the command line of the stack."""

from stack.cli import main

main()
