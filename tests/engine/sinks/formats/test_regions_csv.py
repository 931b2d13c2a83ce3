"""regions.csv as a person opens it, and which outputs a run writes."""

from __future__ import annotations

import csv
import re

import pytest

from rbc_engine.sinks.formats.table import chosen_formats
from rbc_engine.sinks.out_folder import claim
from rbc_engine.sinks.output import RunOutput
from rbc_engine.sinks.run_json import RunRecord


def test_csv_names_the_likeliest_type_in_numbers_that_a_spreadsheet_reads(
    tmp_path, toy_cell_pack, make_mixed
):
    result = make_mixed("s", "s/1.jpg", 30)
    with RunOutput(claim(tmp_path / "out"), toy_cell_pack, formats=["csv"]) as output:
        output.write(result)
        output.finish(RunRecord.of(toy_cell_pack))
    lines = (tmp_path / "out" / "regions.csv").read_text().splitlines()
    rows = list(csv.DictReader(lines))
    types, seen = toy_cell_pack.types, set()
    for index, row in enumerate(rows):
        expected = row["kind"]
        if expected == "red":
            chances = {name: result.regions.probabilities[index, i] for i, name in enumerate(types)}
            expected = max(chances, key=chances.get)
            if "unsure" in row["flags"].split(";"):
                expected = "unsure"
        assert row["type"] == expected
        seen.add(expected)
    assert seen == {*types, "unsure", "white_cell", "platelet"}
    for line in lines[1:]:
        assert not re.search(r"\de[-+]?\d", line)
        assert not re.search(r"\.\d{5}", line)


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ((), ("report", "csv")),
        (("overlay",), ("report", "csv", "overlay")),
        (("csv", "coco", "coco"), ("report", "csv", "coco")),
        (("only",), ()),
        (("only", "overlay"), ("overlay",)),
        (("coco", "only", "report"), ("coco", "report")),
    ],
)
def test_formats_are_added_to_the_default_ones_unless_only_they_are_wanted(given, written):
    assert chosen_formats(given) == written
