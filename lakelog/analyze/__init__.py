"""Analysis of an open lake: what is there twice, what changed, what the old systems showed."""
