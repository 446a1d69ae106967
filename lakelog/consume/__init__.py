"""Streams of messages become events, each message once."""
