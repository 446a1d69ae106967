"""A lake's own views: listed, made, shown and dropped; the acts behind `lakelog view`.

`lake` is an open Lake; to look at views, a View of a past state will do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lakelog.views import catalog, sample
from lakelog.views.definition import ViewDefinition, parse

if TYPE_CHECKING:
    from lakelog.views.tables import ViewTables


def listed(lake: object) -> list[tuple[ViewDefinition, bool]]:
    """Every view by name, and whether the lake itself defines it."""
    return _views(lake).definitions(getattr(lake, "id", None))


def definition(lake: object, name: str) -> ViewDefinition:
    """Return one view's definition. Raises InvalidView where there is none."""
    return _views(lake).definition(name, getattr(lake, "id", None))


def create(
    lake: Any,
    name: str,
    text: str,
    params: Mapping[str, object] | None = None,
    *,
    replace: bool = False,
) -> ViewDefinition:
    """Keep a view in the lake's manifest, once it was tried both ways on a sample of the lake.

    `params` are needed for parameters without a default. Raises InvalidView: section, line, what.
    """
    definition = parse(text, name)
    catalog.check_free(lake.store, lake.branch_name, name, replace)
    sample.check(definition, _views(lake).sample(sample.ROWS), params)
    catalog.create(lake.store, lake.branch_name, definition, replace=replace)
    return definition


def drop(lake: Any, name: str) -> None:
    """Take a view off the branch; older states have it still. Raises InvalidView."""
    catalog.drop(lake.store, lake.branch_name, name)


def _views(lake: Any) -> ViewTables:
    views: ViewTables = lake._views
    return views
