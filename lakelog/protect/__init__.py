"""Which fields of events are sealed under the keys of their subjects, and what opens them."""
