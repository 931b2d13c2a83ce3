"""Slow and obvious: what kernels/measure_field.cpp does, in numpy and scipy."""

from itertools import pairwise

import numpy as np
from scipy import ndimage

CROSS = ndimage.generate_binary_structure(2, 1)
STRETCHES = (16, 20, 25, 31, 39, 49, 61, 76, 95, 119, 149, 186, 232, 290, 363, 454)
BOUND = 3000


def fitting_scale(height, width):
    return max(1.0, min(height, width) / 360, np.sqrt(height * width / (360 * 640)))


def whole(x):
    """Rounds halves away from zero, as lround does."""
    return int(np.floor(x + 0.5))


def shrink(frame, box, scale):
    x0, y0, x1, y1 = box
    part = frame[y0:y1, x0:x1]
    height, width = max(1, whole((y1 - y0) / scale)), max(1, whole((x1 - x0) / scale))
    rows = np.arange(height + 1) * (y1 - y0) // height
    columns = np.arange(width + 1) * (x1 - x0) // width
    out = np.empty((height, width, 3), np.uint8)
    for y in range(height):
        count = min(rows[y + 1] - rows[y], 8)
        read = [
            rows[y] + (2 * r + 1) * (rows[y + 1] - rows[y]) // (2 * count) for r in range(count)
        ]
        sums = np.add.reduceat(part[read].sum(axis=0, dtype=np.int64), columns[:-1], axis=0)
        share = np.float32(3) / (count * 3 * np.diff(columns)).astype(np.float32)
        out[y] = (sums.astype(np.float32) * share[:, None] + np.float32(0.5)).astype(np.uint8)
    return out


