"""The products of a sparse layer as numba compiles them: the one module that needs numba.

A row (one unit of the layer for all examples) is worked on in blocks of V vectors of 64 bytes that stay in registers; numba's
own loops would be half as wide and keep their sums in memory. V is part of a block's type, so that each operation below is
unrolled, and a function is compiled for each V that it is called with. Where a processor's vectors are narrower than
64 bytes LLVM splits them by itself.

Everything is in one file, since numba compiles anew what it has stored on disk only where the file of a kernel has changed.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

AT_ONCE = 256  # outputs for which all blocks are gone through before the next: their lists and sums stay in the cache
BYTES = 64  # of a vector: an AVX-512 register, a line of the cache


class Vectors(types.Type):
    """`count` vectors of a float type, in registers."""

    def __init__(self, item: types.Float, count: int) -> None:
        self.item, self.count = item, count
        super().__init__(name=f"Vectors({item}, {count})")

    @property
    def lanes(self) -> int:
        """How many numbers one vector holds."""
        return BYTES // (self.item.bitwidth // 8)

    @property
    def vector(self) -> ir.VectorType:
        """The vector as LLVM has it."""
        return ir.VectorType(ir.FloatType() if self.item.bitwidth == 32 else ir.DoubleType(), self.lanes)


@register_model(Vectors)
class VectorsModel(models.PrimitiveModel):
    """An array of LLVM's vectors: as good as so many variables, since it is only ever indexed by constants."""

    def __init__(self, manager: object, kind: Vectors) -> None:
        super().__init__(manager, kind, ir.ArrayType(kind.vector, kind.count))


def _address(context, builder, array_type, array, start, vector):
    """Where `array[start]` lies, as the address of a vector."""
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(cgutils.gep_inbounds(builder, data, start), vector.as_pointer())


def _load(builder, address, number, item):
    return builder.load(builder.gep(address, [ir.Constant(ir.IntType(64), number)]), align=item.bitwidth // 8)


def _spread(builder, scalar, vector):
    """A vector of which every lane is the scalar."""
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0))
    lanes = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), [0] * vector.count)
    return builder.shuffle_vector(first, ir.Constant(vector, ir.Undefined), lanes)


@intrinsic(prefer_literal=True)
def zeros(typing, count, array):
    """A block of `count` vectors (a literal) of the array's type, all 0."""
    kind = Vectors(array.dtype, count.literal_value)
    return kind(count, array), lambda context, builder, signature, arguments: ir.Constant(
        ir.ArrayType(kind.vector, kind.count), None)


@intrinsic
def load(typing, like, array, start, skip):
    """A block as large as `like` from array[start:], of which the first `skip` numbers (fewer than a vector's) count as 0."""
    def build(context, builder, signature, arguments):
        vector = like.vector
        address = _address(context, builder, array, arguments[1], arguments[2], vector)
        whole = ir.VectorType(ir.IntType(64), like.lanes)
        numbers = ir.Constant(whole, list(range(like.lanes)))
        counts = builder.icmp_signed(">=", numbers, _spread(builder, arguments[3], whole))
        block = ir.Constant(ir.ArrayType(vector, like.count), ir.Undefined)
        for number in range(like.count):
            found = _load(builder, address, number, like.item)
            found = builder.select(counts, found, ir.Constant(vector, None)) if number == 0 else found
            block = builder.insert_value(block, found, number)
        return block
    return like(like, array, types.int64, types.int64), build


