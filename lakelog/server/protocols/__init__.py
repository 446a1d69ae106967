"""The protocols of other people's senders: how each body is read, and what it is answered."""
