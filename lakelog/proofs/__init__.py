"""Keys, signatures of states, and proofs that an event is in a signed state."""
