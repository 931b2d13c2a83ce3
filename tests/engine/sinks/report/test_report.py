"""report.html without a browser: what it counts, keeps and escapes. In a browser: browser/."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import json
import re

import html5lib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import binomtest

from rbc_engine.errors import UsageError
from rbc_engine.packs.calibration import NETWORKS, Acceptance, Calibration, NetworkRanges
from rbc_engine.sinks.formats.report_page import ReportPage
from rbc_engine.sinks.out_folder import claim
from rbc_engine.sinks.output import RunOutput
from rbc_engine.sinks.report import contents as findings_module
from rbc_engine.sinks.report.contents import Findings
from rbc_engine.sinks.report.page import embedded
from rbc_engine.sinks.run_json import RunRecord
from rbc_engine.text import printable
from rbc_engine.types.frames import Frame

RUN = {
    "program": {"version": "0.1.0", "commit": "abc"},
    "device": "cpu: <b>fast</b>",
    "settings": {"limit": None, "nested": {"x": [1, 2]}, "formats": ["report"]},
    "wall_seconds": 12.5,
    "stage_seconds": {"decode": 1.0, "detect": 3.0},
    "bottleneck": "detect",
    "warnings": ["2 files were passed over & <i>more</i>"],
}


def write(folder, pack, results, run=RUN):
    with RunOutput(claim(folder, "overwrite"), pack, formats=["report"]) as output:
        for result in results:
            output.write(result)
        output.finish(RunRecord.of(pack, **run))
    return folder / "report.html"


class Page:
    """Return the parts of a page, found by a strict HTML parser."""

    def __init__(self, path):
        text = path.read_bytes().decode("utf-8")
        parser = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False)
        self.root = parser.parse(text)
        self.blocks = {
            block.get("id"): block.text for block in self.root.iter("script") if block.get("id")
        }
        self.data = json.loads(self.blocks["data"])

    def text(self):
        shown = self.root.find("body")
        for block in list(self.root.iter("script")):
            block.text = ""
        return "".join(shown.itertext())


def rows(page):
    fields = page.data["fields"]
    return [
        {key: fields[key][at] for key in ("number", "slide", "name", "regions", "abnormal")}
        for at in range(len(fields["number"]))
    ]


def share_of(count, of):
    """As scipy has it."""
    interval = binomtest(count, of).proportion_ci(method="wilson")
    return pytest.approx([count / of, *interval], abs=1e-6)


def test_counts_intervals_and_flags_are_those_of_the_results(
    tmp_path, toy_pack, with_frame, make_result, make_failure
):
    results = [
        with_frame(make_result(f"s{seed % 3}", f"f{seed}.jpg", count=9 * seed, seed=seed))
        for seed in range(12)
    ]
    results += [make_failure("s1"), make_result("s2", "full.jpg", count=4, saturated=True)]
    page = Page(write(tmp_path, toy_pack, results))

    for at, name in enumerate(("s0", "s1", "s2")):
        mine = [result for result in results if result.slide == name]
        done = [result.regions for result in mine if result.regions is not None]
        total = sum(len(regions) for regions in done)
        slide = page.data["slides"][at]
        assert slide["name"] == name
        assert slide["fields"] == len(mine)
        assert slide["failed"] == len(mine) - len(done)
        assert slide["regions"] == total
        assert slide["saturated"] == (name == "s2")
        assert slide["flags"][0] == sum(int((regions.flags & 1).sum()) for regions in done)
        abnormal = sum(int(regions.abnormal.sum()) for regions in done)
        assert slide["abnormal"] == abnormal
        assert slide["cells"] == [
            sum(int(regions.cells_low.sum()) for regions in done),
            sum(int(regions.cells_high.sum()) for regions in done),
        ]
        whole = [(regions, at) for regions in done for at in np.flatnonzero(regions.flags & 1 == 0)]
        assert 0 < slide["whole"] == len(whole) < total
        wholly = sum(bool(regions.abnormal[at]) for regions, at in whole)
        assert slide["wholeAbnormal"] == wholly
        assert slide["share"] == share_of(wholly, len(whole))
        for t, kind in enumerate(slide["types"]):
            counted = sum(bool(regions.has[at, t]) for regions, at in whole)
            assert kind["count"] == sum(int(regions.has[:, t].sum()) for regions in done)
            assert kind["cut"] == kind["count"] - counted
            assert kind["share"] == share_of(counted, len(whole))
        assert slide["types"][0]["grades"] is None  # disc is normal
        assert len(slide["types"][1]["grades"]) == 3
    assert [row["regions"] for row in rows(page)] == [
        0 if result.regions is None else len(result.regions) for result in results
    ]
    assert page.data["fields"]["error"] == {"12": "bad.jpg: damaged"}
    assert page.data["fields"]["saturated"] == [13]


def test_other_kinds_are_counted_apart_from_red_cells(
    tmp_path, toy_pack, toy_cell_pack, with_frame, make_mixed
):
    results = [with_frame(make_mixed("s", f"f{at}", count=40, seed=at)) for at in range(4)]
    page = Page(write(tmp_path / "a", toy_cell_pack, results))
    regions = [result.regions for result in results]
    red = [each.take(each.red) for each in regions]
    [slide] = page.data["slides"]
    assert [kind["label"] for kind in page.data["kinds"]] == ["white cell", "platelet"]
    assert slide["regions"] == sum(map(len, red))
    assert slide["white"] == sum(int((each.kinds == 1).sum()) for each in regions) > 0
    assert slide["platelets"] == sum(int((each.kinds == 2).sum()) for each in regions) > 0
    assert slide["redCells"] == sum(len(each.cells) for each in red)
    assert slide["flags"][3] == sum(int((each.flags & 8 > 0).sum()) for each in red) > 0
    assert slide["whole"] == sum(int((each.flags & 1 == 0).sum()) for each in red)
    assert slide["unfamiliar"] == 4 == len(page.data["unfamiliar"])
    low, high = slide["corrected"][1:]
    assert 0 <= low <= slide["corrected"][0] <= high <= 1
    for at, each in enumerate(regions):
        boxes = json.loads(page.blocks[f"boxes-{at}"])
        assert [box.get("kind", 0) for box in boxes] == each.kinds.tolist()
        assert page.data["fields"]["regions"][at] == int(each.red.sum())
        assert page.data["fields"]["white"][at] == int((each.kinds == 1).sum())
    assert "no types, and count neither as red cells nor as abnormal" in page.text()
    # A pack that does not detect them shows none.
    [slide] = Page(write(tmp_path / "b", toy_pack, results)).data["slides"]
    assert (slide["white"], slide["platelets"], slide["corrected"]) == (None, None, None)


def test_pictures_and_boxes_are_those_of_the_field(tmp_path, toy_pack, make_result):
    pixels = np.zeros((120, 160, 3), np.uint8)
    pixels[:, 80:] = (200, 30, 30)
    result = dataclasses.replace(
        make_result(count=5, width=160, height=120), frame=Frame(pixels=pixels)
    )
    page = Page(write(tmp_path, toy_pack, [result]))
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(page.blocks["picture-0"]))))
    assert np.abs(picture.astype(int) - pixels).mean() < 6
    regions, boxes = result.regions, json.loads(page.blocks["boxes-0"])
    for at, box in enumerate(boxes):
        x0, y0, x1, y1 = regions.boxes[at]
        assert box["box"] == pytest.approx([x0, y0, x1 - x0, y1 - y0], abs=0.11)
        assert box["p"] == pytest.approx(regions.abnormal_p[at], abs=1e-3)
        assert box["abnormal"] == regions.abnormal[at]
        assert box["flags"] == regions.flags[at]
        assert box["cells"] == [regions.cells_low[at], regions.cells_high[at]]
        assert {t for t, _ in box["types"]} == set(np.flatnonzero(regions.has[at]))
        for t, p in [*box["types"], box.get("likeliest", [0, regions.probabilities[at, 0]])]:
            assert p == pytest.approx(regions.probabilities[at, t], abs=1e-3)


def test_the_gallery_holds_the_surest_and_the_least_sure(
    tmp_path, toy_pack, with_frame, make_result
):
    results = [with_frame(make_result("s", f"{at}", count=30, seed=at)) for at in range(4)]
    results.append(with_frame(make_result("t", "few", count=2, seed=9)))
    page = Page(write(tmp_path, toy_pack, results))
    for slide in (0, 1):
        mine = [result for result in results if result.slide == "st"[slide]]
        gallery = json.loads(page.blocks[f"patches-{slide}"])
        assert len(gallery) == len(toy_pack.types)
        assert any(surest for surest, _ in gallery)
        for t, (surest, least) in enumerate(gallery):
            every = sorted(
                (
                    (float(result.regions.probabilities[at, t]), result.field, int(at))
                    for result in mine
                    for at in np.flatnonzero(result.regions.has[:, t])
                ),
                reverse=True,
            )
            assert [(one["field"], one["region"]) for one in surest] == [e[1:] for e in every[:8]]
            rest = [e for e in every[::-1][:8] if e not in every[:8]]
            assert [(one["field"], one["region"]) for one in least] == [e[1:] for e in rest]
            fields = {result.field: result.regions for result in mine}
            for one in (*surest, *least):
                regions, at = fields[one["field"]], one["region"]
                assert one["cells"] == [regions.cells_low[at], regions.cells_high[at]]
                assert one["flags"] == regions.flags[at]
                assert Image.open(io.BytesIO(base64.b64decode(one["jpeg"]))).size == (72, 72)


HOSTILE = [
    "</script><script>window.hacked = 1</script>",
    "<img src=x onerror='window.hacked = 2'>",
    '" onmouseover="window.hacked = 3" \'',
    "<!--<script>",
    "]]>&amp;&lt;{{ 7 * 7 }}{% raw %}",
    "line\nbreak\r\ttab\u2028separator\u2029",
    "\u202egnp.exe",
    "lone \udc80 surrogate",
    "x" * 250,
    "",
    "__proto__",
]


def test_hostile_names_are_text_everywhere(
    tmp_path, toy_pack, with_frame, make_result, make_failure
):
    results = []
    for name in HOSTILE:
        results.append(with_frame(make_result(name, name, count=3)))
        results.append(make_failure(name, name + "2", error=name))
    run = {**RUN, "warnings": HOSTILE, "settings": {name: name for name in HOSTILE}}
    run["device"] = HOSTILE[0]
    run["bottleneck"] = HOSTILE[2]
    run["stage_seconds"] = {HOSTILE[2]: 1.0, HOSTILE[0]: 2.0}
    page = Page(write(tmp_path, toy_pack, results, run))
    assert [slide["name"] for slide in page.data["slides"]] == [printable(name) for name in HOSTILE]
    assert [row["name"] for row in rows(page)][::2] == [printable(name) for name in HOSTILE]
    assert set(page.data["fields"]["error"].values()) == {printable(name) for name in HOSTILE}
    scripts = [script for script in page.root.iter("script") if script.get("type") is None]
    assert len(scripts) == 1
    assert not list(page.root.iter("img"))
    assert not [e for e in page.root.iter() for name in e.attrib if str(name).startswith("on")]
    text = page.text()
    assert all(text.count(printable(name)) >= 2 for name in HOSTILE)


@given(st.text(st.characters()))
def test_embedded_text_comes_back_and_cannot_end_its_block(text):
    block = embedded({"name": text})
    assert json.loads(block) == {"name": text}
    assert block.isascii()
    assert not set("<>&") & set(block)


@given(st.text(st.characters()))
def test_visible_text_has_no_hidden_characters(text):
    assert printable(text).isprintable()
    if text.isprintable():
        assert printable(text) == text


def test_the_page_allows_its_own_script_and_style_and_nothing_else(tmp_path, toy_pack):
    root = Page(write(tmp_path, toy_pack, [])).root
    [policy] = [
        meta.get("content")
        for meta in root.iter("meta")
        if meta.get("http-equiv") == "Content-Security-Policy"
    ]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    script = next(s for s in root.iter("script") if s.get("type") is None)
    for kind, element in (("script-src", script), ("style-src", root.find(".//style"))):
        digest = base64.b64encode(hashlib.sha256(element.text.encode()).digest()).decode()
        assert rules[kind] == f"'sha256-{digest}'"
    for element in root.iter():
        assert not {"src", "style", "srcset", "data", "action"} & set(element.attrib)
        assert element.get("href", "#").startswith("#")
    used = set(
        re.findall(r"\b(innerHTML|outerHTML|insertAdjacentHTML|eval|Function)\b", script.text)
    )
    assert used == set()


def test_results_without_frames_are_counted_and_that_is_said(tmp_path, toy_pack, make_result):
    page = Page(write(tmp_path, toy_pack, [make_result(count=4)]))
    assert page.data["slides"][0]["regions"] == 4
    assert page.data["pictured"] == []
    assert "1 of 1 fields have no picture here: their images were not kept" in page.text()


def test_many_fields_stay_within_the_room_and_that_is_said(
    tmp_path, toy_pack, with_frame, make_result, monkeypatch
):
    monkeypatch.setattr(findings_module, "FIELDS_BYTES", 60_000)
    monkeypatch.setattr(findings_module, "FIELDS_LISTED", 25)
    results = [with_frame(make_result("big", f"{at}", seed=at)) for at in range(60)]
    results += [with_frame(make_result("small", f"{at}", seed=at)) for at in range(3)]
    page = Page(write(tmp_path, toy_pack, results))
    pictured = page.data["pictured"]
    size = sum(
        len(page.blocks[f"picture-{at}"]) + len(page.blocks[f"boxes-{at}"]) for at in pictured
    )
    assert 30_000 < size <= 60_000
    assert {60, 61, 62} < set(pictured)  # the small slide gave nothing up
    listed = {row["number"] for row in rows(page)}
    assert listed == set(range(25)) | set(pictured)
    text = page.text()
    assert f"{63 - len(pictured)} of 63 fields have no picture here, so that the file stays" in text
    assert f"{63 - len(listed)} of 63 fields are not listed here" in text
    assert page.data["slides"][0]["fields"] == 60


def test_the_drift_certificate_is_that_of_the_device_and_precision(tmp_path, toy_pack):
    verdict = Acceptance(
        accepted=True,
        device="cpu: some",
        fields=12,
        smear_groups=3,
        fp32={"auc": 0.974},
        measured={"auc": 0.9731},
        flips={"abnormal": 0.0123},
    )
    ranges = NetworkRanges(sha256="0" * 64, method="max", error={}, ranges={})
    calibration = Calibration(
        networks=dict.fromkeys(NETWORKS, ranges), verdicts={"cpu:int8": verdict}
    )
    pack = dataclasses.replace(toy_pack, calibration=calibration)
    run = {"device": "cpu: AMD", "precision": "int8"}
    text = Page(write(tmp_path / "a", pack, [], run)).text()
    assert "Drift certificate" in text
    assert "0.9731" in text
    assert "0.0123" in text
    for other in (run | {"precision": "bf16"}, run | {"device": "cuda: H100"}, {}):
        assert "Drift certificate" not in Page(write(tmp_path / "b", pack, [], other)).text()


def test_grades_leave_out_regions_at_the_border_and_the_page_says_how_many(
    tmp_path, toy_pack, make_result
):
    """21 of 100 regions hold a burr, over 20 %; of the 80 whole ones 1 does, under 5 %."""
    result = make_result("s", "f", count=100)
    has, flags = np.zeros((100, 3), bool), np.zeros(100, np.uint8)
    flags[:20] = 1
    has[:21, 2] = True
    whole = dataclasses.replace(result.regions, has=has, flags=np.zeros(100, np.uint8))
    pages = [
        Page(write(tmp_path, toy_pack, [dataclasses.replace(result, regions=regions)]))
        for regions in (whole, dataclasses.replace(whole, flags=flags))
    ]
    burrs = [page.data["slides"][0]["types"][2] for page in pages]
    assert [(burr["count"], burr["cut"], burr["grades"][0]) for burr in burrs] == [
        (21, 0, 3),
        (21, 20, 0),
    ]
    assert "left out of the shares and grades" in pages[1].text()
    every = dataclasses.replace(whole, flags=np.ones(100, np.uint8))
    page = Page(write(tmp_path, toy_pack, [dataclasses.replace(result, regions=every)]))
    [slide] = page.data["slides"]
    assert slide["types"][2] == {"count": 21, "cut": 21, "share": None, "grades": None}
    assert slide["share"] is None


def test_a_page_of_an_empty_run_stands(tmp_path, toy_pack, make_failure):
    assert Page(write(tmp_path / "a", toy_pack, [], {})).data["slides"] == []
    page = Page(write(tmp_path / "b", toy_pack, [make_failure()], {}))
    assert page.data["slides"][0]["share"] is None


def test_the_report_goes_with_the_run_that_made_it(tmp_path, toy_pack, make_result):
    write(tmp_path, toy_pack, [make_result()])
    with RunOutput(claim(tmp_path, "overwrite"), toy_pack) as output:
        output.finish(RunRecord.of(toy_pack))
    assert not (tmp_path / "report.html").exists()
    page = ReportPage(tmp_path, toy_pack)
    page.write(make_result())
    page.discard()
    assert not list(tmp_path.glob("*report*"))
    with pytest.raises(UsageError, match="may name report, csv"):
        RunOutput(claim(tmp_path / "new"), toy_pack, formats=["reports"])


def test_memory_does_not_grow_with_the_fields(with_frame, make_result, monkeypatch):
    monkeypatch.setattr(findings_module, "FIELDS_BYTES", 100_000)
    monkeypatch.setattr(findings_module, "FIELDS_LISTED", 50)
    found = Findings(("disc", "sickle", "burr"))
    for at in range(300):
        found.add(with_frame(make_result("s", str(at), count=6, seed=at)))
    assert found.fields == 300
    assert len(found.rows) == 50
    assert sum(len(one.jpeg) for one in found.pictures.of("s")) < 100_000
    assert all(len(list(found.surest.of(("s", t)))) == 8 for t in range(3))
