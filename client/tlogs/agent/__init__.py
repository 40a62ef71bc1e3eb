"""The process beside the workers of a host: it sends from their outboxes, and knows how each of them ended."""
