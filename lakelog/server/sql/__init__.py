"""SQL of others: one SELECT, in a process that can do nothing but read the lake, and be killed."""
