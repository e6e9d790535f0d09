"""`python -m skylift`."""

from skylift.cli import main

main()
