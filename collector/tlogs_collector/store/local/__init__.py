"""Runs in a local directory.

In reading order: `local_store`, `run_directory`, `segment_reader`, `whole_file`, `repair`, `retention`, `catalogue`.
"""
