"""The page as a browser shows it, on a phone and on a desk: nothing cut off, nothing
overlapping.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from persondet.report.build import build_document
from persondet.report.document import Document, Paragraph, Section, Table, as_plain_text
from persondet.report.html import html_of
from tests.report.browser import BROWSER, Browser
from tests.report.finished_run import write_finished_run

LONG = "a_class_with_a_name_without_any_space_that_is_longer_than_a_phone_is_wide_" * 2
# What reaches over the edge of the screen, and is not inside something that scrolls by itself.
WIDE = """[...document.querySelectorAll('body *')].filter(e => !e.closest('.table table') &&
  e.getBoundingClientRect().right > innerWidth + 1).map(e => e.tagName + ' ' + e.className)"""
OVERLAPPING = """(() => { const blocks = [...document.querySelectorAll('section > *')];
  return blocks.slice(1).filter((e, i) => e.parentNode === blocks[i].parentNode &&
    e.getBoundingClientRect().top < blocks[i].getBoundingClientRect().bottom - 1)
    .map(e => e.outerHTML.slice(0, 80)); })()"""
BROKEN = """[...document.images].filter(i => !i.complete || !i.naturalWidth ||
  Math.abs(i.width / i.height - i.naturalWidth / i.naturalHeight) > 0.05).length"""
CAPTIONS = "[...document.images].every(i => i.parentNode.querySelector('figcaption').innerText)"


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome on PATH: the page is not opened")
def test_the_page_fits_a_phone_and_a_desk(tmp_path: Path) -> None:
    run = write_finished_run(tmp_path / "run", classes=(LONG, "<b>person</b>"), large=True)
    page = tmp_path / "report.html"
    page.write_text(html_of(build_document(run)), encoding="utf-8")
    with Browser(tmp_path / "profile") as browser:
        for width, height, phone in ((390, 844, True), (1280, 800, False)):
            browser.open(page, width, height, phone=phone)
            assert browser.value("innerWidth") == width
            assert browser.value("document.documentElement.scrollWidth") == width
            assert browser.value(WIDE) == []
            assert browser.value(OVERLAPPING) == []
            assert browser.value("document.images.length") == 22
            assert browser.value(BROKEN) == 0
            assert browser.value(CAPTIONS) is True
            requests = [
                event["params"]["request"]["url"]
                for event in browser.events
                if event.get("method") == "Network.requestWillBeSent"
            ]
            assert {url.partition(":")[0] for url in requests} <= {"file", "data"}
            assert not [e for e in browser.events if e.get("method") == "Log.entryAdded"]
            browser.image(tmp_path / f"{width}.png")
            assert (tmp_path / f"{width}.png").stat().st_size > 20_000


def test_every_string_of_a_document_is_cleaned():
    bad = "x --api-key s3cr3tvalue\0"
    section = Section("key", bad, (Paragraph(bad, bad), Table(bad, (bad,), ((bad,),))))
    shown = repr(as_plain_text(Document(bad, bad, (section,))))
    assert "s3cr3t" not in shown and "\\x00" not in shown
