"""The files of a lake by their keys, wherever they are.

A `Volume` reads and writes them, in a directory as `DirectoryVolume`. A `MovePack` is many
old moves in one file. `ErasedStates` knows which states were erased from, of a `SweptLake`.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.volume.erased_states import ErasedStates as ErasedStates
    from lakelog.volume.erased_states import SweptLake as SweptLake
    from lakelog.volume.move_pack import MovePack as MovePack
    from lakelog.volume.volume import TICK_NS as TICK_NS
    from lakelog.volume.volume import DirectoryVolume as DirectoryVolume
    from lakelog.volume.volume import Volume as Volume

__getattr__, __all__ = lazy_face(__name__)
