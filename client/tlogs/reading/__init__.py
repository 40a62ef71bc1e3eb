"""Reading runs, live and stored.

In reading order. Where runs are: `run` is what every run can do, `local_run` (with `segment_file`) and `collector_run`
are two that do, `library` finds the one that is meant, `subscription` tells when there is more. What is read of it:
`filters`, `entry`, `merge`, `cursor`, `follow`. How it is shown: `fold`, `text`, `record`, `json_lines`, `stamp`.
At a glance: `runs`, `verify`. `stored` is the part of the Python API that needs no collector.
"""
