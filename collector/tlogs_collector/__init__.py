"""The collector daemon.

In reading order. `cli` has the arguments; `daemon` puts the parts together: `listener` (the socket), `server` (the
loop), `syncer` (the thread that waits for the disk), `announcement` (where others find it), `printer` and `recoverer`
(processes beside it). The decisions, pure, are in the package `hub`: messages in, actions out. What is stored goes
through `store.store`, which says what the server needs of a store, into `store.local`.
"""
