"""recent."""
