"""Where runs are kept: `store` is what the server needs, `disk` what a store needs; `local` is a directory."""
