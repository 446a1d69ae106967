"""Training sets: exports with splits that cannot leak, with provenance and a proof of both.

`export` makes one, `check` looks for leaks in its files, `rebuild` makes it again and compares;
`exports`, `diff` and `where` look at what was exported.
"""

from lakelog.train.compare import diff, where
from lakelog.train.leaks import Certificate
from lakelog.train.provenance import exports
from lakelog.train.rebuild import RebuildResult, rebuild
from lakelog.train.recipe import Recipe, load
from lakelog.train.sandbox import check
from lakelog.train.trainingset import TrainingExport, export

__all__ = [
    "Certificate",
    "RebuildResult",
    "Recipe",
    "TrainingExport",
    "check",
    "diff",
    "export",
    "exports",
    "load",
    "rebuild",
    "where",
]
