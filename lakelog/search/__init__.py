"""Searching events by words: the language, what it means in SQL, and the answers."""
