"""Small tables as text and as HTML, for the representations of objects in a terminal and in a notebook."""

import html
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

__all__ = ["Table", "columns_of", "shortened", "size_of"]

T = TypeVar("T")

# Colours come from the page: what is not set is black on white there, and light on dark here.
_CELL = "padding:0.15em 0.8em;text-align:{}"
_HEAD = "border-bottom:1px solid currentColor;"


@dataclass(frozen=True, repr=False)
class Table:
    """Rows of cells below their titles, with a caption in HTML.

    Parameters
    ----------
    titles : sequence of str
        The titles of the columns.
    rows : sequence of sequences of str
        The cells.
    left : int
        The number of columns, from the first on, whose cells are aligned on the left; numbers are aligned on the right.
    caption : str
        A line above the table in HTML. The text has none.

    Examples
    --------
    >>> print(Table(["name", "size"], [["W", "6"], ["b", "3"]]))
    name  size
    W        6
    b        3
    """

    titles: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int = 1
    caption: str = ""

    def __str__(self) -> str:
        lines = [self.titles, *self.rows]
        widths = [max(map(columns_of, column)) for column in zip(*lines, strict=True)]
        return "\n".join(self._line(line, widths) for line in lines)

    __repr__ = __str__

    def _line(self, cells: Sequence[str], widths: Sequence[int]) -> str:
        padded = []
        for i, (cell, width) in enumerate(zip(cells, widths, strict=True)):
            gap = " " * (width - columns_of(cell))
            padded.append(cell + gap if i < self.left else gap + cell)
        return "  ".join(padded).rstrip()

    def _repr_html_(self) -> str:
        caption = f"<div>{html.escape(self.caption)}</div>" if self.caption else ""
        body = "".join(self._html_row("td", row) for row in self.rows)
        return f"{caption}<table><thead>{self._html_row('th', self.titles)}</thead><tbody>{body}</tbody></table>"

    def _html_row(self, tag: str, cells: Iterable[str]) -> str:
        styles = (
            _HEAD * (tag == "th") + _CELL.format("left" if i < self.left else "right") for i in range(len(self.titles))
        )
        return (
            "<tr>"
            + "".join(
                f'<{tag} style="{style}">{html.escape(cell)}</{tag}>' for style, cell in zip(styles, cells, strict=True)
            )
            + "</tr>"
        )


def shortened(rows: Iterable[T], ellipsis: T, limit: int = 40) -> list[T]:
    """Return the first rows and the last, and an ellipsis between them if there are more than `limit`."""
    all_rows = list(rows)
    half = limit // 2
    return all_rows if len(all_rows) <= limit else [*all_rows[:half], ellipsis, *all_rows[-half:]]


def size_of(n_bytes: int) -> str:
    """Return a number of bytes in the unit in which it has at most four digits before the point."""
    size, units = float(n_bytes), iter(("bytes", "KiB", "MiB", "GiB"))
    unit = next(units)
    for larger in units:
        if size < 10_000:
            break
        size, unit = size / 1024, larger
    return f"{size:.0f} {unit}" if size >= 100 or unit == "bytes" else f"{size:.1f} {unit}"


def columns_of(text: str) -> int:
    """Return the number of columns that a terminal takes for a text; Chinese characters take two."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)
