"""Read where an array lies, and how, without the interpreter.

To ask an array for its address takes Python a microsecond, more than the update of a thousand elements. But an array is
also a C structure whose fields NumPy promises to its extensions (``PyArrayObject_fields`` in ``ndarraytypes.h``,
the same since 2006); ``id(array)`` is its address.

Rows
----
What one update touches is a table of integers with a row for each array, and one more that holds only the total:

======== ===== =================================================================
column   name  meaning
======== ===== =================================================================
0        START number of elements in the rows before
1        ID    ``id`` of the parameter
2        VIEW  ``id`` of a view of it that nobody else has, and nobody can alter
3        VALUE address of the float64 scalars of this step
4        P     address of the parameter
5        G     address of the gradient
6 …      SLOTS addresses of the state, one a slot
======== ===== =================================================================

Before the first row stand words about the whole table: WIDTH (-3), the number of columns; FOUND (-2), 1 if a gradient
was found that is not finite; DONE (-1), 1 when the kernel has run over all rows in this step.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from fastoptim.kernels.jit import inner, jit
from fastoptim.kernels.memory import int32_at, integers, store

__all__ = ["DONE", "FOUND", "ID", "SLOTS", "START", "VALUE", "VIEW", "WIDTH", "G", "P", "refresh"]

START, ID, VIEW, VALUE, P, G, SLOTS = range(7)
WIDTH, FOUND, DONE = -3, -2, -1

_WORD = 8
# Every object begins with a header, 16 bytes or, without the GIL, 32, whose last word is its type.
_TYPE = object.__basicsize__ - _WORD
_ITEMS = tuple.__basicsize__
_DATA, _NDIM, _DIMS, _STRIDES, _DTYPE, _FLAGS = (object.__basicsize__ + offset for offset in (0, 8, 16, 24, 40, 48))
_ALIGNED, _WRITEABLE = 0x0100, 0x0400


@inner
def _word(address):
    return integers(address, 1)[0]


@inner
def _same_layout(a, b):
    ndim = int32_at(a + _NDIM)
    if ndim != int32_at(b + _NDIM):
        return False
    for k in range(ndim):
        extent = _word(_word(a + _DIMS) + k * _WORD)
        if extent != _word(_word(b + _DIMS) + k * _WORD):
            return False
        # The stride of a dimension of one element has no meaning, and NumPy gives it any value.
        if extent != 1 and _word(_word(a + _STRIDES) + k * _WORD) != _word(_word(b + _STRIDES) + k * _WORD):
            return False
    return True


@inner
def _overlaps(spans, n_spans, start, stop):
    low, high = 0, n_spans
    while low < high:
        middle = (low + high) // 2
        if _word(spans + (2 * middle + 1) * _WORD) <= start:
            low = middle + 1
        else:
            high = middle
    return low < n_spans and _word(spans + 2 * low * _WORD) < stop


# With the GIL, so that no other thread alters the arrays that are read; and to give it up costs more than they do.
@partial(jit, nogil=False)
def refresh(check, arrays):
    """Begin a step: point a table of rows to its gradients, if the table still tells the truth.

    Parameters
    ----------
    check : int
        Address of nine integers: address of the table, number of its arrays, number of its columns; bytes an element;
        address and number of the pairs (start, stop), sorted and disjoint, of all memory that the update writes to;
        address and number of the ``id`` of arrays that must be writable as well, the views of a flat parameter; and
        ``id(numpy.ndarray)``, which differs between processes, so it must not become a part of cached code.
    arrays : int
        ``id`` of a tuple of two, all parameters and all gradients, each a tuple in the order of the rows.

    Returns
    -------
    bool
        False if any parameter is another array than the table says, has been altered in shape, dtype or place, or is
        read-only, or if a gradient is not an aligned array of exactly the parameter's shape, dtype and order in memory,
        apart from all that is written to. The table may then hold some of the new addresses.
    """
    rows, n_rows, width, itemsize, spans, n_spans, views, n_views, ndarray = integers(check, 9)
    params, grads = _word(arrays + _ITEMS) + _ITEMS, _word(arrays + _ITEMS + _WORD) + _ITEMS
    store(np.intp, (rows + DONE * _WORD,), 0, 0)
    for k in range(n_views):
        if not int32_at(_word(views + k * _WORD) + _FLAGS) & _WRITEABLE:
            return False
    for k in range(n_rows):
        row = rows + k * width * _WORD
        p = _word(params + k * _WORD)
        view = _word(row + VIEW * _WORD)
        if (
            p != _word(row + ID * _WORD)
            or _word(p + _DATA) != _word(view + _DATA)
            or _word(p + _DTYPE) != _word(view + _DTYPE)
            or not int32_at(p + _FLAGS) & _WRITEABLE
            or not _same_layout(p, view)
        ):
            return False
        g = _word(grads + k * _WORD)
        if (
            _word(g + _TYPE) != ndarray
            or _word(g + _DTYPE) != _word(view + _DTYPE)
            or not int32_at(g + _FLAGS) & _ALIGNED
            or not _same_layout(g, view)
        ):
            return False
        start = _word(g + _DATA)
        count = _word(row + (width + START) * _WORD) - _word(row + START * _WORD)
        if _overlaps(spans, n_spans, start, start + count * itemsize):
            return False
        store(np.intp, (row + G * _WORD,), 0, start)
    return True
