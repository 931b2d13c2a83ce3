"""`rbc-engine compare`: two small runs with known differences, and a page safe from names."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from typer.testing import CliRunner

from rbc_engine.cli import app
from rbc_engine.errors import OutputError, ResultsError
from rbc_engine.sinks.out_folder import claim
from rbc_engine.sinks.output import RunOutput
from rbc_engine.sinks.run_json import RunRecord
from rbc_engine.types.frames import FileStamp
from rbc_engine.types.regions import Regions
from rbc_engine.types.results import FieldResult

EVIL = "<script>alert('x')</script>&\"é"


def regions(*rows: tuple[float, str, bool]) -> Regions:
    """Rows of (x0, the initials of its types, abnormal): boxes of 40 px, side by side."""
    boxes = np.array([(x, 0, x + 40, 40) for x, _, _ in rows], np.float32).reshape(-1, 4)
    has = np.array([[initial in held for initial in "dsb"] for _, held, _ in rows], bool)
    abnormal = np.array([bad for _, _, bad in rows], bool)
    return Regions.by_area(
        boxes=boxes,
        scores=np.full(len(rows), 0.9, np.float32),
        probabilities=has.reshape(-1, 3).astype(np.float32),
        has=has.reshape(-1, 3),
        abnormal_p=abnormal.astype(np.float32),
        abnormal=abnormal,
        flags=np.zeros(len(rows), np.uint8),
    )


def field(slide: str, name: str, *rows: tuple[float, str, bool]) -> FieldResult:
    return FieldResult(slide=slide, field=name, width=640, height=480, regions=regions(*rows))


def write(folder, pack, *results: FieldResult) -> None:
    done = [result.regions for result in results if result.regions is not None]
    counts = {
        "fields": len(results),
        "failed": len(results) - len(done),
        "regions": sum(map(len, done)),
        "abnormal": sum(int(each.abnormal.sum()) for each in done),
    }
    with RunOutput(claim(folder), pack) as output:
        for result in results:
            output.write(result)
        output.finish(
            RunRecord.of(
                pack,
                abnormal_types=pack.manifest.abnormal,
                settings={"x": EVIL},
                counts=counts,
            )
        )


def compare(*arguments: object) -> dict:
    done = CliRunner().invoke(app, ["compare", *map(str, arguments), "--json"])
    if done.exception is not None:
        raise done.exception
    return json.loads(done.stdout)


@pytest.fixture
def runs(tmp_path, toy_pack):
    many = [(50.0 * i, "d", False) for i in range(40)]
    write(
        tmp_path / "a", toy_pack,
        field("one", "f1", (0, "d", False), (100, "s", True), (200, "d", False), (300, "ds", True)),
        field("one", "f2", (0, "d", False)),
        field("two", "f3", *many),
        field("two", "f4"),
        FieldResult(slide="two", field="f5", error="damaged"),
        field("two", EVIL, (0, "b", True)),
    )  # fmt: skip
    write(
        tmp_path / "b", toy_pack,
        field("one", "f1",
              (104, "sb", True),  # IoU 36/44: relabelled
              (1, "d", True),  # flipped to abnormal
              (230, "d", False),  # IoU 10/70: one lost, one gained
              (300, "ds", True)),
        FieldResult(slide="one", field="f2", error="damaged"),
        field("two", "f3", *((x, "s", True) for x, _, _ in many)),
        field("two", "f4", (0, "b", True)),
        field("two", "f5", (0, "b", True)),
        field("zwei", "f6", (0, "b", True)),
    )  # fmt: skip
    return tmp_path / "a", tmp_path / "b"


def test_every_difference_is_counted_where_it_belongs(runs):
    found = compare(*runs)
    assert found["fields"]["compared"] == 3
    assert [(row["field"], row["why"]) for row in found["fields"]["only_a"]] == [
        ("f2", "failed in B"),
        (EVIL, "not in B"),
    ]
    assert [(row["field"], row["why"]) for row in found["fields"]["only_b"]] == [
        ("f5", "failed in A"),
        ("f6", "not in A"),
    ]
    one, two = found["slides"]
    assert one["regions"] == {
        "a": 4,
        "b": 4,
        "matched": 3,
        "gained": 1,
        "lost": 1,
        "relabelled": 1,
        "to_abnormal": 1,
        "to_normal": 0,
    }
    assert two["regions"] == {
        "a": 40,
        "b": 41,
        "matched": 40,
        "gained": 1,
        "lost": 0,
        "relabelled": 40,
        "to_abnormal": 40,
        "to_normal": 0,
    }
    assert found["regions"] == {
        key: one["regions"][key] + two["regions"][key] for key in one["regions"]
    }
    assert (one["verdict"], two["verdict"]) == (None, "higher")
    assert {
        row["name"]: [row[k] for k in ("a", "b", "kept", "gained", "lost", "new", "gone")]
        for row in found["types"]
    } == {
        "disc": [43, 3, 2, 0, 40, 1, 1],
        "sickle": [2, 42, 2, 40, 0, 0, 0],
        "burr": [0, 2, 0, 1, 0, 1, 0],
    }
    assert found["relabellings"] == [
        {"types_a": "disc", "types_b": "sickle", "regions": 40},
        {"types_a": "sickle", "types_b": "sickle;burr", "regions": 1},
    ]


def test_a_run_equals_itself(runs):
    found = compare(runs[0], runs[0])
    assert found["regions"]["matched"] == found["regions"]["a"] == found["regions"]["b"]
    assert not any(
        found["regions"][key]
        for key in ("gained", "lost", "relabelled", "to_abnormal", "to_normal")
    )
    assert all(slide["verdict"] is None for slide in found["slides"])


def test_turned_round_gained_is_lost(runs):
    forth, back = compare(*runs), compare(*runs[::-1])
    assert forth["regions"]["gained"] == back["regions"]["lost"]
    assert forth["regions"]["to_abnormal"] == back["regions"]["to_normal"]
    assert forth["fields"]["only_a"][0]["field"] == back["fields"]["only_b"][0]["field"]
    assert back["slides"][1]["verdict"] == "lower"


def test_fields_in_another_order_are_found(runs, tmp_path, toy_pack):
    rng = np.random.default_rng(0)
    fields = [
        field("s", f"{i}", *((50.0 * j, "ds"[i % 2], False) for j in range(i))) for i in range(30)
    ]
    write(tmp_path / "x", toy_pack, *fields)
    write(tmp_path / "y", toy_pack, *(fields[i] for i in rng.permutation(30)))
    found = compare(tmp_path / "x", tmp_path / "y")
    assert found["regions"]["matched"] == sum(range(30))
    assert found["regions"]["relabelled"] == 0


def test_types_of_one_run_only_are_named(runs, tmp_path, toy_pack):
    types = ("burr", "disc", "teardrop")
    manifest = toy_pack.manifest.model_copy(
        update={"types": types, "abnormal": ("burr", "teardrop")}
    )
    write(
        tmp_path / "c", replace(toy_pack, manifest=manifest), field("one", "f1", (100, "ds", True))
    )
    found = compare(runs[0], tmp_path / "c")
    # In c the initials d, s, b stand for burr, disc and teardrop; in a the region is a sickle.
    assert [row["name"] for row in found["types"]] == ["disc", "burr"]
    assert [each["name"] for each in found["slides"][0]["grades"]] == ["burr"]
    assert found["relabellings"] == [{"types_a": "sickle", "types_b": "burr;disc", "regions": 1}]
    assert "sickle (A), teardrop (B)" in " ".join(found["notes"])


def test_slides_whose_grade_changed_are_listed(runs, tmp_path):
    found = compare(*runs, "--out", tmp_path / "out")
    grades = {
        (slide["slide"], each["name"]): [
            each[run] and each[run]["grades"]["grade"] for run in ("a", "b")
        ]
        for slide in found["slides"]
        for each in slide["grades"]
    }
    # Sickle and burr have the default cut-offs: 2 from 5 %, 3 over 20 %. Of slide one 2 of 4 and 2
    # of 4 regions are sickles, none and 1 are burrs; of slide two none of 40 and 40 of 41, none and
    # 1 of 41.
    assert grades == {
        ("one", "sickle"): [3, 3],
        ("one", "burr"): [0, 3],
        ("two", "sickle"): [0, 3],
        ("two", "burr"): [0, 0],
    }
    changed = [
        (slide["slide"], each["name"])
        for slide in found["slides"]
        for each in slide["grades"]
        if each["changed"]
    ]
    assert changed == [("one", "burr"), ("two", "sickle")]
    page = Page((tmp_path / "out" / "compare.html").read_text(encoding="utf-8"))
    at = page.text.index("Slides whose grade changed")
    assert page.text[at:].count("3+ (25.0%, 0 to 3+)") == 1
    assert "On 2 slides a type has another grade." in " ".join(page.text)


def test_grades_leave_out_regions_at_the_border(tmp_path, toy_pack):
    inside = field("s", "f", (0, "s", True), *((50.0 * i, "d", False) for i in range(1, 21)))
    flags = np.array([1, *[0] * 20], np.uint8)
    cut = replace(inside, regions=replace(inside.regions, flags=flags))
    write(tmp_path / "a", toy_pack, inside)
    write(tmp_path / "b", toy_pack, cut)
    found = compare(tmp_path / "a", tmp_path / "b")
    sickle = found["slides"][0]["grades"][0]
    # 1 of 21 is under 5 %: neither run reports it, and in B there is none left to count.
    assert (sickle["a"]["share"], sickle["b"]["share"]) == (1 / 21, 0)
    nearer = field("s", "f", (0, "s", True), *((50.0 * i, "d", False) for i in range(1, 20)))
    cut = replace(nearer, regions=replace(nearer.regions, flags=flags[:20]))
    write(tmp_path / "c", toy_pack, nearer)
    write(tmp_path / "d", toy_pack, cut)
    sickle = compare(tmp_path / "c", tmp_path / "d")["slides"][0]["grades"][0]
    assert sickle["changed"]
    assert [sickle[run]["grades"]["grade"] for run in ("a", "b")] == [2, 0]


def test_runs_that_do_not_say_which_types_are_abnormal_have_no_grades(runs):
    path = runs[0] / "run.json"
    record = json.loads(path.read_text())
    del record["abnormal_types"]
    path.write_text(json.dumps(record))
    found = compare(*runs)
    assert all(slide["grades"] == [] for slide in found["slides"])
    assert "grades are not compared: run.json of A does not state" in " ".join(found["notes"])


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag != "meta":
            self.open.append(tag)
        for name, value in attrs:
            assert not name.startswith("on")
            assert name not in ("src", "href"), value

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_the_page_holds_it_all_and_no_name_breaks_it(runs, tmp_path):
    out = tmp_path / "out"
    record = compare(*runs, "--out", out)
    assert sorted(path.name for path in out.iterdir()) == [
        "changes.csv",
        "compare.html",
        "compare.json",
    ]
    assert json.loads((out / "compare.json").read_text()) == record
    page = Page((out / "compare.html").read_text(encoding="utf-8"))
    assert page.open == []
    assert "script" not in page.tags
    assert EVIL in page.text
    assert page.tags.count("table") == page.tags.count("caption") == 7
    with (out / "changes.csv").open(newline="", encoding="utf-8-sig") as file:
        changes = list(csv.DictReader(file))
    kinds = [row["kind"] for row in changes if row["field"] == "f1"]
    assert sorted(kinds) == ["flipped", "gained", "lost", "relabelled"]
    assert len(changes) == 4 + 41
    relabelled = next(row for row in changes if row["kind"] == "relabelled")
    assert relabelled["types_a"] == "sickle"
    assert relabelled["types_b"] == "sickle;burr"
    assert float(relabelled["iou"]) == pytest.approx(36 / 44, abs=1e-5)
    with pytest.raises(OutputError, match="--overwrite"):
        compare(*runs, "--out", out)
    compare(*runs, "--out", out, "--overwrite")


def test_a_strangers_run_cannot_steer_the_terminal(tmp_path, toy_pack):
    evil = "\x1b]0;title\x07\x1b[2J[b]"
    for name, held in (("a", "d"), ("b", "s")):
        write(tmp_path / name, toy_pack, field(evil, evil, (0, held, True)))
    write(tmp_path / "d", toy_pack, field(evil, evil + "2", (0, "d", True)), field(evil, evil))
    for other in ("b", "d"):
        done = CliRunner().invoke(app, ["compare", str(tmp_path / "a"), str(tmp_path / other)])
        assert done.exit_code == 0
        shown = "".join(done.stdout.split())
        assert not set("\x1b\x07") & set(done.stdout)
        assert "\\x1b" in shown


def test_the_table_names_the_slides(runs):
    done = CliRunner().invoke(app, ["compare", *map(str, runs)])
    assert done.exit_code == 0
    for text in (
        "one",
        "two",
        "higher",
        "slides whose grade changed",
        "burr",
        "failed in B",
        "not in A",
    ):
        assert text in done.stdout


def with_file(result: FieldResult, path) -> FieldResult:
    return replace(result, path=str(path), stamp=FileStamp.of(path))


def test_the_same_images_are_found_under_other_names(tmp_path, toy_pack):
    """Run from the folder above; copied and renamed; and a copy whose content is another's."""
    (tmp_path / "in" / "copy").mkdir(parents=True)
    for name, content in (("1.png", b"one"), ("2.png", b"two"), ("3.png", b"3"), ("4.png", b"x4")):
        (tmp_path / "in" / name).write_bytes(content)
        (tmp_path / "in" / "copy" / f"c{name}").write_bytes(content)
    (tmp_path / "in" / "copy" / "c4.png").write_bytes(b"y4")
    paths = {name: tmp_path / "in" / name for name in ("1.png", "2.png", "3.png", "4.png")}
    cell = (0, "d", False)
    write(
        tmp_path / "a", toy_pack,
        *(with_file(field("in", name, cell), path) for name, path in paths.items()),
    )  # fmt: skip
    write(
        tmp_path / "b", toy_pack,
        with_file(field("x/in", "in/1.png", cell), paths["1.png"]),
        *(
            with_file(field("copy", f"c{name}", cell), tmp_path / "in" / "copy" / f"c{name}")
            for name in ("2.png", "3.png", "4.png")
        ),
    )  # fmt: skip
    found = compare(tmp_path / "a", tmp_path / "b")
    assert (found["fields"]["compared"], found["fields"]["renamed"]) == (3, 3)
    assert [row["field"] for row in found["fields"]["only_a"]] == ["4.png"]
    assert [row["field"] for row in found["fields"]["only_b"]] == ["c4.png"]
    assert [slide["slide"] for slide in found["slides"]] == ["in"]
    assert found["slides"][0]["abnormal_b"]["regions"] == 3
    assert "3 fields have another name in B" in " ".join(found["notes"])


def test_with_nothing_in_common_it_says_so_and_fails(tmp_path, toy_pack):
    write(tmp_path / "a", toy_pack, field("one", "f1"), field("one", "f2"))
    write(tmp_path / "b", toy_pack, field("two", "g1"))
    with pytest.raises(
        ResultsError, match=r"no field is in both runs.*2 fields done, the first f1"
    ):
        compare(tmp_path / "a", tmp_path / "b", "--out", tmp_path / "out")
    assert not list(tmp_path.glob("out/*"))


def test_headers_are_words_also_in_80_columns(runs):
    done = CliRunner().invoke(app, ["compare", *map(str, runs)], env={"COLUMNS": "80"})
    words = set(done.stdout.split())
    assert {"gained", "lost", "abnormal", "normal", "types", "share"} <= words
    assert "…" not in done.stdout
    assert not {"abn.", "norm."} & words
