"""One encoding, the same on the wire and on disk.

In reading order: `record`, `batch`, `segment`, `segment_reader`, `position`, `ledger`, `index_page`.
"""
