"""`python -m tlogs_collector`."""

from tlogs_collector.cli import main

main()
