"""The lake for agents, by the Model Context Protocol: tools that read, and tags as resources."""
