"""Collecting with an open lake: watching directories."""
