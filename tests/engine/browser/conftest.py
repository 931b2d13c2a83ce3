"""A real Chromium, and a report to look at in it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import sync_playwright

from .pages import write_report


@pytest.fixture(scope="module")
def chromium():
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    found = os.environ.get("RBC_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip("no Chromium: apt-get install chromium, or name one in RBC_CHROMIUM")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found)
        yield browser
        browser.close()


@pytest.fixture
def load(chromium):
    """Opens a page that must say nothing on its console and ask for nothing but itself."""
    said, asked, contexts = [], [], []

    def open_page(path, *, waits=True, **options):
        context = chromium.new_context(viewport={"width": 1360, "height": 1000}, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: said.append(dialog.message))
        page.on("request", lambda request: asked.append(request.url[:60]))
        page.goto(path.as_uri())
        if waits:
            page.wait_for_selector("#fields-table tbody tr")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert said == []
    assert [url for url in asked if not url.startswith(("file://", "data:image/jpeg"))] == []


@pytest.fixture(scope="module")
def frames(repository):
    paths = sorted((repository / "samples").rglob("*.jpg"))
    return [np.asarray(Image.open(path)) for path in paths]


@pytest.fixture(scope="module")
def report(tmp_path_factory, frames) -> Path:
    """40 fields on four slides with ordinary names."""
    slides = ["slide 2", "slide 10", "Slide 1", "control"]
    return write_report(tmp_path_factory.mktemp("report"), 40, slides=slides, frames=frames)
