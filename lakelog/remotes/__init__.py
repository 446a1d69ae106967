"""Lakes elsewhere: push, pull, fetch and clone, by directory, SSH, S3 and registry."""
