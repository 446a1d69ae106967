"""Training sets: exports with splits that do not leak, with provenance and a certificate of both.

`export` writes one, `check` looks for leaks in its files, `rebuild` repeats it and compares;
`exports`, `diff` and `where` query earlier exports. `undecided` are the rows of a recipe whose
outcome is not known yet.
"""

from lakelog.train.compare import diff, where
from lakelog.train.leaks import Certificate
from lakelog.train.provenance import exports
from lakelog.train.rebuild import RebuildResult, rebuild
from lakelog.train.recipe import Recipe, load
from lakelog.train.sandbox import check
from lakelog.train.trainingset import TrainingExport, export, undecided

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
    "undecided",
    "where",
]
