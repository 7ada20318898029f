"""The page as its users have it, in headless Chromium; the model is a stand-in."""

import json
import shutil
import time
import zipfile
from base64 import b64encode

import pytest

pytestmark = pytest.mark.slow
sync = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed: pip install persondet[page-dev]"
)
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
PHONE = 390  # pixels across
SECONDS = 60_000  # in milliseconds, for a busy machine
# Drops a JPEG (base64) on an element, as the mouse does.
DROP = """(element, data) => {
  const bytes = Uint8Array.from(atob(data), c => c.charCodeAt(0)), all = new DataTransfer();
  all.items.add(new File([bytes], "dropped.jpg", {type: "image/jpeg"}));
  for (const name of ["dragenter", "dragover", "drop"])
    element.dispatchEvent(new DragEvent(name, {dataTransfer: all, bubbles: true}));
}"""
PLAY = """async video => {
  video.muted = true;
  await video.play();
  await new Promise(done => setTimeout(done, 500));
  return [video.currentTime > 0, Math.round(10 * video.duration), video.videoWidth];
}"""


@pytest.fixture(scope="module")
def chromium(page):
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed (Debian: apt install chromium)")
    with sync.sync_playwright() as playwright:
        # A container's root has no sandbox.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def opened(chromium, page, width=1280):
    """Return the page in a browser of its own; it notes what is asked of other addresses."""
    context = chromium.new_context(viewport={"width": width, "height": 800}, accept_downloads=True)
    tab = context.new_page()
    tab.set_default_timeout(SECONDS)
    tab.elsewhere = []
    own = (page.address, "data:", "blob:")
    tab.on("request", lambda r: r.url.startswith(own) or tab.elsewhere.append(r.url))
    tab.goto(page.address)
    tab.wait_for_selector("#image-source input[type=file]", state="attached")
    tab.wait_for_timeout(1000)  # the script attaches itself to what is there
    return tab


@pytest.fixture
def tab(chromium, page, request):
    width = getattr(request, "param", PHONE)
    tab = opened(chromium, page, width)
    yield tab
    assert tab.elsewhere == []
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    tab.context.close()


wide_and_narrow = pytest.mark.parametrize("tab", [1280, PHONE], indirect=True)


def says(tab, part, text):
    sync.expect(tab.locator(f"#{part}")).to_contain_text(text, timeout=SECONDS)


def give(tab, part, path):
    tab.locator(f"#{part} input[type=file]").set_input_files(str(path))


def downloaded(tab, part):
    with tab.expect_download() as waiting:
        tab.click(f"#{part}")
    return waiting.value.path()


@wide_and_narrow
def test_an_image_a_slider_masks_and_downloads(page, tab):
    zone, data = tab.locator("#image-source button").first, page.image.read_bytes()
    zone.evaluate(DROP, b64encode(data).decode())
    says(tab, "image-told", "Detections from 0.50 on: 2")
    runs = len(page.noted("image"))
    shown = tab.locator("#image-shown img")
    first = shown.get_attribute("src")
    slider = tab.locator(".threshold input[type=range]").first
    slider.fill("0.7")
    says(tab, "image-told", "Detections from 0.70 on: 1")
    slider.fill("0.95")
    says(tab, "image-told", "Detections from 0.95 on: 0")
    slider.fill("0.2")
    says(tab, "image-told", "Detections from 0.20 on: 2")
    sync.expect(tab.locator("#image-table")).to_contain_text("0.9")
    before = downloaded(tab, "image-file").read_bytes()
    tab.get_by_label("Masks").first.uncheck()
    sync.expect(shown).not_to_have_attribute("src", first)
    tab.wait_for_timeout(1000)
    assert downloaded(tab, "image-file").read_bytes() != before
    record = downloaded(tab, "image-records").read_text().splitlines()[1]
    assert len(json.loads(record)["people"]) == 2
    assert len(page.noted("image")) == runs  # the model did not run again


