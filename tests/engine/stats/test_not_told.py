"""What a pack says that it does not know, against its types; README says the same."""

from __future__ import annotations

from rbc_engine.packs.pack import Pack, find_pack
from rbc_engine.stats.not_told import not_told


def test_a_finding_is_named_unless_a_type_tells_it():
    everything = not_told([])
    assert everything[0] == "sickle cells"
    assert len(everything) == len(set(everything)) >= 8
    assert set(everything) - set(not_told(["elongated_sickle"])) == {"sickle cells"}
    assert set(everything) - set(not_told(["normal", "reticulocyte"])) == {"reticulocytes"}


def test_readme_says_what_the_shipped_pack_tells_and_does_not_know(repository):
    pack = Pack.open(find_pack("chula12"))
    text = " ".join((repository / "README.md").read_text("utf-8").split())
    told = text.split("distinguishes the twelve types")[1].split("It does not know")[0]
    for name in pack.types:
        assert name.replace("_", " ") in told
    assert len(pack.types) == 12
    findings = not_told(pack.types)
    assert "sickle cells" in findings
    said = text.split("It does not know ")[1].split(". Such a cell")[0]
    assert said == f"{', '.join(findings[:-1])}, {findings[-1]}"
    assert f"the {pack.manifest.training['fields']} photographs" in text
