"""Reaching a collector: `discovery` finds it, `transport` dials it, `connection` asks it."""
