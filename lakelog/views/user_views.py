"""A lake's own views: listed, made, shown and dropped; the acts behind `lakelog view`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lakelog.views import catalog, sample
from lakelog.views.definition import ViewDefinition, parse
from lakelog.workers import WorkerPool

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

    def build(self, *names: str, workers: str = "local") -> int:
        """Have views computed as far as their events are sealed, all without names: by processes of
        this machine, or at "ray://HOST:PORT". Return how many segments were read, each once for a
        view.

        What is computed is in the cache, where whoever asks finds it. Raises InvalidView for no
        such view, InvalidSetting, MissingPackage, Unreachable, Damaged.
        """
        view_names = names or [definition.name for definition, _ in self.listed()]
        with WorkerPool.at(workers) as pool:
            assert pool is not None
            return sum(self._views.build(name, pool, self._state) for name in view_names)

    def drop(self, name: str) -> None:
        """Take a view off the branch; older states have it still. Raises InvalidView."""
        catalog.drop(self._lake.store, self._lake.branch_name, name)
