"""Measurements of lakelog: `make bench`. Nothing in lakelog imports this package."""
