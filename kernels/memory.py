"""Memory by address: what a kernel needs to process arrays that are not its arguments.

Each function is the LLVM instructions that it compiles to.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import intrinsic

from fastoptim.kernels.bfloat16 import BFloat16, key_halves, random_bits, rounded, widened
from fastoptim.kernels.jit import HAS_FMA
from fastoptim.kernels.promotion import HALF, Weak, cast

__all__ = ["add_up", "call", "copy_elements", "integers", "load", "prefetch", "scalars", "scratch", "set_word", "store"]
__all__ += ["store_rounded", "word"]

_WORD = ir.IntType(64)
_LINE = 64
"""Bytes of a cache line."""
_intrinsic = intrinsic(prefer_literal=True)


def _element(builder: Any, element: ir.Type, address: Any, index: Any) -> Any:
    return builder.gep(builder.inttoptr(address, element.as_pointer()), [index])


def _dtype(kind: Any) -> Any:
    return HALF if kind.instance_type == types.float16 else kind.instance_type


def _dtypes(kinds: Any) -> list[Any]:
    return [_dtype(kind) for kind in kinds]


def _computed(dtype: Any) -> Any:
    """Return the type of the values that elements of a type are in compiled code."""
    return types.float32 if isinstance(dtype, BFloat16) else dtype


def _in_memory(context: Any, dtype: Any) -> ir.Type:
    if isinstance(dtype, BFloat16):
        return ir.IntType(16)
    return ir.HalfType() if dtype == HALF else context.get_value_type(dtype)


def _loaded(builder: Any, dtype: Any, value: Any) -> Any:
    if isinstance(dtype, BFloat16):
        return widened(builder, value)
    return builder.fpext(value, ir.FloatType()) if dtype == HALF else value


@_intrinsic
def word(_typing: Any, _address: Any, index: Any) -> Any:
    """Return the address-sized integer number ``index`` from an address on."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        offset = context.cast(builder, args[1], signature.args[1], types.intp)
        return builder.load(_element(builder, _WORD, args[0], offset))

    return types.intp(types.intp, index), codegen


@_intrinsic
def set_word(_typing: Any, _address: Any, index: Any, value: Any) -> Any:
    """Store an address-sized integer as number ``index`` from an address on."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        offset, number = (context.cast(builder, args[k], signature.args[k], types.intp) for k in (1, 2))
        builder.store(number, _element(builder, _WORD, args[0], offset))
        return context.get_dummy_value()

    return types.void(types.intp, index, value), codegen


@_intrinsic
def integers(_typing: Any, address: Any, count: Any) -> Any:
    """Return the ``count`` address-sized integers at an address; the count is a constant of the program."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        values = [builder.load(_element(builder, _WORD, args[0], _WORD(k))) for k in range(count.literal_value)]
        return context.make_tuple(builder, signature.return_type, values)

    return types.UniTuple(types.intp, count.literal_value)(address, count), codegen


@_intrinsic
def scalars(_typing: Any, T: Any, address: Any, count: Any) -> Any:
    """Return the ``count`` float64 numbers at an address, each rounded once to type ``T``, or weak if that is None."""
    dtype = Weak(True) if T is types.none else T.instance_type

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        numbers = [
            builder.load(_element(builder, ir.DoubleType(), args[1], _WORD(k))) for k in range(count.literal_value)
        ]
        weak = isinstance(dtype, Weak)
        values = [number if weak else context.cast(builder, number, types.float64, dtype) for number in numbers]
        return context.make_tuple(builder, signature.return_type, values)

    return types.UniTuple(dtype, count.literal_value)(T, address, count), codegen


def _is_apart(module: ir.Module, instruction: Any, array: int, n_arrays: int) -> None:
    """Let LLVM know that one of the arrays of a kernel shares no memory with the others, which it need not check."""

    def named(name: str, *operands: Any) -> Any:
        return module.add_metadata([ir.MetaDataString(module, name), *operands])

    scopes = [named(f"array {k}", named("arrays of a kernel")) for k in range(n_arrays)]
    instruction.set_metadata("alias.scope", module.add_metadata([scopes.pop(array)]))
    instruction.set_metadata("noalias", module.add_metadata(scopes))


@_intrinsic
def load(_typing: Any, kinds: Any, addresses: Any, index: Any) -> Any:
    """Return the element ``index`` of each of several arrays, given by their types and addresses."""
    dtypes = _dtypes(kinds)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointers = cgutils.unpack_tuple(builder, args[1], len(dtypes))
        values = []
        for k, (dtype, pointer) in enumerate(zip(dtypes, pointers, strict=True)):
            value = builder.load(_element(builder, _in_memory(context, dtype), pointer, args[2]))
            _is_apart(builder.module, value, k, len(dtypes))
            values.append(_loaded(builder, dtype, value))
        return context.make_tuple(builder, signature.return_type, values)

    return types.Tuple([_computed(dtype) for dtype in dtypes])(kinds, addresses, index), codegen


