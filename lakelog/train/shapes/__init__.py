"""The shapes of training rows: what becomes of events, as SQL or row by row."""