@wide_and_narrow
def test_a_clip_plays_and_its_files_come_down(page, tab):
    tab.get_by_role("tab", name="Clip").click()
    give(tab, "clip-source", page.clip)
    tab.get_by_label("End").fill("1.2")
    tab.click("#clip-go")
    tab.wait_for_selector("#clip-told progress")
    says(tab, "clip-told", "36 frames")
    assert tab.locator("#clip-shown video").evaluate(PLAY) == [True, 12, 96]
    assert len(downloaded(tab, "clip-records").read_text().splitlines()) == 37
    assert downloaded(tab, "clip-file").stat().st_size > 1000
    with zipfile.ZipFile(downloaded(tab, "clip-analysis")) as archive:
        assert "tracks.csv" in archive.namelist()
    sync.expect(tab.locator("#clip-figures img")).to_have_count(3)


def test_a_clip_is_stopped_and_what_is_done_stays(chromium, page):
    tab = opened(chromium, page)
    tab.get_by_role("tab", name="Clip").click()
    sync.expect(tab.get_by_label("Or pick one")).to_have_value("walk.mp4")
    tab.click("#clip-go")
    says(tab, "clip-told", " of 40 frames")
    tab.click("#clip-stop")
    says(tab, "clip-told", "Stopped after")
    assert 1 < len(downloaded(tab, "clip-records").read_text().splitlines()) < 41
    tab.click("#clip-go")  # and the page is ready for the next one
    says(tab, "clip-told", "40 frames, ")
    tab.context.close()


def test_two_users_at_once_wait_for_each_other_and_get_their_own(chromium, page):
    before = set(page.folder.glob("persondet-page-*/*/*/images"))
    one, other = opened(chromium, page), opened(chromium, page)
    one.get_by_role("tab", name="Clip").click()
    one.click("#clip-go")
    says(one, "clip-told", " of 40 frames")
    give(other, "image-source", page.image)
    says(one, "clip-told", "40 frames, ")
    says(other, "image-told", "on: 2")
    sync.expect(one.locator("#image-shown img")).to_have_count(0)
    source = other.locator("#image-shown img").get_attribute("src")
    assert other.request.get(source).status == 200
    assert one.request.get(source).status == 403
    folders = set(page.folder.glob("persondet-page-*/*/*/images")) - before
    one.context.close()
    other.context.close()
    deadline = time.monotonic() + 30
    while any(path.exists() for path in folders) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert folders and not any(path.exists() for path in folders)


def test_a_file_of_the_wrong_kind_is_one_sentence(tab, tmp_path):
    (tmp_path / "page.jpg").write_text("<html>")
    give(tab, "image-source", tmp_path / "page.jpg")
    says(tab, "image-told", "page.jpg: the image cannot be read (it is an HTML page")
    tab.get_by_role("tab", name="Clip").click()
    (tmp_path / "walk.mp4").write_text("#EXTM3U\n/etc/passwd")
    give(tab, "clip-source", tmp_path / "walk.mp4")
    tab.click("#clip-go")
    says(tab, "clip-told", "walk.mp4: it is a text that names other files")
    sync.expect(tab.locator("#clip-go")).to_be_enabled()


def test_a_file_that_is_too_large_is_refused_by_the_page_itself(tab, tmp_path):
    with open(tmp_path / "walk.mp4", "wb") as file:
        file.truncate(2 * 2**30)
    tab.get_by_role("tab", name="Clip").click()
    give(tab, "clip-source", tmp_path / "walk.mp4")
    sync.expect(tab.get_by_text("maximum allowed size")).to_be_visible(timeout=SECONDS)


def test_report_and_curves_are_one_tab_away(tab):
    tab.get_by_role("tab", name="Report").click()
    report = tab.frame_locator("iframe.report")
    sync.expect(report.locator("h1")).to_contain_text("A detector")
    tab.get_by_role("tab", name="Curves").click()
    sync.expect(tab.get_by_alt_text("training curves")).to_be_visible()
