"""Requests to all ranks: `job` from outside (`tlogs.connect()`), `broadcast` from inside the job."""
