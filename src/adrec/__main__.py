"""``python -m adrec`` is the command line."""

from adrec.cli import main

main()
