"""Numbers chosen from an array and put side by side, as numba compiles it.

By AVX-512, which has an instruction for it; by AVX2, where a table says for each choice among the numbers of a vector which of
them come first. On other processors numbers are chosen one by one, which takes some four times as long.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.extending import intrinsic

TOGETHER = 32  # numbers that are chosen from at once: a segment's edges are mostly fewer, so that one step is all it takes
WIDE, NARROW, NONE = 512, 256, 0  # bits of a vector of AVX-512, of AVX2, and where there is neither


def bits_at_once() -> int:
    """How wide the vectors are whose chosen lanes can be put side by side."""
    features = set(cpu_target.target_context.codegen().magic_tuple()[2].split(","))  # the host's, unless numba is told of another
    if {"+avx512f", "+avx512bw"} <= features:
        return WIDE
    return NARROW if {"+avx2", "+ssse3"} <= features else NONE


def _together(context, builder, kind, array, start):
    """array[start:start + TOGETHER], read."""
    address = cgutils.gep_inbounds(builder, context.make_array(kind)(context, builder, array).data, start)
    vector = ir.VectorType(context.get_data_type(kind.dtype), TOGETHER)
    return builder.load(builder.bitcast(address, vector.as_pointer()), align=kind.dtype.bitwidth // 8)


def _part(builder, vector, first, lanes):
    """`lanes` of the lanes, from the first of them."""
    numbers = ir.Constant(ir.VectorType(ir.IntType(32), lanes), list(range(first, first + lanes)))
    return builder.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined), numbers)


def _compressed(builder, numbers, chosen) -> Iterator[tuple[object, object]]:
    """By AVX-512, of each part of `numbers`: those whose bit of `chosen` is set side by side, then zeros; and their bits."""
    item, width = numbers.type.element, numbers.type.element.width if isinstance(numbers.type.element, ir.IntType) else None
    if width is not None and width < 32:  # what is narrower not every processor compresses, and it would not be faster
        numbers = builder.zext(numbers, ir.VectorType(ir.IntType(32), TOGETHER))
    element = numbers.type.element
    letter, width = ("i", element.width) if isinstance(element, ir.IntType) else ("f", 32 if element == ir.FloatType() else 64)
    lanes = WIDE // width
    flags = builder.bitcast(chosen, ir.VectorType(ir.IntType(1), TOGETHER))
    for first in range(0, TOGETHER, lanes):
        part, its = _part(builder, numbers, first, lanes), _part(builder, flags, first, lanes)
        function = builder.module.declare_intrinsic(f"llvm.x86.avx512.mask.compress.v{lanes}{letter}{width}",
                                                    fnty=ir.FunctionType(part.type, [part.type, part.type, its.type]))
        found = builder.call(function, [part, ir.Constant(part.type, None), its])
        found = builder.trunc(found, ir.VectorType(item, lanes)) if element != item else found
        yield found, builder.bitcast(its, ir.IntType(lanes))


@cache
def _orders(lanes: int, each: int) -> bytes:
    """For each choice among `lanes` numbers of `each` parts, as bits: which parts of them come first, then zeros."""
    found = bytearray()
    for bits in range(1 << lanes):
        parts = [lane * each + part for lane in range(lanes) if bits >> lane & 1 for part in range(each)]
        found += bytes(parts + [0] * (lanes * each - len(parts)))
    return bytes(found)


def _permuted(builder, numbers, chosen) -> Iterator[tuple[object, object]]:
    """By AVX2, the same: parts of 32 bits are put into an order, or of numbers of 16 bits the bytes."""
    item, short = numbers.type.element, numbers.type.element == ir.IntType(16)
    each, lanes = (2, 8) if short else (1, 8) if item == ir.FloatType() else (2, 4)
    part_of, name = (ir.IntType(8), "llvm.x86.ssse3.pshuf.b.128") if short else (ir.IntType(32), "llvm.x86.avx2.permd")
    vector, orders = ir.VectorType(part_of, lanes * each), _orders(lanes, each)
    table = cgutils.global_constant(builder, "orders", ir.Constant(ir.ArrayType(ir.IntType(8), len(orders)), bytearray(orders)))
    function = builder.module.declare_intrinsic(name, fnty=ir.FunctionType(vector, [vector, vector]))
    for first in range(0, TOGETHER, lanes):
        its = builder.trunc(builder.lshr(chosen, ir.Constant(chosen.type, first)), ir.IntType(lanes))
        row = builder.mul(builder.zext(its, ir.IntType(64)), ir.Constant(ir.IntType(64), lanes * each))
        address = builder.gep(table, [ir.Constant(ir.IntType(64), 0), row], inbounds=True)
        order = builder.load(builder.bitcast(address, ir.VectorType(ir.IntType(8), lanes * each).as_pointer()), align=1)
        order = order if short else builder.zext(order, vector)
        part = _part(builder, numbers, first, lanes)
        yield builder.bitcast(builder.call(function, [builder.bitcast(part, vector), order]), part.type), its


@intrinsic
def nonzero(typing, array, start):
    """The number whose bit i says whether array[start + i] is other than 0, for i < TOGETHER."""
    def build(context, builder, signature, given):
        numbers = _together(context, builder, array, *given)
        compare = builder.fcmp_unordered if isinstance(array.dtype, types.Float) else builder.icmp_unsigned  # NaN is not 0
        chosen = builder.bitcast(compare("!=", numbers, ir.Constant(numbers.type, None)), ir.IntType(TOGETHER))
        return builder.zext(chosen, ir.IntType(64))
    return types.int64(array, types.int64), build


@intrinsic
def choose(typing, source, start, bits, target, place):
    """Put those of source[start:start + TOGETHER] whose bit is set side by side from target[place]; give the place after them.

    Anything may be written to target[place:place + TOGETHER]: LLVM's own compressing store writes no more than is chosen, but
    takes AMD's processors a hundred cycles, while to compress or to permute a register is quick everywhere.
    """
    def build(context, builder, signature, given):
        numbers, place = _together(context, builder, source, given[0], given[1]), given[4]
        chosen, data = builder.trunc(given[2], ir.IntType(TOGETHER)), context.make_array(target)(context, builder, given[3]).data
        for part, its in (_compressed if bits_at_once() == WIDE else _permuted)(builder, numbers, chosen):
            address = builder.bitcast(cgutils.gep_inbounds(builder, data, place), part.type.as_pointer())
            builder.store(part, address, align=source.dtype.bitwidth // 8)
            place = builder.add(place, builder.zext(builder.ctpop(its), place.type))
        return place
    return types.int64(source, types.int64, types.int64, target, types.int64), build
