"""Figures that a notebook shows without pyplot, and the font of their Chinese labels; needs matplotlib."""

from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.font_manager import findSystemFonts, fontManager

__all__ = ["Picture", "chinese_font"]

_FONTS = (
    "Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "Source Han Sans CN", "PingFang SC", "Hiragino Sans GB",
    "Microsoft YaHei", "SimHei", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Droid Sans Fallback", "Heiti SC",
    "STHeiti", "Arial Unicode MS", "SimSun", "Noto Sans CJK JP", "Noto Sans CJK TC", "Noto Serif CJK SC",
    "Noto Serif CJK JP",
)  # fmt: skip
"""Families with the characters of simplified Chinese, the best first; "JP" is all that some files of "SC" tell."""


class Picture(Figure):
    """A figure that a notebook shows also if pyplot was never imported."""

    def _repr_png_(self) -> bytes:
        stream = BytesIO()
        self.savefig(stream, format="png")
        return stream.getvalue()


@cache
def chinese_font() -> str | None:
    """Return a family of fonts with Chinese characters, of the system or of the package mplfonts, or None."""
    if name := _first():
        return name
    # Matplotlib keeps a list of the fonts that it found when it was first used; others may have been installed later.
    files = findSystemFonts()
    package = find_spec("mplfonts")
    if package and package.origin:
        files += findSystemFonts([Path(package.origin).parent / "fonts"])
    for path in {*files} - {font.fname for font in fontManager.ttflist}:
        # A file may be damaged, or of a kind that matplotlib does not draw.
        with suppress(OSError, RuntimeError):
            fontManager.addfont(path)
    return _first()


def _first() -> str | None:
    installed = {font.name for font in fontManager.ttflist}
    return next((name for name in _FONTS if name in installed), None)
