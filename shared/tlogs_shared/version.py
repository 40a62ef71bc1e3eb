"""The version, in one place: the build reads it here, and a worker need not look for its own metadata (10 ms)."""

__version__ = "0.1.0"
