"""Giving recorded events out again, in their order and with their pauses."""
