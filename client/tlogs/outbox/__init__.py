"""Where a logging call leaves its record: a ring of mapped pieces in a file that outlives its process.

In reading order: `ring` (the format), `life` and `lock` (whose it is), `descriptors`, `file`, `outbox` with `drops` and
`truncate` (the writer), `reader` (whoever sends from it), `dead`, `version1` (what tlogs 0.1 left).
"""
