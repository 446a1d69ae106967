"""A lake's own views: listed, made, shown and dropped; the acts behind `lakelog view`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lakelog.views import catalog, sample
from lakelog.views.definition import ViewDefinition, parse

if TYPE_CHECKING:
    from lakelog.views.tables import ViewTables


class LakeViews:
    """The views of an open lake; to look at them, a past state of one will do."""

    def __init__(self, lake: Any) -> None:
        self._lake = lake
        self._views: ViewTables = lake._views
        self._state: str | None = getattr(lake, "id", None)

    def listed(self) -> list[tuple[ViewDefinition, bool]]:
        """Every view by name, and whether the lake itself defines it."""
        return self._views.definitions(self._state)

    def definition(self, name: str) -> ViewDefinition:
        """Return one view's definition. Raises InvalidView where there is none."""
        return self._views.definition(name, self._state)

    def create(
        self,
        name: str,
        text: str,
        params: Mapping[str, object] | None = None,
        *,
        replace: bool = False,
    ) -> ViewDefinition:
        """Keep a view in the lake's manifest, once it was tried both ways on a sample of the lake.

        `params` are needed for parameters without a default. Raises InvalidView: section, line,
        what.
        """
        store, branch = self._lake.store, self._lake.branch_name
        definition = parse(text, name)
        catalog.check_free(store, branch, name, replace)
        sample.check(definition, self._views.sample(sample.ROWS), params)
        catalog.create(store, branch, definition, replace=replace)
        return definition

    def drop(self, name: str) -> None:
        """Take a view off the branch; older states have it still. Raises InvalidView."""
        catalog.drop(self._lake.store, self._lake.branch_name, name)
