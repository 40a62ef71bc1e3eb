"""The facts and formats that client and collector share. Not a public API.

Pure but for `host`: no socket, no thread, no clock.
In reading order: `errors`, `version`; `origin` (who sends), `rankset`, `quantity`, `level_names`; `storage` (records,
batches, segments, and the names of files); `protocol` (messages and how they travel); `host` (what both sides look up
on a machine).
"""
