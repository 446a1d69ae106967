"""Plots that are seen everywhere: as an image, too, where vl-convert is installed.

JupyterLab, VS Code and marimo draw Vega-Lite themselves. GitHub, nbconvert and notebooks without a
network do not, and show the image.
"""

from __future__ import annotations

import base64
import re
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from lakelog.runtime.lazy import Lazy

if TYPE_CHECKING:
    import altair as alt
    import vl_convert
else:
    alt, vl_convert = Lazy("altair"), Lazy("vl_convert")

_NAME, _OF_ALTAIR, _SCALE = "lakelog", "mimetype", 1.5


def register() -> None:
    """Have altair show images beside the plot, where both packages are installed."""
    if not (find_spec("altair") and find_spec("vl_convert")):
        return
    renderers: Any = alt.renderers
    renderers.enable(_OF_ALTAIR)
    draw = renderers.get()

    def bundle(spec: dict[str, object], **options: object) -> object:
        drawn = draw(spec, **options)
        data, metadata = drawn if isinstance(drawn, tuple) else (drawn, {})
        image: bytes = vl_convert.vegalite_to_png(spec, scale=_SCALE)
        # Altair 6 ends the type in `.json`, which notebooks do not take for JSON, nor save.
        data = {re.sub(r"\.json$", "+json", mime_type): value for mime_type, value in data.items()}
        return {**data, "image/png": base64.b64encode(image).decode()}, metadata

    renderers.register(_NAME, bundle)
    renderers.enable(_NAME)
