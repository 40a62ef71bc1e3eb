"""The names, the grammar and the meaning of level settings, as torch has them. Pure.

In reading order: `registry` with `torch_names`; `torch_logs` (the grammar), `set_logs` (the arguments of the call) and
`clauses` (those of `tlogs set-logs`); `state` (settings to the level of each logger); `explain`.
"""
