"""The types of values, for type checkers."""

from typing import Any

JsonObject = dict[str, Any]
"""An object as it was parsed: its values are of any kind."""
