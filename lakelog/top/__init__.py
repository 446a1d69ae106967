"""What happens in a lake now, in one frame of text: see `lakelog top`.

`LiveFeed` reads what came since it was asked before, at the cost of that alone; `of_state` is the
same of a past state. `MachineMeter` measures the machine and the processes that have the lake open,
`lags` says who is behind. `frame` lays all of it out for a screen.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.top.feed import LiveFeed, of_state
    from lakelog.top.lag import Lag, lags
    from lakelog.top.layout import ORDERS, FrameOptions, frame
    from lakelog.top.machine import MachineFigures, MachineMeter
    from lakelog.top.rates import LakeFigures

__all__ = [
    "ORDERS",
    "FrameOptions",
    "Lag",
    "LakeFigures",
    "LiveFeed",
    "MachineFigures",
    "MachineMeter",
    "frame",
    "lags",
    "of_state",
]

__getattr__ = lazy_face(
    __name__,
    feed="LiveFeed of_state",
    layout="ORDERS FrameOptions frame",
    lag="Lag lags",
    machine="MachineMeter MachineFigures",
    rates="LakeFigures",
)
