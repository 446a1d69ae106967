"""The torture suite: rows of faults, each counted, each with a line that plays it again.

python -m tests.torture [ROW...] [--minutes M | --hours H] [--seed S] [--json FILE]
"""
