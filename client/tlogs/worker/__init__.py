"""Everything that runs inside a training process, from `init()` to its end.

In reading order: `session` with `config` and `identity` (`group`, `command`); `seam`, `intake`, `arguments` (records)
and `crash` (last words); `stream`, which joins an outbox to `link` (every decision, with `held_leases`) and
`forwarder` (the one thread with the socket); `recovery` brings in what dead processes left.
"""
