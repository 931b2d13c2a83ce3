"""Show what QuPath makes of a run's GeoJSON: the objects of each file, by class.

    python examples/read_geojson.py RESULTS/geojson

It reads a file as QuPath 0.4 and later does, from PathIO.readObjectsFromGeoJSON on: the same
members in the same order, and a ValueError where QuPath's own reader would fail or silently omit
something.
"""

import json
import math
import sys
import uuid
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Point = tuple[float, float]


@dataclass(frozen=True)
class PathObject:
    """Hold one object of QuPath's hierarchy.

    rings: of the polygon, px of the full-resolution image, the first the outer one; each ends where
    it began.
    names, color: of its PathClass, one derived from several has several names; None if it has no
    class.
    """

    id: uuid.UUID
    object_type: str
    rings: list[list[Point]]
    names: tuple[str, ...] | None
    color: tuple[int, int, int] | None
    measurements: dict[str, float]


def read_objects(path: Path) -> list[PathObject]:
    """Return all objects of a file."""
    found = json.loads(path.read_bytes().decode("ascii"))
    check(isinstance(found, dict), "a GeoJSON file holds one object")
    if found.get("type") == "Feature":
        return [path_object(found)]
    check(found.get("type") == "FeatureCollection", "neither a Feature nor a FeatureCollection")
    check(isinstance(found.get("features"), list), "a FeatureCollection has a list of features")
    return [path_object(feature) for feature in found["features"]]


def path_object(feature: dict[str, Any]) -> PathObject:
    """Read an object like QuPathTypeAdapters.PathObjectTypeAdapter."""
    check(feature.get("type") == "Feature", "a FeatureCollection holds Features")
    properties = feature["properties"]
    known = {"objectType", "classification", "measurements"}
    check(properties.keys() <= known, f"not read: {properties.keys() - known}")
    kinds = ("annotation", "detection", "cell", "tile", "tma_core")
    check(properties["objectType"] in kinds, "an unknown objectType becomes an annotation")
    measurements = properties["measurements"]
    check(isinstance(measurements, dict), "before 0.4 measurements were a list of names and values")
    check(all(map(is_number, measurements.values())), "a measurement is a number")
    names, color = path_class(properties.get("classification"))
    return PathObject(
        id=uuid.UUID(feature["id"]),
        object_type=properties["objectType"],
        rings=polygon(feature["geometry"]),
        names=names,
        color=color,
        measurements=measurements,
    )


def polygon(geometry: dict[str, Any]) -> list[list[Point]]:
    """Read coordinates like ROITypeAdapters: they go to JTS, which refuses a LinearRing that is not
    closed or has three points.
    """
    check(geometry.keys() == {"type", "coordinates"}, "plane and isEllipse would change the ROI")
    check(geometry["type"] == "Polygon", "regions are polygons")
    rings = geometry["coordinates"]
    for ring in rings:
        check(
            len(ring) >= 4 and ring[0] == ring[-1],
            "a LinearRing is closed, by at least four points",
        )
        check(all(len(point) == 2 and all(map(is_number, point)) for point in ring), "x and y")
    return [[(x, y) for x, y in ring] for ring in rings]


def path_class(
    found: dict[str, Any] | None,
) -> tuple[tuple[str, ...] | None, tuple[int, int, int] | None]:
    """Read a class like PathClassTypeAdapter: a name, which PathClass.fromString splits at its
    colons, and a colour.
    """
    if found is None:
        return None, None
    check(found.keys() == {"name", "color"}, "colorRGB is the form before 0.4")
    red, green, blue = found["color"]
    check(all(type(part) is int and 0 <= part <= 255 for part in (red, green, blue)), "0 to 255")
    return tuple(name.strip() for name in found["name"].split(":")), (red, green, blue)


def is_number(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def check(holds: bool, rule: str) -> None:
    if not holds:
        raise ValueError(rule)


if __name__ == "__main__":
    for path in sorted(Path(sys.argv[1]).rglob("*.geojson")):
        objects = read_objects(path)
        classes = Counter(": ".join(each.names or ["no class"]) for each in objects)
        print(f"{path}: {len(objects)} objects")
        for name, count in classes.most_common():
            print(f"  {count:5} {name}")
