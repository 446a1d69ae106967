"""Analysis of an open lake: exact duplicates and near-duplicate messages."""
