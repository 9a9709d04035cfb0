"""Machine operations that numba does not offer, as LLVM instructions: they compile for every processor LLVM knows.

Imported only by kernel modules, because numba is slow to import. Little-endian machines only, as Arrow's own buffers
are in practice. Positions are not checked.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

LANES = 64  # bytes that classify_words looks at


def _pointer(context: Any, builder: Any, kind: Any, array: Any, position: Any, pointee: ir.Type) -> Any:
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [position], inbounds=True), pointee.as_pointer())


def _make_load(width: int, result: types.Integer) -> Any:
    """Make an unaligned little-endian load of ``width`` bits from a byte array."""

    @intrinsic
    def load(_typing, data, position):
        def generate(context, builder, signature, args):
            pointer = _pointer(context, builder, signature.args[0], args[0], args[1], ir.IntType(width))
            return builder.load(pointer, align=1)

        return result(data, position), generate

    return load


load8 = _make_load(8, types.uint8)
load32 = _make_load(32, types.uint32)
load64 = _make_load(64, types.uint64)


def _make_copy(count: int) -> Any:
    """Make a copy of ``count`` bytes between byte arrays."""

    @intrinsic
    def copy(_typing, source, source_position, target, target_position):
        def generate(context, builder, signature, args):
            vector = ir.VectorType(ir.IntType(8), count)
            kinds = signature.args
            value = builder.load(_pointer(context, builder, kinds[0], args[0], args[1], vector), align=1)
            builder.store(value, _pointer(context, builder, kinds[2], args[2], args[3], vector), align=1)
            return context.get_dummy_value()

        return types.void(source, source_position, target, target_position), generate

    return copy


def _trailing_zeros(_typing, value):
    """Return the number of zero bits below the lowest set bit of a uint64; undefined for 0."""

    def generate(context, builder, signature, args):
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.uint64(types.uint64), generate


def _fold(_typing, a, b):
    """Return the low xor the high half of the 128-bit product of two uint64."""

    def generate(context, builder, signature, args):
        wide = ir.IntType(128)
        product = builder.mul(builder.zext(args[0], wide), builder.zext(args[1], wide))
        high = builder.trunc(builder.lshr(product, ir.Constant(wide, 64)), ir.IntType(64))
        return builder.xor(builder.trunc(product, ir.IntType(64)), high)

    return types.uint64(types.uint64, types.uint64), generate


def _classify_words(_typing, data, position, lowered):
    """Write 64 ASCII bytes lower-cased to ``lowered``; return the bit masks of word characters and of bytes >= 128."""

    def generate(context, builder, signature, args):
        kinds = signature.args
        byte = ir.IntType(8)
        vector = ir.VectorType(byte, LANES)

        def every(value: int) -> Any:
            return ir.Constant(vector, [value] * LANES)

        def between(values: Any, first: str, last: str) -> Any:
            return builder.icmp_unsigned("<=", builder.sub(values, every(ord(first))), every(ord(last) - ord(first)))

        def mask(bits: Any) -> Any:
            return builder.bitcast(bits, ir.IntType(LANES))

        values = builder.load(_pointer(context, builder, kinds[0], args[0], args[1], vector), align=1)
        upper = between(values, "A", "Z")
        lower = builder.select(upper, builder.or_(values, every(0x20)), values)
        word = builder.or_(between(lower, "a", "z"), between(lower, "0", "9"))
        word = builder.or_(word, builder.icmp_unsigned("==", lower, every(ord("_"))))
        zero = ir.Constant(ir.IntType(64), 0)
        builder.store(lower, _pointer(context, builder, kinds[2], args[2], zero, vector), align=1)
        high = builder.icmp_unsigned(">=", values, every(0x80))
        return context.make_tuple(builder, signature.return_type, [mask(word), mask(high)])

    return types.UniTuple(types.uint64, 2)(data, position, lowered), generate


def _has_special_case(_typing, data, position):
    """Return whether one of 64 characters that begin here is 'İ' or 'Σ' in UTF-8; 65 bytes are read."""

    def generate(context, builder, signature, args):
        vector = ir.VectorType(ir.IntType(8), LANES)

        def equal(step: int, wanted: int) -> Any:
            at = builder.add(args[1], ir.Constant(ir.IntType(64), step))
            values = builder.load(_pointer(context, builder, signature.args[0], args[0], at, vector), align=1)
            return builder.icmp_unsigned("==", values, ir.Constant(vector, [wanted] * LANES))

        dotted, sigma = (builder.and_(equal(0, ord(c) >> 6 | 0xC0), equal(1, ord(c) & 0x3F | 0x80)) for c in "İΣ")
        mask = builder.bitcast(builder.or_(dotted, sigma), ir.IntType(LANES))
        return builder.icmp_unsigned("!=", mask, ir.Constant(mask.type, 0))

    return types.boolean(data, position), generate


copy4, copy16 = _make_copy(4), _make_copy(16)
trailing_zeros: Any = intrinsic(_trailing_zeros)
fold: Any = intrinsic(_fold)
classify_words: Any = intrinsic(_classify_words)
has_special_case: Any = intrinsic(_has_special_case)
