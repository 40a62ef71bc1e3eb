"""Levels applied to this process's loggers, and leases over them.

In reading order: `controller` and `layer` over a `base`, which is `without_torch` or `with_torch`; `leases` with
`outcome` (the answer to an operator); `torch_api` (torch's own functions); `import_hook`, `module_lookup`,
`torch_format`.
"""
