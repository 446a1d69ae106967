"""The formats of text that tables declare, and which of them know lines better than others."""

from dataclasses import replace

from lakelog.formats.pattern_tables import read_table

PROGRAMS = read_table("programs.toml")
"""Those of single programs; no two are sure of the same line."""
ACCESS, SYSLOG, TRAFFIC, RUNTIME, _APPLOG = read_table("styles.toml")
APPLOG = replace(_APPLOG, rivals=PROGRAMS)
