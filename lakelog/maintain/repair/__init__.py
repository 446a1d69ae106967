"""Checking a lake byte by byte, and repairing one that is damaged."""
