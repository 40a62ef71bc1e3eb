"""The messages between ranks, collectors and operators.

In reading order: `messages`, `wire`, `lease`, `clock`, `endpoint`, `secret`, `notice`.
"""
