"""What happens in the background and after damage: sealing, compaction, retention, gc."""
