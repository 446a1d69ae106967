"""What the dashboard asks: JSON under /api, each answer from a call that any program may make."""
