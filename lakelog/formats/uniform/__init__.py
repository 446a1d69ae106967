"""JSON lines that are all spelled alike: cut into columns without a query, payloads included.

`uniform_lines` says whether lines are, and gives their rows; `typed_payloads` learns on the way how
their payloads become structs. The other modules are theirs alone.
"""
