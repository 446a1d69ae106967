"""Tables and plots that follow a lake: `lakelog.live("SELECT ...", 2)`."""

from __future__ import annotations

import contextlib
import threading
import weakref
from typing import Any

from IPython import get_ipython
from IPython.core.formatters import format_display_data
from IPython.display import DisplayHandle

from lakelog.errors import InvalidSetting
from lakelog.lake import Lake
from lakelog.query import Relation
from lakelog.render import visible
from lakelog.values import JsonObject

_RUNNING: weakref.WeakValueDictionary[tuple[str, ...], Live] = weakref.WeakValueDictionary()


class Live:
    """A display that asks its query again, until `stop`, an error, or the end of the kernel."""

    def __init__(
        self,
        query: str,
        seconds: float = 2.0,
        *,
        params: object = None,
        lake: Lake | None = None,
        plot: bool | dict[str, object] = False,
    ) -> None:
        """`plot` shows the plot that `Relation.plot` makes, with these arguments if it is a dict.

        Raises InvalidSetting, QueryFailed.
        """
        if seconds <= 0:
            raise InvalidSetting(f"a pause is longer than 0 seconds, not {seconds:g}")
        self._lake = lake if lake is not None else _lake_of_the_notebook()
        self._query, self._params, self._seconds = query, params, seconds
        self._plot: JsonObject | None = plot if isinstance(plot, dict) else {} if plot else None
        self._stopped = threading.Event()
        self._handle = DisplayHandle()
        self._shown: dict[str, object] = {}
        # The first time here: a wrong query is an error of the cell.
        self._shown = self._ask()
        self._handle.display(self._shown, raw=True)
        # A cell that is run again takes the place of its last run, whose thread would go on asking.
        place = self._lake.path, self._lake.branch_name
        question = query, *place, repr(params), repr(plot)
        if (former := _RUNNING.get(question)) is not None:
            former.stop()
        _RUNNING[question] = self
        self._thread = threading.Thread(target=self._follow, name="lakelog-live", daemon=True)
        self._thread.start()

    @property
    def is_running(self) -> bool:
        """Whether it still asks."""
        return self._thread.is_alive() and not self._stopped.is_set()

    def stop(self) -> None:
        """Stop asking; what is shown stays."""
        self._stopped.set()
        if self._thread is not threading.current_thread():
            self._thread.join(10)

    def __repr__(self) -> str:
        state = f"every {self._seconds:g} s" if self.is_running else "stopped"
        return f"<Live, {state}>"

    def _follow(self) -> None:
        while not self._stopped.wait(self._seconds):
            try:
                answer = self._ask()
            except Exception as error:
                # Whatever it is, as what stands still without a word looks true. It stays below the
                # last answer, which is still true for its time.
                self._show({"text/plain": f"stopped: {visible(str(error))}"})
                return
            if answer != self._shown:
                self._shown = answer
                self._show(answer)

    def _show(self, bundle: dict[str, object]) -> None:
        with contextlib.suppress(Exception):  # the kernel may be gone
            self._handle.update(bundle, raw=True)

    def _ask(self) -> JsonObject:
        relation: Relation = self._lake.sql(self._query, self._params, variables={})
        if self._plot is None:
            return relation._repr_mimebundle_()
        bundle: dict[str, object] = format_display_data(relation.plot(**self._plot))[0]
        return bundle


def live(
    query: str,
    seconds: float = 2.0,
    *,
    params: object = None,
    lake: Lake | None = None,
    plot: bool | dict[str, object] = False,
) -> Live:
    """Show the answer of a query, or a plot of it, and keep it up to date every `seconds`; see
    Live. Without `lake` it asks the one that the notebook has open. Raises InvalidSetting,
    QueryFailed."""
    return Live(query, seconds, params=params, lake=lake, plot=plot)


def _lake_of_the_notebook() -> Lake:
    shell = get_ipython()
    magics: Any = shell and shell.magics_manager.registry.get("LakelogMagics")
    if not magics:
        raise InvalidSetting("live() needs a lake: give lake=, or `%load_ext lakelog` first")
    lake: Lake = magics.lake
    return lake
