"""The `tlogs` command."""
