"""Bulk ingest: files become segments at the engine's speed, each row once, in bounded memory."""
