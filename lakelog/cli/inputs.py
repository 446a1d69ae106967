"""The --format of what comes in: a format's name, or access: with a LogFormat behind it."""

from __future__ import annotations

from typing import Any

import click

from lakelog.errors import InvalidSetting
from lakelog.ingest.formats import known


class InputFormat(click.Choice[str]):
    """A choice of the known formats, and of `access:LOGFORMAT`."""

    def __init__(self) -> None:
        super().__init__(list(known.FORMATS))

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """What stands for it in a help text; there are too many to name all."""
        return "FORMAT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the format's name. Fails with a reason of one line."""
        if ":" not in str(value):
            return super().convert(value, param, ctx)
        try:
            known.named(value)
        except InvalidSetting as error:
            self.fail(str(error), param, ctx)
        return str(value)
