"""Connections to HTTP servers, Redis and Kafka, and how they are configured."""
