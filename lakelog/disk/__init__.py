"""What is written to disk, synced and locked."""
