"""`python -m stack` is the command line of the stack."""

from stack.cli import main

main()
