"""Training sets: exports with splits that do not leak, with provenance and a certificate of both.

`export` writes one, `check` looks for leaks in its files, `rebuild` repeats it and compares;
`exports`, `diff` and `where` query earlier exports.
"""

from lakelog.train.compare import ExportDiff, diff, where
from lakelog.train.leaks import Certificate
from lakelog.train.provenance import exports
from lakelog.train.rebuild import RebuildResult, rebuild
from lakelog.train.recipe import Recipe, load
from lakelog.train.sandbox import check
from lakelog.train.trainingset import TrainingExport, export

__all__ = [
    "Certificate",
    "ExportDiff",
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
