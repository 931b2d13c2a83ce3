"""Say what is looked for in smears and is not among a pack's types."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["not_told"]

_FINDINGS = (
    ("sickle cells", ("elongated_sickle", "sickle", "sickle_cell")),
    ("acanthocytes", ("acanthocyte",)),
    ("bite and blister cells", ("bite_cell", "blister_cell")),
    ("reticulocytes", ("reticulocyte",)),
    ("nucleated red cells", ("nucleated_red_cell", "erythroblast")),
    ("malaria and other parasites", ("malaria", "parasite")),
    ("inclusions, such as Howell-Jolly bodies and stippling", ("inclusion", "granular")),
    ("rouleaux and agglutination", ("rouleaux", "agglutination")),
)
"""What laboratories look for in red cells, and the types that would tell it."""


def not_told(types: Sequence[str]) -> list[str]:
    """Return the findings for which a pack with these types has no type: it calls such a cell by
    the type it resembles most, or unsure.
    """
    known = set(types)
    return [finding for finding, telling in _FINDINGS if not known & set(telling)]
