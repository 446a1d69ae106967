"""The files of a lake by their keys, wherever they are.

A `Volume` reads and writes them, in a directory as `DirectoryVolume`. A `MovePack` is many
old moves in one file. `ErasedStates` knows which states were erased from, of a `SweptLake`.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.volume.erased_states import ErasedStates, SweptLake
    from lakelog.volume.move_pack import MovePack
    from lakelog.volume.volume import TICK_NS, DirectoryVolume, Volume

__all__ = ["TICK_NS", "DirectoryVolume", "ErasedStates", "MovePack", "SweptLake", "Volume"]

__getattr__ = lazy_face(
    __name__,
    erased_states="ErasedStates SweptLake",
    move_pack="MovePack",
    volume="TICK_NS DirectoryVolume Volume",
)
