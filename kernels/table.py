"""The array table: the addresses that one update works on, and the check that they are still right.

Asking an array for its address takes Python a microsecond, more than the update of a thousand elements. But an array is
also a C structure whose fields NumPy promises to its extensions (``PyArrayObject_fields`` in ``ndarraytypes.h``,
the same since 2006), and ``id(array)`` is its address.

Rows
----
The table has a row of integers for each parameter:

======== ======= =============================================================================
column   name    meaning
======== ======= =============================================================================
0        START   number of elements in the rows before it, within its segment
1        STOP    START plus its own number of elements
2        NEXT    address of the next row
3        VALUE   address of the float64 scalars of this step
4        FOUND   1 if its gradient was found to be not finite
5        WALK    address of the walk of parameter and gradient, if they are strided
6        FORM    address of the form that the parameter must have
7        G_FORM  address of the form that the gradient must have
8        FIXED   1 if the gradient must stay at its address, because it overlaps what is written
9        SUMS    address of the sums of its blocks, if any are needed
10       TOUCHED address of the touched rows, if the gradient is row-sparse
11       DICE    address of what state is rounded with, if any is rounded at random
12       P       address of the parameter
13       G       address of the gradient
14 …     SLOTS   addresses of the state, one a slot
======== ======= =============================================================================

A *form* is what an array must look like: ``id`` of its type and of its dtype, the flags it must have, the lowest and
the highest byte of its elements relative to the first, the number of its axes, their lengths, and their strides in
bytes. The form of a Python float has NUMBER in place of a dtype. Its address in the table stays: that of its copy.

A *walk* describes a strided parameter in the order in which its state lies in memory: the number of axes, then for each
axis, the slowest first, its length and the strides of parameter and gradient in bytes.

*Touched rows* are the rows of a parameter that its row-sparse gradient has: the address of their indices, the number of
elements of each row, the address of the sums of their blocks, and the bytes from one row to the next in these sums, in
parameter, gradient and each slot. The gradient has only these rows, and a segment counts only their elements.

The *dice* are the address of the element of the state that has the number 0 and, for every two slots that are rounded
at random, the key of this step. Elements are numbered in the order in which they lie in memory.

A *segment* is a run of rows that one kernel processes. A program is a list of calls, run in order: a word COMMITTED,
which is 1 once all of them have run in this step, the number of calls, and for each of them the address of a kernel, of
the first row of a segment, and the numbers of the first element and the one after the last.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastoptim.kernels.jit import inline_jit
from fastoptim.kernels.memory import integers, scratch, set_word, word
from fastoptim.kernels.methods import Method, truth

__all__ = [
    "ALIGNED",
    "AXES",
    "CALLS",
    "COMMITTED",
    "COUNT",
    "DATA",
    "DICE",
    "FIXED",
    "FORM",
    "FOUND",
    "G_FORM",
    "HIGH",
    "ITEMS",
    "LOW",
]
__all__ += ["MOVES", "NEXT", "NUMBER", "SLOTS", "START", "STOP", "SUMS", "TOUCHED", "VALUE", "WALK", "WRITEABLE", "G"]
__all__ += ["P", "bind", "block_table", "each_row", "each_touched_row", "set_scalars"]

START, STOP, NEXT, VALUE, FOUND, WALK, FORM, G_FORM, FIXED, SUMS, TOUCHED, DICE, P, G, SLOTS = range(15)
COMMITTED, COUNT, CALLS = range(3)
MOVES = 8
NUMBER = 0

_REQUIRED, LOW, HIGH, _N_AXES, AXES = range(2, 7)
ALIGNED, WRITEABLE = 0x0100, 0x0400

# Every object begins with a header, 16 bytes or, without the GIL, 32, whose last word is its type.
_HEADER = object.__basicsize__ // 8
_TYPE = _HEADER - 1
ITEMS = tuple.__basicsize__ // 8
_VALUE = _LENGTH = _HEADER
DATA, _DIMS, _STRIDES, _DTYPE = (_HEADER + k for k in (0, 2, 3, 5))
_N_DIM, _FLAGS = (object.__basicsize__ + offset for offset in (8, 48))


@inline_jit
def _int32(address):
    # The other half of the word belongs to another field.
    return word(address, 0) & 0xFFFFFFFF


@inline_jit
def _is_number(form):
    return word(form, 1) == NUMBER


@inline_jit
def _has_form(array, form):
    n_axes = word(form, _N_AXES)
    if word(array, _TYPE) != word(form, 0):
        return False
    if _is_number(form):
        return True
    if word(array, _DTYPE) != word(form, 1):
        return False
    required = word(form, _REQUIRED)
    if _int32(array + _N_DIM) != n_axes or _int32(array + _FLAGS) & required != required:
        return False
    for k in range(n_axes):
        extent = word(form, AXES + k)
        if extent != word(word(array, _DIMS), k):
            return False
        # NumPy gives the stride of an axis of one element any value, because it has no meaning.
        if extent != 1 and word(form, AXES + n_axes + k) != word(word(array, _STRIDES), k):
            return False
    return True


@inline_jit
def _overlaps(spans, n_spans, start, stop):
    low, high = 0, n_spans
    while low < high:
        middle = (low + high) // 2
        if word(spans, 2 * middle + 1) <= start:
            low = middle + 1
        else:
            high = middle
    return low < n_spans and word(spans, 2 * low) < stop


N_ARRAYS: int
N_WORDS: int
loop: Any


def each_row(row, start, stop):
    """Call ``loop(row, start, stop)`` for each row of a segment, numbering its own elements from zero.

    A template, see `bind_globals`. If the loop were an argument, its address could remain in the code, which then could
    not be cached.
    """
    while start < stop:
        first, last = word(row, START), min(stop, word(row, STOP))
        if start < last:
            loop(row, start - first, last - first)
            start = last
        row = word(row, NEXT)


def each_touched_row(row, start, stop):
    """Call ``loop(row, start, stop)`` for each touched row of a parameter, as if it were a row of the table.

    A template, as `each_row` is; N_ARRAYS is the number of parameter, gradient and slots, N_WORDS that of a row.
    """
    one = scratch(np.intp, N_WORDS)
    for j in range(N_WORDS):
        set_word(one, j, word(row, j))
    touched = word(row, TOUCHED)
    indices, width, sums, n_bytes = integers(touched, 4)
    set_word(one, START, 0)
    set_word(one, STOP, width)
    while start < stop:
        k = start // width
        first = start - k * width
        last = min(width, first + stop - start)
        for j in range(N_ARRAYS):
            # The gradient has no other rows.
            place = k if j == G - P else word(indices, k)
            set_word(one, P + j, word(row, P + j) + place * word(touched, 4 + j))
        set_word(one, SUMS, sums + k * n_bytes)
        loop(one, first, last)
        start += last - first


# The thread has the GIL, so that no other one alters the arrays that are read.
@Method
def bind(check, arrays):
    """Begin a step: enter the addresses of its parameters and gradients into a table, if they have the expected forms.

    Parameters
    ----------
    check : array of intp
        Nine integers: address and number of the rows; address of the program; address and number of the
        pairs (start, stop), sorted and disjoint, of all memory that the update writes to; address and number of the
        ``id`` of arrays that must be writable as well, the views of a flat parameter; 1 if parameters may ever be other
        arrays than in the step before; and MOVES, 1 to enter their addresses now, without looking for overlaps.
    arrays : tuple
        Two of them, all parameters and all gradients, each a tuple in the order of the rows. If any is a
        Python float, all are; their values are copied.

    Returns
    -------
    bool
        False if an array has another form or a parameter is at another address, and then nothing has changed; or if a
        gradient overlaps what is written.
    """
    check = word(check, DATA)
    first, n_rows, program, spans, n_spans, views, n_views, may_move = integers(check, 8)
    params, grads = word(arrays, ITEMS), word(arrays, ITEMS + 1)
    moves = may_move and word(check, MOVES)
    set_word(program, COMMITTED, 0)
    for k in range(n_views):
        if not _int32(word(views, k) + _FLAGS) & WRITEABLE:
            return truth(False)
    row = first
    for k in range(n_rows):
        p, g = word(params, ITEMS + k), word(grads, ITEMS + k)
        if not (_has_form(p, word(row, FORM)) and _has_form(g, word(row, G_FORM))):
            return truth(False)
        if not (moves or _is_number(word(row, FORM))) and word(p, DATA) != word(row, P):
            return truth(False)
        row = word(row, NEXT)
    row = first
    for k in range(n_rows):
        p, g = word(params, ITEMS + k), word(grads, ITEMS + k)
        if _is_number(word(row, FORM)):
            # All are numbers then, and what is copied overlaps nothing.
            set_word(word(row, P), 0, word(p, _VALUE))
            set_word(word(row, G), 0, word(g, _VALUE))
            row = word(row, NEXT)
            continue
        set_word(row, P, word(p, DATA))
        start, g_form = word(g, DATA), word(row, G_FORM)
        if word(row, FIXED):
            if start != word(row, G):
                return truth(False)
        elif not moves and word(row, STOP) != word(row, START):
            low, high = start + word(g_form, LOW), start + word(g_form, HIGH)
            if _overlaps(spans, n_spans, low, high):
                return truth(False)
        set_word(row, G, start)
        row = word(row, NEXT)
    return truth(True)


@Method
def set_scalars(given, values):
    """Enter the scalars of a step, if they are a tuple of as many Python floats as the step takes.

    Parameters
    ----------
    given : array of intp
        Four integers: address and number of the float64 scalars; ``id`` of `tuple` and `float`.
    values : object
        What `Optimizer.scalars` returned.

    Returns
    -------
    bool
        False if they are anything else, and then nothing has changed.
    """
    scalars, count, of_values, of_value = integers(word(given, DATA), 4)
    if word(values, _TYPE) != of_values or word(values, _LENGTH) != count:
        return truth(False)
    for k in range(count):
        if word(word(values, ITEMS + k), _TYPE) != of_value:
            return truth(False)
    for k in range(count):
        set_word(scalars, k, word(word(values, ITEMS + k), _VALUE))
    return truth(True)


def block_table(scalars: Any, blocks: Any) -> Any:
    """Return a table with a row for each row of some blocks. It has no forms, so `bind` cannot be used with it.

    Parameters
    ----------
    scalars : ndarray of float64, shape (rows, scalars)
        The scalars of each row.
    blocks : sequence of ndarray, shape (rows, elements)
        Parameter, gradient and state. They must stay alive while the table is used, as the scalars must.
    """
    count, size = blocks[0].shape
    rows = np.zeros((count, P + len(blocks)), np.intp)
    numbers = np.arange(count)
    rows[:, START], rows[:, STOP] = numbers * size, (numbers + 1) * size
    rows[:, NEXT] = rows.ctypes.data + (numbers + 1) * rows.strides[0]
    for column, array in ((VALUE, scalars), *enumerate(blocks, P)):
        rows[:, column] = array.ctypes.data + numbers * array.strides[0]
    return rows
