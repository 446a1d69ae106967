"""Servers beside the lake: a connection to Redis that survives what happens to it."""
