"""The products of a sparse layer in numba: one unit's row at a time, in blocks of vectors that stay in registers."""

from __future__ import annotations

import numpy as np
from numba import njit, types
from numba.extending import overload

from popup.products.choice import TOGETHER, bits_at_once, choose, nonzero
from popup.products.structure import BYTES
from popup.products.vectors import SQUARE, add_product, add_to, dot, load, store, turn, zeros

WRITTEN_IN = "ea628bc22e3279ac"  # digest of choice.py and vectors.py: numba compiles anew where the kernels' own file has changed
AT_ONCE = 256  # outputs for which all blocks are gone through before the next: their lists and sums stay in the cache


_inner = njit(nogil=True, boundscheck=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)  # called by kernels only


def _kernel(function):
    """A function beside which other threads run, compiled when it is first called and stored where a folder can be written."""
    try:
        return njit(function, nogil=True, boundscheck=False, cache=True)
    except RuntimeError:
        return njit(function, nogil=True, boundscheck=False)


def _begin(starts, number):
    """Where the row of an input begins: after as many rows of that length, or where a table says."""


@overload(_begin)
def _begin_as_compiled(starts, number):
    if isinstance(starts, types.Array):
        return lambda starts, number: starts[number]
    return lambda starts, number: starts * np.int64(number)


def _which(values, selected):
    """What is not 0 where an edge counts: `selected`, or for None the values themselves."""


@overload(_which)
def _which_as_compiled(values, selected):
    return (lambda values, selected: values) if isinstance(selected, types.NoneType) else lambda values, selected: selected


def _keep(values, which, inputs, kept_values, kept_inputs, place, edge, end, stop):
    """Keep as many of the edges from `edge` to `end` as can be kept by vectors: the edge and the place with which to go on."""


@overload(_keep)
def _keep_as_compiled(values, which, inputs, kept_values, kept_inputs, place, edge, end, stop):
    def by_vectors(values, which, inputs, kept_values, kept_inputs, place, edge, end, stop):
        while edge < end and edge + TOGETHER <= stop:  # no more are kept than were looked at, so not beyond `stop` either
            chosen = nonzero(which, edge) & ((1 << min(end - edge, TOGETHER)) - 1)
            choose(inputs, edge, chosen, kept_inputs, place)
            place = choose(values, edge, chosen, kept_values, place)
            edge += TOGETHER
        return edge, place

    def not_at_all(values, which, inputs, kept_values, kept_inputs, place, edge, end, stop):
        return edge, place

    return by_vectors if bits_at_once() else not_at_all


@_kernel
def keep(values, selected, inputs, begins, kept_values, kept_inputs, kept_begins, kept_ends, blocks, first, last):
    """Write the `values` that count and their inputs side by side, and where segments are, for the outputs `first` to `last`.

    Those count of which `selected` is not 0, or for None the value itself. Beyond a segment's end there may be written what
    the next one writes over, but nothing beyond `stop`, where another thread's begin.
    """
    which = _which(values, selected)
    place, stop = begins[first * blocks], begins[last * blocks]
    for segment in range(first * blocks, last * blocks):
        kept_begins[segment] = place
        edge, place = _keep(values, which, inputs, kept_values, kept_inputs, place, begins[segment], begins[segment + 1], stop)
        for one in range(edge, begins[segment + 1]):
            kept_values[place], kept_inputs[place] = values[one], inputs[one]
            place += np.int64(which[one] != 0)  # a branch would be guessed wrong half of the time
        kept_ends[segment] = place


@_inner
def _widest(left):
    """How many vectors the next block has, if so many are left."""
    return 8 if left >= 8 else 4 if left >= 4 else 2 if left >= 2 else 1


@_inner
def _gather(nothing, start, skip, arguments):
    result, rows, starts, values, inputs, begins, ends, blocks, size, length, first, last = arguments
    for block in range(blocks):
        base = block * size
        for row in range(first, last):
            begin, end = begins[row * blocks + block], ends[row * blocks + block]
            if block and begin == end:
                continue
            total = load(nothing, result, row * length + start, 0) if block else nothing
            for place in range(begin, end):
                total = add_product(total, values[place], rows, start + _begin(starts, base + inputs[place]))
            store(total, result, row * length + start)  # what was to be skipped is the same once more


