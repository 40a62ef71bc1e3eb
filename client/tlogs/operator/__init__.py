"""What a person, or a job, asks of all ranks: `job` is what `tlogs.connect()` returns, `broadcast` asks from inside."""
