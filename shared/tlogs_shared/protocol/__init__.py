"""What ranks, collectors and operators say to each other.

In reading order: `messages`, `wire`, `lease`, `clock`, `endpoint`, `secret`, `notice`.
"""
