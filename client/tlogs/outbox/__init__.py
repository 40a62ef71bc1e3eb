"""Where a logging call leaves its record: a ring of mapped pieces in a file that outlives its process.

In reading order: `ring` (the format, and the scan that recovers it), `file`, `outbox` with `extents`, `drops` and
`truncate`; `dead` and `relic` read what a dead process left.
"""
