"""Recent entries in Redis, for programs that read them there."""
