"""The text of a query: parsed by the engine, judged and rewritten."""
