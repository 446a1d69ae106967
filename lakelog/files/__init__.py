"""Which file a path holds, how far it was ingested, and how its lines are read."""
