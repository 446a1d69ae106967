"""Rows as text for people and other programs: terminals, notebooks, files."""
