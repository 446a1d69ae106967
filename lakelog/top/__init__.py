"""What happens in a lake now, in one frame of text: see `lakelog top`.

`LiveFeed` reads what came since it was asked before, at the cost of that alone; `of_state` is the
same of a past state. `MachineMeter` measures the machine and the processes that have the lake open,
`lags` says who is behind. `frame` lays all of it out for a screen.
"""

from typing import TYPE_CHECKING

from lakelog.runtime.lazy import lazy_face

if TYPE_CHECKING:
    from lakelog.top.feed import LiveFeed as LiveFeed
    from lakelog.top.feed import of_state as of_state
    from lakelog.top.lag import Lag as Lag
    from lakelog.top.lag import lags as lags
    from lakelog.top.layout import ORDERS as ORDERS
    from lakelog.top.layout import FrameOptions as FrameOptions
    from lakelog.top.layout import frame as frame
    from lakelog.top.machine import MachineFigures as MachineFigures
    from lakelog.top.machine import MachineMeter as MachineMeter
    from lakelog.top.rates import LakeFigures as LakeFigures

__getattr__, __all__ = lazy_face(__name__)
