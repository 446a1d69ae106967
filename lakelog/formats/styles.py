"""The formats of text that tables declare, and which of them know lines better than others."""

from dataclasses import replace

from lakelog.formats.pattern_tables import read_table

PROGRAMS = read_table("programs.toml")
"""Those of single programs; no two are sure of the same line."""
ACCESS, SYSLOG, TRAFFIC, RUNTIME, _APPLOG = read_table("styles.toml")
_NUMBERED = r"[ \t]*\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[^ ]* [^ \[]+ [^ :\[\]]+\[\d+\]: "
"""A host, a program and the number of its process behind an ISO time: only syslog writes so."""
APPLOG = replace(
    _APPLOG, rivals=(*PROGRAMS, replace(SYSLOG, traits=replace(SYSLOG.traits, head=_NUMBERED)))
)
