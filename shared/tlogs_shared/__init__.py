"""The facts and formats that client and collector share. Pure but for `host`: no socket, no thread, no clock. Not public.

In reading order: `errors`, `version`; `origin` (who speaks), `rankset`, `quantity`, `level_names`; `storage` (records,
batches, segments, and the names of files); `protocol` (messages and how they travel); `host` (what both sides look up
on a machine).
"""
