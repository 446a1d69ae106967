"""The type of numpy's arrays, for signatures: numpy itself loads where it is used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lakelog.libraries import np

if TYPE_CHECKING:
    Array = np.ndarray[Any, np.dtype[Any]]
else:
    Array = None
