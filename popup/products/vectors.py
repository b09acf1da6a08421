"""Blocks of vectors in registers, as numba compiles them: what the kernels are written in.

A row (one unit of the layer for all examples) is worked on in blocks of V vectors of 64 bytes that stay in registers; numba's
own loops would be half as wide and keep their sums in memory. V is part of a block's type, so that each operation below is
unrolled, and a function is compiled for each V that it is called with. Where a processor's vectors are narrower than
64 bytes LLVM splits them by itself.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

from popup.products.structure import BYTES

SQUARE = 8  # rows and columns of what is turned at once: 8 registers of AVX2 in float32


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


class _Row:
    """array[start:] as vectors, while code is built: what is read and written there."""

    def __init__(self, context: object, builder: ir.IRBuilder, block: Vectors, kind: types.Array,
                 array: object, start: object) -> None:
        address = cgutils.gep_inbounds(builder, context.make_array(kind)(context, builder, array).data, start)
        self.builder, self.first, self.align = builder, builder.bitcast(address, block.vector.as_pointer()), BYTES // block.lanes

    def _address(self, number: int) -> object:
        return self.builder.gep(self.first, [ir.Constant(ir.IntType(64), number)])

    def read(self, number: int) -> object:
        return self.builder.load(self._address(number), align=self.align)

    def write(self, number: int, vector: object) -> None:
        self.builder.store(vector, self._address(number), align=self.align)


def _spread(builder, scalar, vector):
    """A vector of which every lane is the scalar."""
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0))
    lanes = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), [0] * vector.count)
    return builder.shuffle_vector(first, ir.Constant(vector, ir.Undefined), lanes)


def _add_product(builder, total, one, other):
    """total + one * other, rounded once where the processor can."""
    return builder.fadd(total, builder.fmul(one, other, flags=("contract",)), flags=("contract",))


@intrinsic(prefer_literal=True)
def zeros(typing, count, array):
    """A block of `count` vectors (a literal) of the array's type, all 0."""
    kind = Vectors(array.dtype, count.literal_value)
    return kind(count, array), lambda context, builder, signature, given: ir.Constant(ir.ArrayType(kind.vector, kind.count), None)


@intrinsic
def load(typing, like, array, start, skip):
    """A block as large as `like` from array[start:], of which the first `skip` numbers (fewer than a vector's) count as 0."""
    def build(context, builder, signature, given):
        row, whole = _Row(context, builder, like, array, given[1], given[2]), ir.VectorType(ir.IntType(64), like.lanes)
        counts = builder.icmp_signed(">=", ir.Constant(whole, list(range(like.lanes))), _spread(builder, given[3], whole))
        block = builder.insert_value(given[0], builder.select(counts, row.read(0), ir.Constant(like.vector, None)), 0)
        for number in range(1, like.count):
            block = builder.insert_value(block, row.read(number), number)
        return block
    return like(like, array, types.int64, types.int64), build


@intrinsic
def store(typing, block, array, start):
    """Write a block to array[start:]."""
    def build(context, builder, signature, given):
        row = _Row(context, builder, block, array, given[1], given[2])
        for number in range(block.count):
            row.write(number, builder.extract_value(given[0], number))
        return context.get_dummy_value()
    return types.void(block, array, types.int64), build


@intrinsic
def add_product(typing, block, factor, array, start):
    """block + factor * array[start:]."""
    def build(context, builder, signature, given):
        row, factors = _Row(context, builder, block, array, given[2], given[3]), _spread(builder, given[1], block.vector)
        result = given[0]
        for number in range(block.count):
            total = _add_product(builder, builder.extract_value(result, number), factors, row.read(number))
            result = builder.insert_value(result, total, number)
        return result
    return block(block, block.item, array, types.int64), build


@intrinsic
def add_to(typing, block, factor, array, start):
    """array[start:] += factor * block."""
    def build(context, builder, signature, given):
        row, factors = _Row(context, builder, block, array, given[2], given[3]), _spread(builder, given[1], block.vector)
        for number in range(block.count):
            row.write(number, _add_product(builder, row.read(number), factors, builder.extract_value(given[0], number)))
        return context.get_dummy_value()
    return types.void(block, block.item, array, types.int64), build


@intrinsic
def dot(typing, block, array, start):
    """The sum of block * array[start:], a number."""
    def build(context, builder, signature, given):
        row = _Row(context, builder, block, array, given[1], given[2])
        totals = [ir.Constant(block.vector, None)] * min(2, block.count)  # two chains, so that one does not wait for itself
        for number in range(block.count):
            one = builder.extract_value(given[0], number)
            totals[number % 2] = _add_product(builder, totals[number % 2], one, row.read(number))
        total, scalar = totals[0] if len(totals) == 1 else builder.fadd(*totals), block.vector.element
        function = builder.module.declare_intrinsic(f"llvm.vector.reduce.fadd.v{block.lanes}f{block.item.bitwidth}",
                                                    fnty=ir.FunctionType(scalar, [scalar, block.vector]))
        return builder.call(function, [ir.Constant(scalar, -0.0), total], fastmath=("reassoc",))
    return block.item(block, array, types.int64), build


@intrinsic
def turn(typing, target, place, apart, source, start, step):
    """target[place + j * apart + i] = source[start + i * step + j] for i and j below SQUARE: a square, its rows made columns."""
    def build(context, builder, signature, given):
        vector = ir.VectorType(context.get_data_type(target.dtype), SQUARE)
        rows = []
        for number in range(SQUARE):
            address = _numbered(context, builder, source, given[3], given[4], given[5], number)
            rows.append(builder.load(builder.bitcast(address, vector.as_pointer()), align=target.dtype.bitwidth // 8))
        half = SQUARE // 2
        while half:  # what stands apart by half of a square, by a quarter ..., changes its row for its column
            rows = _exchanged(builder, rows, half)
            half //= 2
        for number in range(SQUARE):
            address = _numbered(context, builder, target, given[0], given[1], given[2], number)
            builder.store(rows[number], builder.bitcast(address, vector.as_pointer()), align=target.dtype.bitwidth // 8)
        return context.get_dummy_value()
    return types.void(target, types.int64, types.int64, source, types.int64, types.int64), build


def _numbered(context, builder, kind, array, start, step, number):
    """The address of array[start + number * step], `array` taken as what lies from its first number on."""
    place = builder.add(start, builder.mul(step, ir.Constant(step.type, number)))
    return builder.gep(context.make_array(kind)(context, builder, array).data, [place])


def _exchanged(builder, rows, half):
    """The rows, of which row i's upper halves of 2 * half lanes are exchanged with the lower halves of row i + half."""
    lanes, result = range(SQUARE), list(rows)
    for row in lanes:
        if row & half:
            continue
        below = [SQUARE + lane - half if lane & half else lane for lane in lanes]
        above = [SQUARE + lane if lane & half else lane + half for lane in lanes]
        for number, order in ((row, below), (row + half, above)):
            numbers = ir.Constant(ir.VectorType(ir.IntType(32), SQUARE), order)
            result[number] = builder.shuffle_vector(rows[row], rows[row + half], numbers)
    return result
