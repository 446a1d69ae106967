"""What the query of a model's recipe may read: the lake, and nothing else of the machine.

A model may have come with a lake from anywhere, and its recipe is SQL: a file that it names would
be read where the model is applied.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lakelog.engine.syntax import SyntaxFault, parse
from lakelog.engine.volatility import foreign
from lakelog.errors import InvalidRecipe
from lakelog.query.sql import tree as trees

if TYPE_CHECKING:
    from lakelog.lake import Lake
    from lakelog.train import Recipe


def require_lake_alone(lake: Lake, recipe: Recipe) -> None:
    """Raise InvalidRecipe where the query of a recipe reads a file or a server, asks about the
    process, or has an effect."""
    try:
        tree = parse(lake.engine().cursor(), recipe.select["sql"])
    except SyntaxFault as fault:
        raise InvalidRecipe(f"{recipe.where}: [select] sql: {fault}") from None
    for node in trees.nodes(tree):
        if reason := foreign(node):
            raise InvalidRecipe(f"{recipe.where}: [select] sql of a model: {reason}")
