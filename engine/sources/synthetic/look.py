"""Draw what the fields of one rendered slide share: stain, light, lens and camera."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rbc_engine.types.arrays import Float32, UInt8

__all__ = ["Look", "draw_look", "expose"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Look:
    """Describe the look of a slide. Ranges are those measured on smears under a 100x objective.
    Lengths are for cells of 40 px.

    light_rgb: float32 [3], grey levels of an empty field.
    haemoglobin_rgb, dye_rgb: float32 [3], absorbance (base 10) of red cells and of the basic dye
        that stains platelets, granules and the network of reticulocytes, at a thickness of 1.
    pallor: 0..1, how much thinner a disc is at its centre; pallor_size: its
        semi-axis as a share of the cell's radius; pallor_softness: width of its edge, as a share of
        that.
    rim: how much darker the edge of a cell is; halo: how much brighter its surroundings.
    edge_px: width of a blurred edge.
    anisocytosis: standard deviation of the diameter, relative.
    tilt: relative slope of the light across the field, x and y; vignette: loss in the corners.
    noise: standard deviation of the noise, grey levels at mid-grey.
    """

    light_rgb: Float32
    haemoglobin_rgb: Float32
    dye_rgb: Float32
    pallor: float
    pallor_size: float
    pallor_softness: float
    rim: float
    halo: float
    edge_px: float
    anisocytosis: float
    tilt: tuple[float, float]
    vignette: float
    noise: float


def draw_look(bits: np.random.BitGenerator) -> Look:
    """Draw a look at random."""
    rng = np.random.Generator(bits)
    green = rng.uniform(145.0, 215.0)
    light = green * np.array([rng.uniform(0.91, 0.98), 1.0, rng.uniform(0.92, 1.03)])
    strength = rng.uniform(0.13, 0.24)
    haemoglobin = strength * np.array([rng.uniform(0.25, 0.48), 1.0, rng.uniform(0.52, 0.72)])
    dye = np.array([0.32, 0.40, 0.15]) * rng.uniform(0.85, 1.15)
    return Look(
        light_rgb=light.astype(np.float32),
        haemoglobin_rgb=haemoglobin.astype(np.float32),
        dye_rgb=dye.astype(np.float32),
        pallor=rng.uniform(0.2, 0.9),
        pallor_size=rng.uniform(0.38, 0.54),
        pallor_softness=rng.uniform(0.3, 0.8),
        rim=rng.uniform(0.03, 0.16),
        halo=rng.uniform(0.02, 0.16),
        edge_px=rng.uniform(2.0, 3.4),
        anisocytosis=rng.uniform(0.05, 0.11),
        tilt=(rng.uniform(-0.025, 0.025), rng.uniform(-0.025, 0.025)),
        vignette=rng.uniform(0.0, 0.05),
        noise=rng.uniform(0.8, 1.8),
    )


def expose(haemoglobin: Float32, dye: Float32, *, look: Look, rng: np.random.Generator) -> UInt8:
    """Return the image uint8 [H, W, 3] of optical thickness float32 [H, W], by the law of Beer and
    Lambert.
    """
    height, width = haemoglobin.shape
    x = np.linspace(-1.0, 1.0, width, dtype=np.float32)
    y = np.linspace(-1.0, 1.0, height, dtype=np.float32)[:, None]
    light = (1.0 + look.tilt[0] * x - 0.5 * look.vignette * x * x) + (
        look.tilt[1] * y - 0.5 * look.vignette * y * y
    )
    image = np.empty((height, width, 3), np.uint8)
    for channel in range(3):
        thickness = haemoglobin * look.haemoglobin_rgb[channel] + dye * look.dye_rgb[channel]
        level = np.exp(thickness * np.float32(-np.log(10.0)))
        level *= light * look.light_rgb[channel]
        # Photon noise: its variance grows with the light.
        noise = rng.standard_normal(level.shape, dtype=np.float32)
        noise *= np.sqrt(level) * np.float32(look.noise / np.sqrt(128.0))
        level += noise
        image[..., channel] = np.clip(np.rint(level), 0.0, 255.0)
    return image
