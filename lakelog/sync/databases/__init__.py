"""Targets with transactions: SQL databases."""
