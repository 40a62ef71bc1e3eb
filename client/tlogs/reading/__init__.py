"""Reading runs, live and stored.

In reading order: `archive` and `segment_file` (a run on disk), `source` (frames from there or from a collector),
`reader`, `filters`, `entry`, `merge`, `fold`; `text`; `record` and `json_lines`; `verify` recounts a run.
"""
