"""Every decision of the collector. Pure: messages and the time in, actions out.

In reading order: `hub` with `actions`; `admission`, `arrivals`, `runs`, `run`, `peer`; `questions` and `changes`.
"""
