"""report.html in a real Chromium: accessible, printable, safe with hostile names, quick with
thousands of fields.
"""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe

from rbc_engine.text import printable

from .pages import column, write_report

FIRST_PAINT_MS = 1000
MOST_BYTES = 20_000_000
HOSTILE = [
    "</script><script>window.hacked = 1</script>",
    "<img src=x onerror='window.hacked = 2'>\nline",
    '" onmouseover="window.hacked = 3" \'',
    "x" * 250,
]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1360, 400])
def test_accessible_by_axe(load, report, scheme, width):
    """Contrast of 4.5, names, roles, labels, headings: what axe-core finds of WCAG 2.2 AA."""
    page = load(report, color_scheme=scheme, bypass_csp=True)  # for axe, which is injected
    page.set_viewport_size({"width": width, "height": 900})
    page.locator("#slides-table tbody tr").first.hover()
    found = Axe().run(page, options={"resultTypes": ["violations"]})
    assert found.violations_count == 0, found.generate_report()


def test_narrow_pages_do_not_scroll_sideways(load, report):
    page = load(report)
    for width in (320, 768):
        page.set_viewport_size({"width": width, "height": 700})
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_print_has_every_slide_and_no_controls(load, tmp_path, frames):
    slides = [f"slide {at}" for at in range(30)]
    page = load(write_report(tmp_path, 60, slides=slides, frames=frames, regions=5))
    assert len(column(page, "slides-table", 1)) == 25
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert len(column(page, "slides-table", 1)) == 30
    assert not page.locator("#fields").is_visible()
    assert not page.locator(".filters").first.is_visible()
    assert page.locator("#gallery img").first.is_visible()
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert len(column(page, "slides-table", 1)) == 25


def test_hostile_names_are_shown_and_do_nothing(load, tmp_path, frames):
    run = {"warnings": HOSTILE, "settings": {name: name for name in HOSTILE}}
    path = write_report(tmp_path, 8, slides=HOSTILE, frames=frames, regions=6, run=run)
    page = load(path)
    assert column(page, "slides-table", 1) == [printable(name) for name in HOSTILE]
    for at, name in enumerate(HOSTILE):
        page.locator("#slides-table tbody button").nth(at).click()
        assert page.locator("#fields-slide").inner_text() == printable(name)
        page.locator("#fields-table tbody button").first.click()
        page.locator("#gallery button").first.click()
    assert page.locator(".notes li").all_inner_texts() == [printable(name) for name in HOSTILE]
    assert page.evaluate("window.hacked") is None
    page.set_viewport_size({"width": 400, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 400


def test_the_policy_forbids_other_scripts_and_the_network(chromium, report):
    page = chromium.new_page()
    page.goto(report.as_uri())
    refused = page.evaluate(
        """async () => {
          const seen = [];
          addEventListener('securitypolicyviolation', (e) => seen.push(e.effectiveDirective));
          const image = new Image();
          image.src = 'https://example.invalid/x.png';
          await fetch('https://example.invalid/').catch(() => {});
          try { document.body.innerHTML = '<b>x</b>'; } catch { seen.push('innerHTML'); }
          const style = document.createElement('style');
          style.textContent = 'body { color: red }';
          document.head.append(style);
          await new Promise((done) => setTimeout(done, 100));
          return seen;
        }"""
    )
    page.close()
    assert {"img-src", "connect-src", "innerHTML", "style-src-elem"} <= set(refused)


PAINTED = "performance.getEntriesByName('first-contentful-paint')[0].startTime"


@pytest.mark.slow
def test_two_hundred_fields_are_small_and_paint_at_once(load, tmp_path, frames):
    path = write_report(tmp_path, 200, slides=["a", "b", "c", "d"], frames=frames, regions=75)
    assert 3_000_000 < path.stat().st_size < MOST_BYTES
    # The best of three: what the page needs, not what else the machine does.
    painted = []
    for _ in range(3):
        page = load(path)
        painted.append(page.evaluate(PAINTED))
        page.close()
    assert min(painted) < FIRST_PAINT_MS


@pytest.mark.slow
def test_ten_thousand_fields_are_quick(load, tmp_path, frames):
    slides = [f"slide {at}" for at in range(10)]
    small = [frame[:120, :160] for frame in frames]
    path = write_report(tmp_path, 10_000, slides=slides, frames=small, regions=3)
    assert path.stat().st_size < MOST_BYTES
    page = load(path)
    assert page.locator("tr").count() < 300
    assert len(column(page, "fields-table", 1)) == 12
    assert "1 to 12 of 1,000" in page.locator("#fields-table .status").inner_text()
    # Each act, until its result is on the page: in milliseconds, the best of three.
    acts = {
        "sort": "document.querySelectorAll('#fields-table thead button')[1].click()",
        "filter": "document.querySelector('#field-text').dispatchEvent(new Event('input'))",
        "last page": "document.querySelector('#fields-table [aria-label=\"Last page\"]').click()",
    }
    for name, act in acts.items():
        took = [
            page.evaluate(
                f"(() => "
                f"{{ const began = performance.now(); {act}; "
                f"return performance.now() - began; }})()"
            )
            for _ in range(3)
        ]
        assert min(took) < 100, name
    page.locator("#fields-table").get_by_role("button", name="First page").click()
    fields = page.evaluate("JSON.parse(document.getElementById('data').textContent).fields")
    mine = [r for r, at in zip(fields["regions"], fields["slide"], strict=True) if at == 0]
    shown = [int(text) for text in column(page, "fields-table", 2)]
    assert shown == sorted(mine, reverse=True)[:12]  # sorted three times: down, up, down
