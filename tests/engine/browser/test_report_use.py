"""report.html in a real Chromium: sorts, filters, zooms, by mouse and by keyboard."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from .pages import column


def test_slides_sort_by_name_and_number(load, report):
    page = load(report)
    names = lambda: column(page, "slides-table", 1)  # noqa: E731
    assert names() == ["slide 2", "slide 10", "Slide 1", "control"]
    head = page.get_by_role("columnheader", name="Slide")
    head.get_by_role("button").click()
    assert names() == ["control", "Slide 1", "slide 2", "slide 10"]
    assert head.get_attribute("aria-sort") == "ascending"
    head.get_by_role("button").press("Enter")
    assert names() == ["slide 10", "slide 2", "Slide 1", "control"]
    page.locator("#slides-table").get_by_role("button", name="Regions").click()
    counts = [int(text.replace(",", "")) for text in column(page, "slides-table", 4)]
    assert counts == sorted(counts, reverse=True)


def between(cells):
    return " to ".join(f"{count:,}" for count in dict.fromkeys(cells))


def test_cells_are_shown_as_a_range_and_sort_by_the_fewest(load, report):
    page = load(report)
    slides = page.evaluate("JSON.parse(document.getElementById('data').textContent)")["slides"]
    total = [sum(slide["cells"][end] for slide in slides) for end in (0, 1)]
    assert total[0] < total[1]
    card = page.locator("#totals .card").filter(has_text="Red cells")
    regions = sum(slide["regions"] for slide in slides)
    assert card.locator(".value").inner_text() == between(total)
    assert card.locator(".note").inner_text().startswith(f"in {regions:,} regions")
    assert f", {between(slides[0]['cells'])} cells in {slides[0]['regions']} regions, " in (
        page.locator("#slide-summary").inner_text()
    )
    page.locator("#slides-table").get_by_role("button", name="Cells").click()
    by_fewest = sorted(slides, key=lambda slide: -slide["cells"][0])
    assert column(page, "slides-table", 6) == [between(slide["cells"]) for slide in by_fewest]


def test_a_clump_says_how_many_cells_it_may_hold(load, report):
    page = load(report)
    page.wait_for_function("document.querySelector('.details').textContent.includes('region')")
    boxes = page.evaluate("JSON.parse(document.getElementById('boxes-0').textContent)")
    clump = next(at for at, box in enumerate(boxes) if box["flags"] & 2)
    single = next(at for at, box in enumerate(boxes) if not box["flags"] & 2)
    texts = {}
    for at in range(max(clump, single) + 1):
        page.locator("#viewer canvas").press("n")
        texts[at] = page.locator(".details").inner_text()
    assert f" {between(boxes[clump]['cells'])} cells. " in texts[clump]
    assert "cell" not in texts[single]
    patches = page.evaluate("JSON.parse(document.getElementById('patches-0').textContent)")
    # Under each picture, and in what a screen reader says of it.
    expected = []
    types = page.evaluate("JSON.parse(document.getElementById('data').textContent)")["types"]
    patches = [
        (patch, kind)
        for kind, ends in zip(types, patches, strict=True)
        for end in ends
        for patch in end
    ]
    for patch, kind in patches:
        notes = [f"{between(patch['cells'])} cells"] if patch["flags"] & 2 else []
        notes += ["at border"] if patch["flags"] & 1 else []
        notes += ["unsure"] if patch["flags"] & 8 else []
        if patch["abnormal"] and not kind["abnormal"]:
            notes += [f"abnormal {patch['abnormalP']:.2f}"]
        expected.append([f"{patch['p']:.2f}", *notes])
    assert {len(notes) for notes in expected} >= {1, 2, 3}
    shown = page.locator("#gallery button.patch").all()
    texts = [patch.locator("span").all_inner_texts() for patch in shown]
    assert sorted(texts) == sorted(expected)
    for patch, notes in zip(shown, texts, strict=True):
        assert ("unsure" in notes) == ("unsure" in patch.get_attribute("class").split())
        assert f"{', '.join(notes[1:])}. Open " in patch.locator("img").get_attribute("alt")


def test_an_abnormal_box_of_a_normal_type_says_why_and_unsure_ones_say_so(load, report):
    page = load(report)
    page.wait_for_function("document.querySelector('.details').textContent.includes('region')")
    boxes = page.evaluate("JSON.parse(document.getElementById('boxes-0').textContent)")
    types = page.evaluate("JSON.parse(document.getElementById('data').textContent)")["types"]
    seen = set()
    for box in boxes:
        page.locator("#viewer canvas").press("n")
        texts = page.locator(".details").inner_text()
        contrary = box["abnormal"] and not any(types[at]["abnormal"] for at, _ in box["types"])
        assert ("Its type is normal, but the chance of an abnormal cell" in texts) == contrary
        assert ("unsure, no type is likely" in texts) == (box["flags"] & 8 > 0)
        seen.add((bool(contrary), box["flags"] & 8 > 0))
    assert {wrong for wrong, _ in seen} == {unsure for _, unsure in seen} == {True, False}


def test_slides_filter_by_name_type_and_grade(load, report):
    page = load(report)
    page.get_by_role("search", name="Filter the slides").get_by_label("Name").fill("sLiDe 1")
    assert column(page, "slides-table", 1) == ["slide 10", "Slide 1"]
    assert "1 to 2 of 2 (4 in all)" in page.locator("#slides-table .status").inner_text()
    page.locator("#slide-text").fill("nothing such")
    assert page.locator("#slides-table tbody").inner_text() == "No slide fits the filter."
    page.locator("#slide-text").fill("")
    data = page.evaluate("JSON.parse(document.getElementById('data').textContent)")
    label = "schistocyte"
    index = [t["label"] for t in data["types"]].index(label)
    page.locator("#slide-type").select_option(label=label)
    for least in ("1", "2", "3"):
        page.locator("#slide-grade").select_option(least)
        expected = [
            s["name"] for s in data["slides"] if s["types"][index]["grades"][0] >= int(least)
        ]
        shown = column(page, "slides-table", 1)
        assert shown == (expected or ["No slide fits the filter."])


def test_choosing_a_slide_shows_its_types_gallery_and_fields(load, report):
    page = load(report)
    page.locator("#slides-table").get_by_role("button", name="Slide 1", exact=True).click()
    assert page.locator("#fields-slide").inner_text() == "Slide 1"
    assert all(name.startswith("Slide 1/") for name in column(page, "fields-table", 1))
    data = page.evaluate("JSON.parse(document.getElementById('data').textContent)")
    slide = data["slides"][2]
    shown = dict(zip(column(page, "types-table", 1), column(page, "types-table", 2), strict=True))
    expected = {t["label"]: k["count"] for t, k in zip(data["types"], slide["types"], strict=True)}
    assert {label: int(text.replace(",", "")) for label, text in shown.items()} == expected
    cut = dict(zip(column(page, "types-table", 1), column(page, "types-table", 3), strict=True))
    assert {label: int(text) for label, text in cut.items()} == {
        t["label"]: k["cut"] for t, k in zip(data["types"], slide["types"], strict=True)
    }
    assert sum(map(int, cut.values())) > 0
    left_out = slide["regions"] - slide["whole"]
    assert page.locator("#types-basis").inner_text() == (
        f"Shares and grades of types are of the {slide['whole']} regions that no border cuts; "
        f"{left_out} regions at the border are left out."
    )
    shares = [k["share"][0] for k in slide["types"]]
    assert max(shares) == pytest.approx(
        float(column(page, "types-table", 4)[0].rstrip(" %")) / 100, abs=0.0051
    )
    loaded = page.locator("#gallery img").evaluate_all(
        "images => Promise.all(images.map(i => i.decode().then(() => i.naturalWidth)))"
    )
    assert len(loaded) > 50
    assert set(loaded) == {72}
    page.locator("#chosen-slide").select_option(label="control")
    assert page.locator("#fields-slide").inner_text() == "control"


def test_fields_filter_to_the_failed_and_say_why(load, report):
    page = load(report)
    page.locator("#field-which").select_option("failed")
    assert column(page, "fields-table", 1) == ["slide 2/3.jpg"]
    page.get_by_role("button", name="slide 2/3.jpg").click()
    assert "slide 2: damaged" in page.locator(".field-name").inner_text()
    page.locator("#field-which").select_option("saturated")
    assert "saturated" in column(page, "fields-table", 4)[0]


def inked(page):
    """Pixels of the canvas, uint8 [H, W, 4]."""
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    url = page.evaluate("document.querySelector('#viewer canvas').toDataURL('image/png')")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))))


def count_like(pixels, rgb):
    return int((np.abs(pixels[..., :3].astype(int) - rgb).max(axis=-1) < 40).sum())


VERMILION, BLUE, YELLOW = (213, 94, 0), (0, 114, 178), (255, 233, 77)


def test_the_field_is_drawn_with_its_boxes(load, report):
    page = load(report)
    page.wait_for_function("document.querySelector('.details').textContent.includes('region')")
    full = inked(page)
    assert full[..., 3].any()
    assert count_like(full, VERMILION) > 500
    assert count_like(full, BLUE) > 300
    page.locator("#viewer-which").select_option("abnormal")
    assert count_like(inked(page), BLUE) < 50
    page.locator("#viewer-which").select_option("none")
    bare = inked(page)
    assert count_like(bare, VERMILION) < 50
    drawn = bare[..., 3] > 0
    assert 0.5 < drawn.mean() <= 1


@pytest.mark.parametrize("way", ["wheel", "buttons", "keys"])
def test_the_field_zooms_and_moves(load, report, way):
    page = load(report)
    page.locator("#viewer-which").select_option("none")
    canvas = page.locator("#viewer canvas")
    canvas.scroll_into_view_if_needed()
    fitted = inked(page)
    box = canvas.bounding_box()
    zoom = {
        "wheel": lambda: (
            page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2),
            page.mouse.wheel(0, -600),
        ),
        "buttons": lambda: page.get_by_role("button", name="Zoom in").click(click_count=3),
        "keys": lambda: [canvas.press("+") for _ in range(5)],
    }[way]
    zoom()
    page.wait_for_timeout(100)
    near = inked(page)
    assert (near[..., 3] > 0).all()  # no margin is left
    # What fills the canvas now is the middle of what did before, enlarged.
    middle = near.shape[0] // 2, near.shape[1] // 2
    assert np.abs(near[middle].astype(int) - fitted[middle]).max() < 30
    assert (near != fitted).mean() > 0.3
    canvas.press("ArrowLeft")
    moved = inked(page)
    assert np.abs(moved[:, 40:, :3].astype(int) - near[:, :-40, :3]).mean() < 1
    if way == "wheel":
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] / 2 - 40, box["y"] + box["height"] / 2)
        page.mouse.up()
        assert np.abs(inked(page).astype(int) - near).mean() < 1
    canvas.press("0")
    np.testing.assert_array_equal(inked(page), fitted)


def test_regions_are_described_by_keyboard_and_click(load, report):
    page = load(report)
    canvas, texts = page.locator("#viewer canvas"), page.locator(".details")
    page.wait_for_function("document.querySelector('.details').textContent.includes('region')")
    boxes = page.evaluate("JSON.parse(document.getElementById('boxes-0').textContent)")
    canvas.press("n")
    assert texts.inner_text().startswith("Region 0: ")
    canvas.press("n")
    assert texts.inner_text().startswith("Region 1: ")
    assert f"p {boxes[1]['p']:.2f}" in texts.inner_text()
    assert count_like(inked(page), YELLOW) > 100
    canvas.press("p")
    canvas.press("p")
    assert texts.inner_text().startswith(f"Region {len(boxes) - 1}: ")
    canvas.press("Escape")
    assert "Choose one" in texts.inner_text()
    canvas.press("0")
    width, height = page.evaluate(
        "[document.querySelector('#viewer canvas').clientWidth, document.querySelector('#viewer "
        "canvas').clientHeight]"
    )
    scale = min(width / 640, height / 480)
    left, top = (width - 640 * scale) / 2, (height - 480 * scale) / 2
    area = [box["box"][2] * box["box"][3] for box in boxes]
    smallest = int(np.argmin(area))  # the one that a click on it means, whatever lies over it
    x, y, across, down = boxes[smallest]["box"]
    canvas.scroll_into_view_if_needed()
    spot = {"x": left + scale * (x + across / 2), "y": top + scale * (y + down / 2)}
    canvas.click(position=spot)
    assert texts.inner_text().startswith(f"Region {smallest}: ")


def test_a_patch_opens_its_field_at_its_region(load, report):
    page = load(report)
    patches = page.evaluate("JSON.parse(document.getElementById('patches-0').textContent)")
    label = page.evaluate("JSON.parse(document.getElementById('data').textContent).types[4].label")
    patch = patches[4][0][0]
    group = page.locator("#gallery .kind").filter(has=page.get_by_role("heading", name=label))
    group.locator("button.patch").first.click()
    page.wait_for_function("document.querySelector('.details').textContent.startsWith('Region')")
    assert page.locator(".field-name bdi").inner_text() == patch["field"]
    assert page.locator(".details").inner_text().startswith(f"Region {patch['region']}: ")
    assert label in page.locator(".details").inner_text()
    assert page.evaluate("document.activeElement.tagName") == "CANVAS"


@pytest.mark.slow
def test_everything_is_reached_by_keyboard(load, report):
    page = load(report)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the results"
    reached = set()
    for _ in range(400):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate(
                "document.activeElement.id || document.activeElement.tagName + "
                "document.activeElement.className"
            )
        )
        if "CANVAS" in reached:
            break
    wanted = {"slide-text", "slide-type", "chosen-slide", "field-text", "BUTTONpatch abnormal"}
    assert wanted | {"viewer-which", "BUTTONlink", "CANVAS"} <= reached
    page.keyboard.press("n")
    assert page.locator(".details").inner_text().startswith("Region 0: ")
