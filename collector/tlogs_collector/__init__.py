"""The collector daemon."""
