"""Going back with all parts: events, saved directories, deployment."""
