"""Tell the shape of what an operator makes from the shapes of what it is given, for the operators that
networks of packs have.

Every operator and every attribute that is not listed here is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from rbc_engine.packs.graphs.onnx_file import Attribute, Tensor
from rbc_engine.packs.graphs.onnx_given import MOST_STEP, Given, Shape, Values

__all__ = ["output_of"]

_MOST_ITEMS = 1 << 31


Rule = Callable[[Given], "tuple[Shape, Values | None]"]


def output_of(given: Given) -> tuple[Shape, Values | None]:
    """Return the shape of a node's output, and its numbers if they are few and do not depend on pixels.

    Counts given.multiplications. Raises ValueError for an operator that packs do not have, and for
    shapes that do not fit.
    """
    rule = _RULES.get(given.node.kind)
    if rule is None:
        raise ValueError("no network of a pack needs it, and this program does not run it")
    known_attributes, follow = rule
    strange = sorted(set(given.node.attributes) - set(known_attributes.split()))
    if strange:
        raise ValueError(f"it has attributes that are not known: {', '.join(strange)!r:.80}")
    shape, values = follow(given)
    if any(side < 0 for side in shape) or math.prod(shape) > _MOST_ITEMS or len(shape) > 6:
        raise ValueError(f"it would make a tensor of shape {list(shape)!r:.80}")
    return shape, values


def _same(given: Given) -> tuple[Shape, Values | None]:
    return given.shape(0), None


def _kept(given: Given) -> tuple[Shape, Values | None]:
    return given.shape(0), given.values(0)


def _broadcast(a: Shape, b: Shape) -> Shape:
    longest = max(len(a), len(b))
    sides = []
    for one, other in zip(
        (1,) * (longest - len(a)) + a, (1,) * (longest - len(b)) + b, strict=True
    ):
        if one != other and 1 not in (one, other):
            raise ValueError(f"shapes {list(a)} and {list(b)} do not fit")
        sides.append(other if one == 1 else one)
    return tuple(sides)


def _arithmetic(given: Given) -> tuple[Shape, Values | None]:
    shape = _broadcast(given.shape(0), given.shape(1))
    a, b = given.values(0), given.values(1)
    if a is None or b is None or len(a) != len(b) or len(shape) > 1:
        return shape, None
    work = {"Add": lambda x, y: x + y, "Sub": lambda x, y: x - y, "Mul": lambda x, y: x * y}
    do = work.get(given.node.kind)
    return shape, None if do is None else tuple(do(x, y) for x, y in zip(a, b, strict=True))


def _window(given: Given, kernel: Sequence[int]) -> list[int]:
    """Return the sides that a window slides to."""
    if given.text("auto_pad", "NOTSET") != "NOTSET":
        raise ValueError("auto_pad must be NOTSET")
    axes = len(kernel)
    strides = given.numbers("strides", [1] * axes, least=1)
    dilations = given.numbers("dilations", [1] * axes, least=1)
    pads = given.numbers("pads", [0] * (2 * axes))
    up = given.number("ceil_mode", 0)
    sides = []
    for axis, side in enumerate(given.shape(0)[2:]):
        room = side + pads[axis] + pads[axis + axes] - dilations[axis] * (kernel[axis] - 1) - 1
        if room < 0:
            raise ValueError(f"a window of {list(kernel)} is larger than {list(given.shape(0))}")
        step = strides[axis]
        count = -(-room // step) + 1 if up else room // step + 1
        if up and (count - 1) * step >= side + pads[axis]:
            count -= 1
        sides.append(count)
    return sides


def _conv(given: Given) -> tuple[Shape, Values | None]:
    batch, channels, *_ = given.shape(0, axes=4)
    out, own, *kernel = given.shape(1, axes=4)
    group = given.number("group", 1)
    if group < 1 or channels != own * group or out % group or min(out, own, *kernel) < 1:
        raise ValueError(
            f"weights {list(given.shape(1))} in {group} groups do not fit {channels} channels"
        )
    if given.numbers("kernel_shape", kernel, least=1) != kernel:
        raise ValueError("kernel_shape must be that of its weights")
    if given.has(2) and given.shape(2) != (out,):
        raise ValueError(f"its bias must have {out} numbers")
    shape = (batch, out, *_window(given, kernel))
    given.multiplications = math.prod(shape) * own * math.prod(kernel)
    return shape, None


def _pool(given: Given) -> tuple[Shape, Values | None]:
    batch, channels, *_ = given.shape(0, axes=4)
    kernel = given.numbers("kernel_shape", [0, 0], least=1, most=64)
    return (batch, channels, *_window(given, kernel)), None


def _global_pool(given: Given) -> tuple[Shape, Values | None]:
    batch, channels, *_ = given.shape(0, axes=4)
    return (batch, channels, 1, 1), None


def _axes(given: Given, index: int, count: int) -> list[int]:
    """Return axes that are given as an input, or by older opsets as an attribute, from 0."""
    listed = given.node.attributes.get("axes")
    axes = [int(axis) for axis in listed] if isinstance(listed, tuple) else given.known(index)
    if any(not -count <= axis < count for axis in axes) or len({a % count for a in axes}) != len(
        axes
    ):
        raise ValueError(f"axes must be different ones of {count} (got {axes!r:.40})")
    return [axis % count for axis in axes]


def _mean(given: Given) -> tuple[Shape, Values | None]:
    shape = given.shape(0)
    axes = _axes(given, 1, len(shape))
    keep = given.number("keepdims", 1)
    sides = (1 if axis in axes else side for axis, side in enumerate(shape))
    return tuple(side for axis, side in enumerate(sides) if keep or axis not in axes), None


def _gemm(given: Given) -> tuple[Shape, Values | None]:
    a, b = given.shape(0, axes=2), given.shape(1, axes=2)
    rows, inner = a[::-1] if given.number("transA", 0) else a
    other, columns = b[::-1] if given.number("transB", 0) else b
    if inner != other:
        raise ValueError(f"matrices {list(a)} and {list(b)} do not fit")
    if given.has(2):
        _fits_in(given.shape(2), (rows, columns))
    given.multiplications = rows * inner * columns
    return (rows, columns), None


def _fits_in(shape: Shape, whole: Shape) -> None:
    if _broadcast(shape, whole) != whole:
        raise ValueError(f"{list(shape)} does not fit {list(whole)}")


def _matmul(given: Given) -> tuple[Shape, Values | None]:
    a, b = given.shape(0), given.shape(1)
    if len(a) < 2 or len(b) < 2 or a[-1] != b[-2]:
        raise ValueError(f"matrices {list(a)} and {list(b)} do not fit")
    shape = (*_broadcast(a[:-2], b[:-2]), a[-2], b[-1])
    given.multiplications = math.prod(shape) * a[-1]
    return shape, None


def _transpose(given: Given) -> tuple[Shape, Values | None]:
    shape = given.shape(0)
    order = given.numbers("perm", range(len(shape))[::-1])
    if sorted(order) != list(range(len(shape))):
        raise ValueError(f"perm must be an order of {len(shape)} axes (got {order!r:.40})")
    return tuple(shape[axis] for axis in order), None


def _reshape(given: Given) -> tuple[Shape, Values | None]:
    old, wanted = given.shape(0), given.known(1)
    if not given.number("allowzero", 0):
        if any(side == 0 and axis >= len(old) for axis, side in enumerate(wanted)):
            raise ValueError("it keeps an axis that its input does not have")
        wanted = [side or old[axis] for axis, side in enumerate(wanted)]
    rest = math.prod(side for side in wanted if side != -1)
    if wanted.count(-1) > 1 or any(side < -1 for side in wanted):
        raise ValueError(f"a shape must have no number under -1, and -1 once (got {wanted!r:.40})")
    if -1 in wanted and rest and not math.prod(old) % rest:
        wanted[wanted.index(-1)] = math.prod(old) // rest
    if math.prod(wanted) != math.prod(old):
        raise ValueError(f"{list(old)} has not as many numbers as {wanted!r:.40}")
    return tuple(wanted), given.values(0)


def _flatten(given: Given) -> tuple[Shape, Values | None]:
    shape, axis = given.shape(0), given.number("axis", 1)
    if not -len(shape) <= axis <= len(shape):
        raise ValueError(f"axis must be one of {len(shape)} (got {axis})")
    return (math.prod(shape[:axis]), math.prod(shape[axis:])), None


def _squeeze(given: Given) -> tuple[Shape, Values | None]:
    shape = given.shape(0)
    axes = _axes(given, 1, len(shape))
    if any(shape[axis] != 1 for axis in axes):
        raise ValueError(f"only axes of length 1 can be left out (got {list(shape)}, {axes})")
    kept = tuple(side for axis, side in enumerate(shape) if axis not in axes)
    return kept, given.values(0)


def _unsqueeze(given: Given) -> tuple[Shape, Values | None]:
    shape = given.shape(0)
    added = given.known(1)
    axes = _axes(given, 1, len(shape) + len(added))
    sides = iter(shape)
    count = len(shape) + len(added)
    return tuple(1 if axis in axes else next(sides) for axis in range(count)), given.values(0)


def _concat(given: Given) -> tuple[Shape, Values | None]:
    shapes = [given.shape(index) for index in range(len(given.node.inputs))]
    if not shapes or not shapes[0]:
        raise ValueError("it has nothing to join")
    first = shapes[0]
    axis = _axis(given.number("axis", 0), len(first))
    if any(
        len(shape) != len(first)
        or shape[:axis] + shape[axis + 1 :] != first[:axis] + first[axis + 1 :]
        for shape in shapes
    ):
        raise ValueError(f"shapes {shapes!r:.80} do not fit")
    shape = (*first[:axis], sum(shape[axis] for shape in shapes), *first[axis + 1 :])
    parts = [given.values(index) for index in range(len(shapes))]
    if len(first) != 1 or any(part is None for part in parts):
        return shape, None
    return shape, tuple(value for part in parts if part is not None for value in part)


def _axis(axis: int, count: int) -> int:
    if not -count <= axis < count:
        raise ValueError(f"axis must be one of {count} (got {axis})")
    return axis % count


def _slice(given: Given) -> tuple[Shape, Values | None]:
    shape = list(given.shape(0))
    starts, ends = given.known(1), given.known(2)
    axes = given.known(3) if given.has(3) else list(range(len(starts)))
    steps = given.known(4) if given.has(4) else [1] * len(starts)
    if not len(starts) == len(ends) == len(axes) == len(steps) or any(step < 1 for step in steps):
        raise ValueError("starts, ends, axes and steps must be equally many, steps at least 1")
    values = given.values(0) if len(shape) == 1 else None
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        chosen = range(shape[_axis(axis, len(shape))])[start:end:step]
        shape[axis] = len(chosen)
        values = None if values is None else tuple(values[index] for index in chosen)
    return tuple(shape), values


def _gather(given: Given) -> tuple[Shape, Values | None]:
    shape, wanted = given.shape(0), given.shape(1)
    axis = _axis(given.number("axis", 0), len(shape))
    indices = given.known(1)
    if any(not -shape[axis] <= index < shape[axis] for index in indices):
        raise ValueError(f"it takes {indices!r:.40} of {shape[axis]}")
    values = given.values(0) if len(shape) == 1 else None
    taken = None if values is None else tuple(values[index] for index in indices)
    return (*shape[:axis], *wanted, *shape[axis + 1 :]), taken


def _shape(given: Given) -> tuple[Shape, Values | None]:
    shape = given.shape(0)
    part = shape[given.number("start", 0) : given.number("end", len(shape))]
    return (len(part),), part


def _resize(given: Given) -> tuple[Shape, Values | None]:
    shape = given.shape(0, axes=4)
    if given.text("mode", "nearest") not in ("nearest", "linear") or given.has(1):
        raise ValueError("it must be of mode nearest or linear, without a region")
    if given.has(3):
        sides = given.known(3)
    else:
        scales = given.values(2)
        if scales is None or not all(0 < scale <= 64 for scale in scales) or len(scales) != 4:
            raise ValueError("its scales must be four numbers within 0..64")
        sides = [int(side * scale) for side, scale in zip(shape, scales, strict=True)]
    if len(sides) != 4 or sides[:2] != list(shape[:2]) or min(sides[2:]) < 1:
        raise ValueError(f"{list(shape)} cannot become {sides!r:.60}")
    return tuple(sides), None


def _pad(given: Given) -> tuple[Shape, Values | None]:
    shape = given.shape(0)
    pads = given.known(1)
    if given.text("mode", "constant") != "constant" or given.has(3):
        raise ValueError("it must be of mode constant, on every axis")
    if len(pads) != 2 * len(shape) or any(not 0 <= pad <= MOST_STEP for pad in pads):
        raise ValueError(f"pads must be {2 * len(shape)} numbers, none negative (got {pads!r:.60})")
    before, after = pads[: len(shape)], pads[len(shape) :]
    return tuple(a + side + b for a, side, b in zip(before, shape, after, strict=True)), None


def _constant(given: Given) -> tuple[Shape, Values | None]:
    if len(given.node.attributes) != 1 or given.node.inputs:
        raise ValueError("it must have one value, and no input")
    value: Attribute = next(iter(given.node.attributes.values()))
    if isinstance(value, Tensor):
        return value.shape, value.values
    if isinstance(value, str):
        raise ValueError("a text is no number")
    return ((len(value),), value) if isinstance(value, tuple) else ((), (value,))


def _quantize(given: Given) -> tuple[Shape, Values | None]:
    shape = given.shape(0)
    scales = given.shape(1)
    if scales not in ((), (1,)):
        axis = _axis(given.number("axis", 1), len(shape))
        if scales != (shape[axis],):
            raise ValueError(f"scales {list(scales)} do not fit {list(shape)}")
    if given.has(2) and given.shape(2) != scales:
        raise ValueError("it needs as many zero points as scales")
    return shape, None


_SLIDING = "auto_pad kernel_shape strides dilations pads"
# The attributes that each operator may have, and how its output's shape follows.
_RULES: dict[str, tuple[str, Rule]] = {
    "Relu": ("", _same),
    "Sigmoid": ("", _same),
    "HardSigmoid": ("alpha beta", _same),
    "HardSwish": ("", _same),
    "Clip": ("", _same),
    "Cast": ("to saturate round_mode", _kept),
    "Identity": ("", _kept),
    "Add": ("", _arithmetic),
    "Sub": ("", _arithmetic),
    "Mul": ("", _arithmetic),
    "Div": ("", _arithmetic),
    "Conv": (f"{_SLIDING} group", _conv),
    "MaxPool": (f"{_SLIDING} ceil_mode storage_order", _pool),
    "AveragePool": (f"{_SLIDING} ceil_mode count_include_pad", _pool),
    "GlobalAveragePool": ("", _global_pool),
    "ReduceMean": ("axes keepdims noop_with_empty_axes", _mean),
    "Gemm": ("alpha beta transA transB", _gemm),
    "MatMul": ("", _matmul),
    "Transpose": ("perm", _transpose),
    "Reshape": ("allowzero", _reshape),
    "Flatten": ("axis", _flatten),
    "Squeeze": ("", _squeeze),
    "Unsqueeze": ("", _unsqueeze),
    "Concat": ("axis", _concat),
    "Slice": ("", _slice),
    "Gather": ("axis", _gather),
    "Shape": ("start end", _shape),
    "Resize": (
        "mode nearest_mode coordinate_transformation_mode keep_aspect_ratio_policy antialias "
        "extrapolation_value exclude_outside cubic_coeff_a",
        _resize,
    ),
    "Pad": ("mode", _pad),
    "Constant": ("value value_int value_ints value_float value_floats", _constant),
    "QuantizeLinear": ("axis saturate output_dtype precision block_size", _quantize),
    "DequantizeLinear": ("axis output_dtype block_size", _quantize),
}
