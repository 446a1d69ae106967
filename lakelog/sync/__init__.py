"""Other databases follow a lake: events are copied once, whatever happens in between."""
