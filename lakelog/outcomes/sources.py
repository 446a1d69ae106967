"""What the query of a model's recipe may read: the lake, and nothing else of the machine.

A model may have come with a lake from anywhere, and its recipe is SQL: a file that it names would
be read where the model is applied.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from lakelog.engine.syntax import Node, SyntaxFault, parse
from lakelog.engine.volatility import Volatility, called
from lakelog.errors import InvalidRecipe
from lakelog.query.sql import tree as trees

if TYPE_CHECKING:
    from lakelog.lake import Lake
    from lakelog.train import Recipe
_READERS = frozenset("unnest range generate_series json_each json_tree".split())
_FILE = re.compile(r"[./\\:*]")


def require_lake_alone(lake: Lake, recipe: Recipe) -> None:
    """Raise InvalidRecipe where the query of a recipe reads a file or a server, asks about the
    process, or has an effect."""
    try:
        tree = parse(lake.engine().cursor(), recipe.select["sql"])
    except SyntaxFault as fault:
        raise InvalidRecipe(f"{recipe.where}: [select] sql: {fault}") from None
    for node in trees.nodes(tree):
        if reason := _forbidden(node):
            raise InvalidRecipe(f"{recipe.where}: [select] sql of a model: {reason}")


def _forbidden(node: Node) -> str:
    if node.get("type") == "TABLE_FUNCTION":
        name = str((node.get("function") or {}).get("function_name", "")).lower()
        if name not in _READERS:
            return f"{name}() reads something else than the lake"
    if node.get("type") == "BASE_TABLE" and _FILE.search(str(node["table_name"])):
        return f"{node['table_name']!r} is a file, and not of the lake"
    name, volatility = called(node) or ("", Volatility.IMMUTABLE)
    if volatility in (Volatility.EFFECT, Volatility.SESSION):
        return f"{name}() says nothing of events"
    return ""