def _check_stored(dtypes: list[Any], values: Any) -> tuple[Any, ...]:
    """Return the types of what is to be stored as elements of some types, or raise an error."""
    given = tuple(values) if isinstance(values, types.BaseTuple) else (values,)
    if len(given) != len(dtypes):
        count = f"{len(given)} value{'s' * (len(given) > 1)}"
        raise TypingError(f"it returns {count}, expected {len(dtypes)}: the parameter and its state")
    if not all(isinstance(kind, types.Number | types.Boolean | Weak) for kind in given):
        raise TypingError(f"it returns {', '.join(map(str, given))}, expected numbers; is a return missing?")
    return given


@_intrinsic
def store(_typing: Any, kinds: Any, addresses: Any, index: Any, values: Any) -> Any:
    """Store one value, or a tuple of them, as element ``index`` of as many arrays, given by types and addresses."""
    dtypes = _dtypes(kinds)
    given = _check_stored(dtypes, values)

    def codegen(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        unpacked = cgutils.unpack_tuple(builder, args[3]) if isinstance(values, types.BaseTuple) else [args[3]]
        pointers = cgutils.unpack_tuple(builder, args[1], len(dtypes))
        for dtype, pointer, value, kind in zip(dtypes, pointers, unpacked, given, strict=True):
            _store(context, builder, dtype, pointer, args[2], cast(context, builder, value, kind, _computed(dtype)))
        return context.get_dummy_value()

    return types.void(kinds, addresses, index, values), codegen


def _store(context: Any, builder: Any, dtype: Any, address: Any, index: Any, value: Any, noise: Any = None) -> Any:
    if isinstance(dtype, BFloat16):
        value = rounded(builder, value, noise)
    elif dtype == HALF:
        value = builder.fptrunc(value, ir.HalfType())
    return builder.store(value, _element(builder, _in_memory(context, dtype), address, index))


@_intrinsic
def store_rounded(_typing: Any, kinds: Any, addresses: Any, index: Any, values: Any, dice: Any) -> Any:
    """Store as `store` does, and round at random where the type of an array says so.

    ``dice`` is a tuple of integers, empty if no array is rounded so: the address at which the first of those arrays
    would begin if the counter of its first element were 0, and a key for every two of them.
    """
    dtypes = _dtypes(kinds)
    given = _check_stored(dtypes, values)
    at_random = [k for k, dtype in enumerate(dtypes) if isinstance(dtype, BFloat16) and dtype.is_random]

    def codegen(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        unpacked = cgutils.unpack_tuple(builder, args[3]) if isinstance(values, types.BaseTuple) else [args[3]]
        pointers = cgutils.unpack_tuple(builder, args[1], len(dtypes))
        halves: list[Any] = []
        if at_random:
            base, *keys = cgutils.unpack_tuple(builder, args[4])
            first = builder.lshr(builder.sub(pointers[at_random[0]], base), _WORD(1))
            # Vectors of 64 bits would take twice as long to count in.
            counter = builder.add(*(builder.trunc(number, ir.IntType(32)) for number in (first, args[2])))
            halves = [random_bits(builder, counter, key_halves(builder, key)) for key in keys]
        for k, (dtype, pointer, value, kind) in enumerate(zip(dtypes, pointers, unpacked, given, strict=True)):
            value = cast(context, builder, value, kind, _computed(dtype))
            place = at_random.index(k) if k in at_random else None
            noise = None if place is None else halves[place // 2](place % 2)
            stored = _store(context, builder, dtype, pointer, args[2], value, noise)
            # The gradient is the second of all arrays, and nothing is stored to it.
            _is_apart(builder.module, stored, k + (k > 0), len(dtypes) + 1)
        return context.get_dummy_value()

    return types.void(kinds, addresses, index, values, dice), codegen


@_intrinsic
def add_up(_typing: Any, T: Any, _address: Any, count: Any, _squares: Any, _read: Any, size: Any) -> Any:
    """Return the float64 sum of ``count`` numbers of type ``T``, or of their squares; the count is a multiple of 64.

    Eight vectors of eight partial sums each are added pairwise in the end, as LLVM may not reorder a sum by itself. The
    square of a float32 number is exact in float64, so that a fused multiply-add gives the same bits. Meanwhile ``size``
    bytes for each number are fetched, from 4 KB after an address on into the fastest cache, and from 16 KB after it
    into the next one: of a single stream, processors fetch too little ahead by themselves.
    """
    vector, is_double = ir.VectorType(ir.DoubleType(), 8), T.instance_type == types.float64
    function = ir.FunctionType(vector, [vector] * 3)

    def codegen(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        given, step = ir.VectorType(context.get_value_type(T.instance_type), 8), 64 * size.literal_value
        places = [cgutils.alloca_once_value(builder, ir.Constant(vector, None)) for _ in range(8)]
        # LLVM does not unroll the loop around a long text, and would then choose between x and 1 for each vector.
        with cgutils.for_range(builder, _WORD(count.literal_value // 64)) as loop:
            read = builder.add(args[4], builder.mul(loop.index, _WORD(step)))
            for offset in range(0, step, _LINE):
                _fetch(builder, builder.add(read, _WORD(offset + 4096)), 3)
                _fetch(builder, builder.add(read, _WORD(offset + 16384)), 2)
            for k, place in enumerate(places):
                index = builder.add(builder.mul(loop.index, _WORD(8)), _WORD(k))
                x = builder.load(_element(builder, given, args[1], index), align=T.instance_type.bitwidth // 8)
                x = x if is_double else builder.fpext(x, vector)
                factor, total = builder.select(args[3], x, ir.Constant(vector, [1.0] * 8)), builder.load(place)
                if is_double or not HAS_FMA:
                    total = builder.fadd(total, builder.fmul(x, factor))
                else:
                    fma = cgutils.get_or_insert_function(builder.module, function, "llvm.fma.v8f64")
                    total = builder.call(fma, [x, factor, total])
                builder.store(total, place)
        sums = [builder.load(place) for place in places]
        while len(sums) > 1:
            sums = [builder.fadd(*pair) for pair in zip(sums[::2], sums[1::2], strict=True)]
        for width in (4, 2, 1):
            halves = [ir.Constant(ir.VectorType(ir.IntType(32), width), [*range(k, k + width)]) for k in (0, width)]
            sums = [builder.fadd(*(builder.shuffle_vector(sums[0], sums[0], half) for half in halves))]
        return builder.extract_element(sums[0], ir.IntType(32)(0))

    return types.float64(T, types.intp, count, types.boolean, types.intp, size), codegen


@_intrinsic
def scratch(_typing: Any, T: Any, count: Any) -> Any:
    """Return the address of ``count`` elements on the stack of the function; the count is a constant."""
    dtype = _dtype(T)

    def codegen(context: Any, builder: Any, _signature: Any, _args: Any) -> Any:
        with builder.goto_entry_block():
            array = builder.alloca(ir.ArrayType(_in_memory(context, dtype), count.literal_value))
        array.align = _LINE
        return builder.ptrtoint(array, _WORD)

    return types.intp(T, count), codegen


def _fetch(builder: Any, address: Any, cache: int) -> None:
    byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
    function = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
    fetch = cgutils.get_or_insert_function(builder.module, function, "llvm.prefetch.p0i8")
    # For reading; into cache 3, the fastest, or 2, the next one; data.
    builder.call(fetch, [builder.inttoptr(address, byte), number(0), number(cache), number(1)])


@_intrinsic
def prefetch(_typing: Any, kinds: Any, addresses: Any, index: Any, count: Any) -> Any:
    """Read ``count`` elements, a constant, of several arrays into the fastest cache; they may be none that exist."""
    dtypes = _dtypes(kinds)

    def codegen(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        for dtype, pointer in zip(dtypes, cgutils.unpack_tuple(builder, args[1], len(dtypes)), strict=True):
            first = builder.ptrtoint(_element(builder, _in_memory(context, dtype), pointer, args[2]), _WORD)
            for offset in range(0, count.literal_value * dtype.bitwidth // 8, _LINE):
                _fetch(builder, builder.add(first, _WORD(offset)), 3)
        return context.get_dummy_value()

    return types.void(kinds, addresses, index, count), codegen


@_intrinsic
def copy_elements(
    _typing: Any, T: Any, _target: Any, _target_step: Any, _source: Any, _source_step: Any, _count: Any
) -> Any:
    """Copy ``count`` elements, which may be unaligned, between memory of any two steps in bytes."""
    dtype = _dtype(T)

    def codegen(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        _, to, to_step, source, source_step, count = args
        element, size = _in_memory(context, dtype).as_pointer(), dtype.bitwidth // 8
        packed = builder.and_(*(builder.icmp_signed("==", step, _WORD(size)) for step in (to_step, source_step)))
        with builder.if_else(packed) as (then, otherwise):
            with then:
                target, start = (builder.inttoptr(address, element) for address in (to, source))
                cgutils.raw_memcpy(builder, target, start, count, size)
            with otherwise, cgutils.for_range(builder, count) as loop:
                write, read = (
                    builder.inttoptr(builder.add(address, builder.mul(loop.index, step)), element)
                    for address, step in ((to, to_step), (source, source_step))
                )
                builder.store(builder.load(read, align=1), write, align=1)
        return context.get_dummy_value()

    arguments = (T, types.intp, types.intp, types.intp, types.intp, types.intp)
    return types.void(*arguments), codegen


@_intrinsic
def call(_typing: Any, _function: Any, _a: Any, _b: Any, _c: Any) -> Any:
    """Call the native function of three integers at an address."""

    def codegen(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [_WORD] * 3)
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), args[1:])
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp, types.intp), codegen