def blur(small):
    padded = np.pad(small.astype(np.int64), ((1, 1), (1, 1), (0, 0)), mode="edge")
    height, width = small.shape[:2]
    total = sum(padded[i : i + height, j : j + width] for i in range(3) for j in range(3))
    return ((total + 4) // 9).astype(np.uint8)


def otsu(values, end):
    """Otsu 1979 over whole numbers 0..end-1: threshold, separability, share and means of the two
    classes.
    """
    counts = np.bincount(values, minlength=end)[:end].astype(np.float64)
    levels = np.arange(end)
    best = None
    for threshold in np.flatnonzero(counts[:-1]) + 1:
        below, above = counts[:threshold].sum(), counts[threshold:].sum()
        if not below or not above:
            continue
        low = (counts * levels)[:threshold].sum() / below
        high = (counts * levels)[threshold:].sum() / above
        between = below * above * (high - low) ** 2
        if best is None or between > best[0] * (1 + 1e-12):
            best = between, int(threshold), above, low, high
    if best is None:
        return 0, 0.0, 0.0, 0.0, 0.0
    between, threshold, above, low, high = best
    return threshold, between / (len(values) ** 2 * np.var(values)), above, low, high


def middle(values):
    return int(np.sort(values)[len(values) // 2])


def background_of(small, lit):
    step = 2 if small.shape[0] >= 200 else 1
    pixels = small[::step][lit[::step]].astype(np.int64)
    if not len(pixels):
        return np.zeros(3, np.int64)
    green = pixels[:, 1]
    threshold = otsu(green, 256)[0]
    for _ in range(2):
        upper = green[green >= threshold]
        split = otsu(upper, 256)
        if split[1] > 0.75 and split[2] > 0.05 * len(green) and split[4] > 1.08 * split[3]:
            threshold = split[0]
        else:
            break
    return np.array([middle(pixels[green >= threshold, c]) for c in range(3)])


def threshold_of(density):
    threshold, _, above, _, high = otsu(density, BOUND + 1)
    for _ in range(2):
        if not threshold:
            break
        low_threshold, _, low_above, low_low, low_high = otsu(
            density[density < threshold], threshold
        )
        share, low_share = above / len(density), low_above / len(density)
        few = share < 0.12 and low_share > 0.03
        dense = high > 2 * low_high and low_share > 0.1 and low_high - low_low > 100
        if low_threshold <= 30 or not (few or dense):
            break
        threshold, above, high = low_threshold, low_above, low_high
    for _ in range(3):
        cells = density[density >= threshold]
        if len(cells) < 20:
            break
        threshold = max(middle(cells) // 2, 30)
    return threshold


def mask_of(small, lit, factor):
    """Density [H, W], the median density of cells (0 without any), the mask of cells, the
    background.
    """
    background = background_of(small, lit)
    level = np.maximum(small.astype(np.float64), 8)
    density = 1000 * np.abs(np.log(level / np.maximum(background, 8))) + 0.5
    density = np.minimum(density, BOUND).astype(np.int64).max(axis=2)
    none = np.zeros(lit.shape, bool)
    step = 2 if small.shape[0] >= 200 else 1
    counted = density[::step][lit[::step]]
    if not len(counted):
        return density, 0, none, background
    threshold = int(max(factor * max(threshold_of(counted), 0), 30))
    if (counted >= threshold).sum() < 20:
        return density, 0, none, background
    cell_density = middle(counted[counted >= threshold])
    mask = (density >= threshold) & lit
    holes, count = ndimage.label(~mask)
    for index, (ys, xs) in enumerate(ndimage.find_objects(holes), 1):
        height, width = ys.stop - ys.start, xs.stop - xs.start
        if (
            0 in (ys.start, xs.start)
            or ys.stop == mask.shape[0]
            or xs.stop == mask.shape[1]
            or index > count
        ):
            continue
        hole = holes[ys, xs] == index
        oval = hole.sum() > 0.75 * np.pi / 4 * height * width
        if hole.sum() <= 12 or (oval and max(height, width) < 2 * min(height, width)):
            mask[ys, xs] |= hole
    steps = max(1, whole(min(mask.shape) / 200))
    mask = ndimage.binary_erosion(mask, CROSS, steps, border_value=1)
    return density, cell_density, ndimage.binary_dilation(mask, CROSS, steps), background


def ovals(mask, density, cell_density, clear):
    labels, _ = ndimage.label(mask, np.ones((3, 3)))
    sizes = []
    for index, (ys, xs) in enumerate(ndimage.find_objects(labels), 1):
        part = labels[ys, xs] == index
        height, width = part.shape
        y, x = np.nonzero(part)
        if not clear[ys, xs][part].all() or min(height, width) < 6:
            continue
        # Pixels are squares: each adds a twelfth to the moments.
        moments = np.cov(np.stack([x, y]).astype(float), bias=True) + np.eye(2) / 12
        short, long = np.linalg.eigvalsh(moments)
        is_oval = part.sum() > 0.965 * 4 * np.pi * np.sqrt(short * long) and long < 4 * short
        if is_oval and density[ys, xs][part].mean() < 1.5 * cell_density:
            sizes.append(np.sqrt(height * width))
    return sizes


def outlines(mask):
    """Loops of pixel edges, each a list of (middle x, middle y, pixel inside), the mask to the
    right hand.
    """
    padded = np.pad(mask, 1)
    edges = {}  # from corner and heading
    headings = {"e": (0, 1), "s": (1, 0), "w": (0, -1), "n": (-1, 0)}
    for y, x in np.argwhere(padded):
        if not padded[y - 1, x]:
            edges[(y, x), "e"] = (y, x)
        if not padded[y, x + 1]:
            edges[(y, x + 1), "s"] = (y, x)
        if not padded[y + 1, x]:
            edges[(y + 1, x + 1), "w"] = (y, x)
        if not padded[y, x - 1]:
            edges[(y + 1, x), "n"] = (y, x)
    order = "eswn"
    left = dict(edges)
    for start in sorted(key for key in edges if key[1] == "e"):
        if start not in left:
            continue
        loop, (corner, heading) = [], start
        while (corner, heading) in left:
            pixel = left.pop((corner, heading))
            dy, dx = headings[heading]
            loop.append(
                (corner[1] - 1 + dx / 2, corner[0] - 1 + dy / 2, tuple(np.array(pixel) - 1))
            )
            corner = (corner[0] + dy, corner[1] + dx)
            place = order.index(heading)
            # Pixels that touch by a corner belong together: turn left where that can be done.
            for turn in (3, 0, 1):
                if (corner, order[(place + turn) % 4]) in left:
                    heading = order[(place + turn) % 4]
                    break
        yield loop


def arcs_of(line, closed):
    """The best circle from every fourth place of a line [N, 2]: (x, y, radius) or None."""
    n = len(line)
    if closed:
        line = np.concatenate([line[-2:], line, line[:2]])
    line = np.stack([line[k : len(line) - 4 + k] for k in range(5)]).sum(axis=0) / 5
    n = len(line)
    if n < 16:
        return
    if closed:
        line = np.concatenate([line, line])
    for start in range(0, n, 4):
        best = None
        for count in STRETCHES:
            if count > n or start + count > len(line):
                break
            points = line[start : start + count]
            centre = points.mean(axis=0)
            x, y = (points - centre).T
            design = np.stack([2 * x, 2 * y, np.ones(count)], axis=1)
            (a, b, c), _, rank, _ = np.linalg.lstsq(design, x * x + y * y, rcond=None)
            determinant = np.var(x) * np.var(y) - np.mean(x * y) ** 2
            radius = np.sqrt(c + a * a + b * b)
            error = np.sqrt(np.mean(((x - a) ** 2 + (y - b) ** 2 - radius**2) ** 2)) / (2 * radius)
            fits = rank == 3 and determinant > 1e-6 and error < 0.025 * radius + 0.25
            turn = np.hypot(*np.diff(points, axis=0).T).sum() / radius
            if fits and turn >= 1.7:
                best = (a + centre[0], b + centre[1], radius)
            if not fits and count >= 31:
                break
        yield best


def fit_outlines(mask, clear):
    found, starts = [], 0
    for loop in outlines(mask):
        if len(loop) < 16:
            continue
        places = np.array([place[:2] for place in loop])
        cut = np.array([not clear[place[2]] for place in loop])
        lines = [(places, True)]
        if cut.any():
            first = int(np.argmax(cut))
            places, cut = np.roll(places, -first, axis=0), np.roll(cut, -first)
            ends = [*np.flatnonzero(cut), len(places)]
            lines = [(places[a + 1 : b], False) for a, b in pairwise(ends)]
        for line, closed in lines:
            if len(line) < 16:
                continue
            for arc in arcs_of(line, closed):
                starts += 1
                if arc is None or arc[2] < 3:
                    continue
                row = int(np.clip(np.floor(arc[1]), 0, mask.shape[0] - 1))
                column = int(np.clip(np.floor(arc[0]), 0, mask.shape[1] - 1))
                if mask[row, column]:
                    found.append(arc)
    return found, starts


def disc_density(density, arc):
    x, y, radius = arc
    turns = np.arange(8) * np.pi / 4
    xs = np.concatenate([[x], *(x + ring * radius * np.cos(turns) for ring in (0.35, 0.7))])
    ys = np.concatenate([[y], *(y + ring * radius * np.sin(turns) for ring in (0.35, 0.7))])
    xs, ys = np.floor(xs).astype(int), np.floor(ys).astype(int)
    inside = (xs >= 0) & (ys >= 0) & (xs < density.shape[1]) & (ys < density.shape[0])
    return density[ys[inside], xs[inside]].mean() if inside.any() else 0.0


def look(small, lit, factor):
    """One look at one part: sizes of ovals, diameters of arcs, places sought from."""
    density, cell_density, mask, background = mask_of(small, lit, factor)
    if not cell_density:
        return {"any": False, "ovals": [], "arcs": [], "starts": 0, "background": background}
    clear = lit.copy()
    clear[:2] = clear[-2:] = False
    clear[:, :2] = clear[:, -2:] = False
    found, starts = fit_outlines(mask, clear)
    diameters = [
        2 * arc[2]
        for arc in found
        if 0.3 * cell_density < disc_density(density, arc) < 1.5 * cell_density
    ]
    red = mask & (density < 1.5 * cell_density)
    levels = np.log10(np.maximum(small[red].astype(float), 1))
    return {
        "any": True,
        "ovals": ovals(mask, density, cell_density, clear),
        "arcs": diameters,
        "starts": starts,
        "background": background,
        "foreground": mask.sum() / lit.sum(),
        "density": np.log10(np.maximum(background, 1)) - levels.mean(axis=0) if red.any() else 0,
    }


def conclude(seen):
    """Where the size comes from, the size and its confidence, at the scale of the look."""
    sizes, arcs = np.sort(seen["ovals"]), np.sort(seen["arcs"])
    oval = sizes[np.searchsorted(np.cumsum(sizes), sizes.sum() / 2)] if len(sizes) else 0.0
    arc = arcs[whole((len(arcs) - 1) / 2)] if len(arcs) else 0.0
    agree = oval < 1.16 * arc and arc < 1.16 * oval
    if len(arcs) >= 8 and len(sizes) < 8 and not (len(sizes) >= 3 and agree):
        size_from, size = "outlines", arc
    else:
        size_from, size = ("round", oval) if len(sizes) else ("none", 0.0)
    near = ((arcs < 1.25 * size) & (arcs > size / 1.25)).sum()
    return size_from, size, near / seen["starts"] if seen["starts"] else 0.0


def terms(shape, ys, xs):
    u, v = (2 * xs + 1) / shape[1] - 1, (2 * ys + 1) / shape[0] - 1
    return np.stack([np.ones_like(u), u, v, u * u, u * v, v * v], axis=-1)


def even_light(small, lit, background):
    """Divides by a quadratic through the logarithms of what is near to it, five rounds from a flat
    one.
    """
    logs = np.log(np.maximum(small.astype(float), 1))
    ys, xs = np.mgrid[: small.shape[0] : 8, : small.shape[1] : 8]
    shown = lit[::8, ::8]
    basis, values = terms(small.shape, ys, xs)[shown], logs[::8, ::8][shown]
    surface = np.zeros((6, 3))
    surface[0] = np.log(np.maximum(background, 1))
    for _ in range(5):
        near = (np.abs(values - basis @ surface) < 0.1).all(axis=1)
        if near.sum() < 30:
            return small
        some = basis[near]
        matrix = some.T @ some + 1e-6 * near.sum() * np.eye(6)
        surface = np.linalg.solve(matrix, some.T @ values[near])
    ys, xs = np.mgrid[: small.shape[0] : 4, : small.shape[1] : 4]
    gains = np.clip(background * np.exp(-terms(small.shape, ys, xs) @ surface), 0.25, 4)
    gains = gains.repeat(4, axis=0).repeat(4, axis=1)[: small.shape[0], : small.shape[1]]
    return np.minimum(small * gains.astype(np.float32) + np.float32(0.5), 255).astype(np.uint8)


def measure(frame):
    """Where the size comes from, the size in frame px, its confidence, and the look that shows it.

    For frames without a surround that are looked at whole and once: no larger than 360 px a side.
    """
    height, width = frame.shape[:2]
    scale = fitting_scale(height, width)
    small = blur(shrink(frame, (0, 0, width, height), scale))
    lit = np.ones(small.shape[:2], bool)
    looks = []

    def attempt(factor):
        seen = look(small, lit, factor)
        looks.append((worth_of(*conclude(seen)), seen))
        return seen

    seen = attempt(1.0)
    if seen["any"]:
        if looks[0][0] < 0.25:
            small = even_light(small, lit, seen["background"])
            attempt(1.0)
        for factor in (0.6, 0.36):
            if max(worth for worth, _ in looks) < 0.15:
                attempt(factor)
    best = max(looks, key=lambda item: item[0])[1]  # the first of equals
    size_from, size, confidence = conclude(best)
    return size_from, size * scale, confidence, best


def worth_of(size_from, size, confidence):
    return 0.0 if size_from == "none" else confidence / 2 if size < 10 else confidence
