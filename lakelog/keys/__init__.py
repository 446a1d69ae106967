"""Who can read a lake: its keys, and the envelope that only they open."""
