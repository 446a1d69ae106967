"""Loki's query language and API, answered by SQL over the lake."""
