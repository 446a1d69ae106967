"""Targets without transactions: search and metrics servers, streams."""