@_kernel
def gather(result, rows, starts, values, inputs, begins, ends, blocks, size, length, first, last, left, stop):
    """result[o, left:stop] = the sum of value * (the input's row) over its edges, for the outputs from `first` to `last`.

    Of less than a vector, which is all that can be written at once, the numbers before `left` would be written too.
    """
    lanes = BYTES // result.itemsize
    for near in range(first, last, AT_ONCE):
        start, far = left, min(near + AT_ONCE, last)
        arguments = (result, rows, starts, values, inputs, begins, ends, blocks, size, length, near, far)
        while start < stop:
            count, back = _widest((stop - start) // lanes), min(start, stop - lanes)
            if count == 8:
                _gather(zeros(8, result), back, start - back, arguments)
            elif count == 4:
                _gather(zeros(4, result), back, start - back, arguments)
            elif count == 2:
                _gather(zeros(2, result), back, start - back, arguments)
            else:
                _gather(zeros(1, result), back, start - back, arguments)
            start += count * lanes


@_inner
def _scatter(nothing, start, skip, arguments):
    result, rows, starts, values, inputs, begins, ends, blocks, size, length, first, last = arguments
    for block in range(first, last):
        base = block * size
        for row in range(len(begins) // blocks):
            begin, end = begins[row * blocks + block], ends[row * blocks + block]
            if begin != end:
                factor = load(nothing, rows, row * length + start, skip)
                for place in range(begin, end):
                    add_to(factor, values[place], result, start + _begin(starts, base + inputs[place]))


@_kernel
def scatter(result, rows, starts, values, inputs, begins, ends, blocks, size, length, first, last, left, stop):
    """The input's row += the sum of value * rows[output, left:stop] over its edges, for the blocks of inputs from `first` to
    `last`."""
    lanes, start = BYTES // result.itemsize, left
    arguments = (result, rows, starts, values, inputs, begins, ends, blocks, size, length, first, last)
    while start < stop:
        count, back = _widest((stop - start) // lanes), min(start, stop - lanes)
        if count == 8:
            _scatter(zeros(8, result), back, start - back, arguments)
        elif count == 4:
            _scatter(zeros(4, result), back, start - back, arguments)
        elif count == 2:
            _scatter(zeros(2, result), back, start - back, arguments)
        else:
            _scatter(zeros(1, result), back, start - back, arguments)
        start += count * lanes


@_inner
def _dots(nothing, start, skip, arguments):
    result, others, rows, starts, inputs, begins, blocks, size, length, first, last, left = arguments
    for block in range(blocks):
        base = block * size
        for row in range(first, last):
            begin, end = begins[row * blocks + block], begins[row * blocks + block + 1]
            if begin == end:
                continue
            other = load(nothing, others, row * length + start, skip)
            if start + skip == left:
                for edge in range(begin, end):
                    result[edge] = dot(other, rows, start + _begin(starts, base + inputs[edge]))
            else:
                for edge in range(begin, end):
                    result[edge] += dot(other, rows, start + _begin(starts, base + inputs[edge]))


@_kernel
def dots(result, others, rows, starts, inputs, begins, blocks, size, length, first, last, left, stop):
    """result[e] = the product of others[output, left:stop] of the edge and its input's row there, for the outputs from `first` to
    `last`."""
    lanes = BYTES // result.itemsize
    for near in range(first, last, AT_ONCE):
        start, far = left, min(near + AT_ONCE, last)
        arguments = (result, others, rows, starts, inputs, begins, blocks, size, length, near, far, left)
        while start < stop:
            count, back = _widest((stop - start) // lanes), min(start, stop - lanes)
            if count == 8:
                _dots(zeros(8, result), back, start - back, arguments)
            elif count == 4:
                _dots(zeros(4, result), back, start - back, arguments)
            elif count == 2:
                _dots(zeros(2, result), back, start - back, arguments)
            else:
                _dots(zeros(1, result), back, start - back, arguments)
            start += count * lanes


@_kernel
def lay(result, images, first, last):
    """Copy images [n, channels, height, width] from `first` to `last`, whose channels lie side by side, to where columns do.

    A row of an image is turned by squares; the last ones cover once more a part of what is written already.
    """
    _, channels, height, width = images.shape
    size, squares = images.itemsize, min(channels, width) >= SQUARE
    into, of = [step // size for step in result.strides], [step // size for step in images.strides]
    for image in range(first, last):
        for row in range(height):
            place, start = image * into[0] + row * into[2], image * of[0] + row * of[2]
            if squares:
                for near in range(0, channels, SQUARE):
                    channel = min(near, channels - SQUARE)
                    for left in range(0, width, SQUARE):
                        column = min(left, width - SQUARE)
                        turn(result, place + channel * into[1] + column, into[1], images, start + column * of[3] + channel, of[3])
            else:
                for channel in range(channels):
                    for column in range(width):
                        result[image, channel, row, column] = images[image, channel, row, column]
