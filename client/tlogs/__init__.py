"""tlogs: the client library."""