@intrinsic
def store(typing, block, array, start):
    """Write a block to array[start:]."""
    def build(context, builder, signature, arguments):
        address = _address(context, builder, array, arguments[1], arguments[2], block.vector)
        for number in range(block.count):
            place = builder.gep(address, [ir.Constant(ir.IntType(64), number)])
            builder.store(builder.extract_value(arguments[0], number), place, align=block.item.bitwidth // 8)
        return context.get_dummy_value()
    return types.void(block, array, types.int64), build


@intrinsic
def add_product(typing, block, factor, array, start):
    """block + factor * array[start:]."""
    def build(context, builder, signature, arguments):
        address = _address(context, builder, array, arguments[2], arguments[3], block.vector)
        factors, result = _spread(builder, arguments[1], block.vector), arguments[0]
        for number in range(block.count):
            product = builder.fmul(factors, _load(builder, address, number, block.item), flags=("contract",))
            total = builder.fadd(builder.extract_value(result, number), product, flags=("contract",))
            result = builder.insert_value(result, total, number)
        return result
    return block(block, block.item, array, types.int64), build


@intrinsic
def dot(typing, block, array, start):
    """The sum of block * array[start:], a number."""
    def build(context, builder, signature, arguments):
        address = _address(context, builder, array, arguments[1], arguments[2], block.vector)
        totals = [ir.Constant(block.vector, None)] * min(2, block.count)  # two chains, so that one does not wait for itself
        for number in range(block.count):
            found = _load(builder, address, number, block.item)
            product = builder.fmul(builder.extract_value(arguments[0], number), found, flags=("contract",))
            totals[number % 2] = builder.fadd(totals[number % 2], product, flags=("contract",))
        total = totals[0] if len(totals) == 1 else builder.fadd(*totals)
        scalar = block.vector.element
        name = f"llvm.vector.reduce.fadd.v{block.lanes}f{block.item.bitwidth}"
        function = builder.module.declare_intrinsic(name, fnty=ir.FunctionType(scalar, [scalar, block.vector]))
        return builder.call(function, [ir.Constant(scalar, -0.0), total], fastmath=("reassoc",))
    return block.item(block, array, types.int64), build


def _kernel(function):
    """A function beside which other threads run, compiled when it is first called and stored where a folder can be written."""
    try:
        return njit(function, nogil=True, boundscheck=False, cache=True)
    except RuntimeError:
        return njit(function, nogil=True, boundscheck=False)


@_kernel
def _combine_tile(nothing, result, rows, values, numbers, begins, ends, blocks, size, length, start, first, last):
    for block in range(blocks):
        base = block * size * length + start
        for row in range(first, last):
            begin, end = begins[row * blocks + block], ends[row * blocks + block]
            if block and begin == end:
                continue
            total = load(nothing, result, row * length + start, 0) if block else nothing
            for place in range(begin, end):
                total = add_product(total, values[place], rows, base + numbers[place] * length)
            store(total, result, row * length + start)


@_kernel
def combine(result, rows, values, numbers, begins, ends, blocks, size, length, first, last):
    """result[o] = the sum of value * rows[number of its segment's block], for the outputs from `first` to `last`.

    A row has `length` numbers, a vector's at the least. What the last vectors leave over is done by one that reaches back
    into what has been done: it writes the same there once more.
    """
    lanes = BYTES // result.itemsize
    for near in range(first, last, AT_ONCE):
        far, start = min(near + AT_ONCE, last), 0
        while start + 8 * lanes <= length:
            _combine_tile(zeros(8, result), result, rows, values, numbers, begins, ends, blocks, size, length, start, near, far)
            start += 8 * lanes
        if start + 4 * lanes <= length:
            _combine_tile(zeros(4, result), result, rows, values, numbers, begins, ends, blocks, size, length, start, near, far)
            start += 4 * lanes
        if start + 2 * lanes <= length:
            _combine_tile(zeros(2, result), result, rows, values, numbers, begins, ends, blocks, size, length, start, near, far)
            start += 2 * lanes
        while start < length:
            begin = min(start, length - lanes)
            _combine_tile(zeros(1, result), result, rows, values, numbers, begins, ends, blocks, size, length, begin, near, far)
            start += lanes


@_kernel
def _dots_tile(nothing, result, others, rows, numbers, begins, blocks, size, length, start, skip, first, last):
    for block in range(blocks):
        base = block * size * length + start
        for row in range(first, last):
            begin, end = begins[row * blocks + block], begins[row * blocks + block + 1]
            if begin == end:
                continue
            other = load(nothing, others, row * length + start, skip)
            if start + skip == 0:
                for edge in range(begin, end):
                    result[edge] = dot(other, rows, base + numbers[edge] * length)
            else:
                for edge in range(begin, end):
                    result[edge] += dot(other, rows, base + numbers[edge] * length)


@_kernel
def dots(result, others, rows, numbers, begins, blocks, size, length, first, last):
    """result[e] = the product of the edge's row of `others` and its row of `rows`, for the outputs from `first` to `last`."""
    lanes = BYTES // result.itemsize
    for near in range(first, last, AT_ONCE):
        far, start = min(near + AT_ONCE, last), 0
        while start + 8 * lanes <= length:
            _dots_tile(zeros(8, result), result, others, rows, numbers, begins, blocks, size, length, start, 0, near, far)
            start += 8 * lanes
        if start + 4 * lanes <= length:
            _dots_tile(zeros(4, result), result, others, rows, numbers, begins, blocks, size, length, start, 0, near, far)
            start += 4 * lanes
        if start + 2 * lanes <= length:
            _dots_tile(zeros(2, result), result, others, rows, numbers, begins, blocks, size, length, start, 0, near, far)
            start += 2 * lanes
        while start < length:
            begin = min(start, length - lanes)
            _dots_tile(zeros(1, result), result, others, rows, numbers, begins, blocks, size, length, begin, start - begin,
                       near, far)
            start += lanes


@_kernel
def keep(values, inputs, by_output, by_input, input_blocks, input_size, output_blocks, output_size, outs,
         output_values, output_numbers, output_ends, input_values, input_numbers, input_ends, first, last):
    """Write the nonzero `values` and their numbers to the lists of both walks, for the blocks of outputs `first` to `last`."""
    ins = len(input_ends) // output_blocks
    places = np.empty(ins, dtype=np.int64)
    for block in range(first, last):
        for unit in range(ins):
            places[unit] = by_input[unit * output_blocks + block]
        begin = block * output_size
        for output in range(begin, min(begin + output_size, outs)):
            for input_block in range(input_blocks):
                segment, base = output * input_blocks + input_block, input_block * input_size
                place = by_output[segment]
                for edge in range(by_output[segment], by_output[segment + 1]):
                    value, number = values[edge], inputs[edge]
                    unit, chosen = base + number, value != 0
                    output_values[place], output_numbers[place] = value, number
                    input_values[places[unit]], input_numbers[places[unit]] = value, output - begin
                    place += chosen
                    places[unit] += chosen
                output_ends[segment] = place
        for unit in range(ins):
            input_ends[unit * output_blocks + block] = places[unit]
