"""What is said of a finished training set: its dataset card, its numbers and its plots."""
