"""What an event is: its members, its line, JSON that keeps its spelling."""
