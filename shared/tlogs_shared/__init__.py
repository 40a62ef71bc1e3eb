"""What client and collector must agree on. Pure but for `host`: no socket, no thread, no clock. Not a public API.

In reading order. Records: `record`, `batch` (frames, on the wire and on disk), `origin` (who speaks), `ring` (the
outbox), `segment`, `cursor`, `ledger` and `page` (the store). The conversation: `messages`, `wire`, `secret`, `clock`,
`endpoint`, `notice`, `host`. Levels: `registry` and `torch_names`, `directive`, `call` and `spec` (three ways to say
a setting), `levels`, `lease`, `explain`. Reading: `entry`, `merge`, `filters`, `fold`, `render`. And `errors`,
`rankset`, `quantity`, `version`.
"""
