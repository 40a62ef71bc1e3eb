"""The collector daemon.

In reading order. The decisions, pure: `hub` (messages in, actions out), with `admission` (who may speak), `arrivals`
and `runs` (which run a stream belongs to), `peer` and `run` (what is known of a stream and of a run), and for operators
`desk` and `changes`; `actions` is what they ask for. The edges: `cli` puts together `listener` (the socket), `server`
(the loop), `syncer` (the thread that waits for the disk), `announcement`, `catalogue`, `children` and `orphans`. The
store: `store` (what the server needs of one), `local_store` with `run_directory`, `recovery`, `retention`,
`segment_reader`, `whole_file` and `disk`.
"""
