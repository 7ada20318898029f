"""What the page shows, and what its controls do.

Each browser tab has a place of its own: a folder below its visitor's, what the model detects in its
image, and a switch that stops its clip. A `Guard` has told the visitors apart.
"""

from __future__ import annotations

import hashlib
import html
import logging
import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import gradio as gr

from persondet.data.image_file import IMAGE_SUFFIXES
from persondet.errors import PersondetError
from persondet.page.guard import VISITOR_HEADER
from persondet.page.trials import LOWEST, ClipResult, ImageResult, Trial, TriedImage
from persondet.report.build import HTML
from persondet.text import printable

logger = logging.getLogger(__name__)

# One event after the other for the model; all others are quick.
_MODEL: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 1}
_QUICK: dict[str, Any] = {"concurrency_limit": None, "show_progress": "hidden"}
_TABS_KEPT = 100
_RESULTS_KEPT = 2  # of one kind: what is shown, and what a browser may still be loading
_COLUMNS = ["class", "score", "left", "top", "right", "bottom"]
_CSS = """
.gradio-container { width: 100% !important; max-width: 1400px !important; margin: 0 auto; }
.page-title h1 { font-size: 1.5rem; margin: 0; }
.page-title p { margin: .25rem 0 0; overflow-wrap: anywhere; }
.told p { margin: .25rem 0; overflow-wrap: anywhere; }
.told .wrong { border-left: 4px solid #d33; padding: .5rem .75rem; background: #d331; }
.told progress { appearance: none; border: 0; border-radius: 4px; width: 100%; height: .8rem; }
.told progress, .told progress::-webkit-progress-bar {
  background: var(--border-color-primary); border-radius: 4px;
}
.told progress::-webkit-progress-value { background: var(--color-accent); border-radius: 4px; }
.told progress::-moz-progress-bar { background: var(--color-accent); border-radius: 4px; }
.threshold input[type=range] {
  height: 1.25rem; padding: 0;
  background: linear-gradient(to right, transparent calc(var(--own) - 1.5px), #d33 0,
    #d33 calc(var(--own) + 1.5px), transparent 0) 8px 0 / calc(100% - 16px) 100% no-repeat;
}
.threshold input[type=range]::-webkit-slider-runnable-track { opacity: .8; }
.gallery-of-files {
  display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 400px), 1fr));
}
.gallery-of-files img { width: 100%; background: #fff; }
iframe.report {
  width: 100%; height: 80vh; border: 1px solid var(--border-color-primary); background: #fff;
}
"""


@dataclass
class _Tab:
    """One browser tab: its folder, the image that it tries, what stops its clip."""

    folder: Path
    tried: TriedImage | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    made: int = 0

    def fresh(self, kind: str) -> Path:
        """Return a new folder for results of a kind; all but the latest of that kind go."""
        self.made += 1
        parent = self.folder / kind
        parent.mkdir(parents=True, exist_ok=True)
        for old in sorted(parent.iterdir(), key=lambda path: int(path.name))[: 1 - _RESULTS_KEPT]:
            shutil.rmtree(old, ignore_errors=True)
        (parent / str(self.made)).mkdir()
        return parent / str(self.made)


class Page:
    """The page of a model.

    Args:
        trial: the model.
        root: the folder of all files.
        clips: to pick from, by name.
        curves: images of the run's curves, in `root`; its report lies there too.
        missing: why there are none.
    """

    def __init__(
        self,
        trial: Trial,
        root: Path,
        *,
        clips: Mapping[str, Path],
        curves: Sequence[Path],
        missing: str,
    ) -> None:
        self._trial, self._root, self._clips = trial, root, dict(clips)
        self._curves, self._missing = curves, missing
        self._tabs: OrderedDict[tuple[str, str], _Tab] = OrderedDict()
        self._lock = threading.Lock()

    def stop_all(self) -> None:
        """Stop every clip."""
        for tab in self._tabs.values():
            tab.stop.set()

    def look(self) -> dict[str, Any]:
        """Return theme and style sheet, as `mount_gradio_app` takes them; no font is fetched."""
        own = 100 * (self._own - LOWEST) / (1 - LOWEST)
        css = f"{_CSS}:root {{ --own: {own:.2f}%; }}"
        return {"theme": gr.themes.Default(primary_hue="blue", neutral_hue="slate"), "css": css}

    def build(self) -> gr.Blocks:
        """Return the page."""
        predictor = self._trial.predictor
        classes = ", ".join(printable(name, 40) for name in predictor.metadata.thing_classes[:5])
        facts = f"{predictor.model_file} detects: {classes}; its threshold is "
        with gr.Blocks(title="Try a model", analytics_enabled=False) as page:
            gr.HTML(
                f"<h1>Try a model</h1><p>{_escaped(facts)}{predictor.confidence_threshold:.2f}</p>",
                elem_classes="page-title",
            )
            with gr.Tab("Image"):
                self._build_image()
            with gr.Tab("Clip"):
                self._build_clip()
            with gr.Tab("Report"):
                if self._missing:
                    gr.HTML(_wrong(self._missing), elem_classes="told")
                else:
                    link = (
                        f'<p><a href="{HTML}" target="_blank">Open it in a tab of its own</a></p>'
                    )
                    frame = (
                        f'<iframe class="report" src="{HTML}" title="The run\'s report"></iframe>'
                    )
                    gr.HTML(link + frame)
            if self._curves:
                with gr.Tab("Curves"):
                    gr.HTML(_gallery(self._curves))
            page.queue(max_size=50, api_open=False)
            page.unload(self._close)
        return page

    @property
    def _own(self) -> float:
        return min(max(self._trial.predictor.confidence_threshold, LOWEST), 1.0)

    def _threshold(self) -> gr.Slider:
        """Return a slider of the threshold; the style sheet marks the model's own on it."""
        own = f"The mark is the model's own, {self._own:.2f}"
        return gr.Slider(
            *(LOWEST, 1, self._own),
            step=0.01,
            label="Threshold of the score",
            info=own,
            elem_classes="threshold",
        )

    def _build_image(self) -> None:
        with gr.Row():
            with gr.Column(scale=2, min_width=280):
                source = gr.File(
                    label="An image: drag it here",
                    file_types=sorted(IMAGE_SUFFIXES),
                    height=150,
                    elem_id="image-source",
                )
                threshold = self._threshold()
                masks = gr.Checkbox(True, label="Masks")
            with gr.Column(scale=5, min_width=280):
                told = gr.HTML(
                    "<p>Drag an image in.</p>", elem_classes="told", elem_id="image-told"
                )
                shown = gr.Image(
                    show_label=False,
                    interactive=False,
                    buttons=["fullscreen"],
                    visible=False,
                    elem_id="image-shown",
                )
                with gr.Row():
                    image = _download("Download the image", "image-file")
                    records = _download("Download the records", "image-records")
                table = gr.Dataframe(
                    headers=_COLUMNS,
                    label="Detections",
                    interactive=False,
                    visible=False,
                    elem_id="image-table",
                )
        outputs = [told, shown, image, records, table]
        given = [threshold, masks]
        on: dict[str, Any] = {"outputs": outputs, "api_visibility": "private"}
        source.upload(self._detect, [source, *given], show_progress_on=told, **on, **_MODEL)
        source.clear(self._forget, None, **on, **_QUICK)
        for control in given:
            control.change(self._redraw, given, trigger_mode="always_last", **on, **_QUICK)

    def _detect(
        self, source: str | None, threshold: float, masks: bool, request: gr.Request
    ) -> list[Any]:
        tab = self._tab(request)
        try:
            tab.tried = self._trial.detect(Path(source or ""))
        except PersondetError as error:
            tab.tried = None
            return [_wrong(_without_folders(error, source)), *_hidden(4)]
        return self._redraw(threshold, masks, request)

    def _redraw(self, threshold: float, masks: bool, request: gr.Request) -> list[Any]:
        tab = self._tab(request)
        tried = tab.tried
        if tried is None:
            return [gr.skip()] * 5
        try:
            folder = tab.fresh("images")
            result = self._trial.draw(tried, folder, threshold=threshold, masks=masks)
        except PersondetError as error:
            return [_wrong(_without_folders(error, tried.source)), *_hidden(4)]
        return _shown_image(result, threshold, len(tried.instances))

    def _forget(self, request: gr.Request) -> list[Any]:
        self._tab(request).tried = None
        return ["<p>Drag an image in.</p>", *_hidden(4)]

    def _build_clip(self) -> None:
        with gr.Row():
            with gr.Column(scale=2, min_width=280):
                source = gr.File(
                    label="A clip: drag it here",
                    file_types=["video"],
                    height=150,
                    elem_id="clip-source",
                )
                names = list(self._clips)
                picked = gr.Dropdown(
                    names,
                    value=names[0] if names else None,
                    label="Or pick one",
                    visible=bool(names),
                    elem_id="clip-picked",
                )
                with gr.Row():
                    start = gr.Number(0, label="Start (seconds)", minimum=0, min_width=100)
                    end = gr.Number(None, label="End (empty: its end)", minimum=0, min_width=100)
                threshold = self._threshold()
                masks = gr.Checkbox(True, label="Masks")
                with gr.Row():
                    go = gr.Button("Annotate", variant="primary", min_width=100, elem_id="clip-go")
                    stop = gr.Button(
                        "Stop",
                        variant="stop",
                        interactive=False,
                        min_width=100,
                        elem_id="clip-stop",
                    )
            with gr.Column(scale=5, min_width=280):
                hint = "<p>Drag a clip in, or pick one.</p>"
                told = gr.HTML(hint, elem_classes="told", elem_id="clip-told")
                shown = gr.Video(
                    show_label=False,
                    interactive=False,
                    buttons=[],
                    visible=False,
                    elem_id="clip-shown",
                )
                with gr.Row():
                    clip = _download("Download the clip", "clip-file")
                    records = _download("Download the records", "clip-records")
                    analysis = _download("Download the analysis", "clip-analysis")
                figures = gr.HTML(visible=False, elem_id="clip-figures")
        outputs = [go, stop, told, shown, clip, records, analysis, figures]
        given = [source, picked, start, end, threshold, masks]
        hidden: dict[str, Any] = {"api_visibility": "private"}
        begun = go.click(self._begin, None, outputs, **hidden, **_QUICK)
        begun.then(self._annotate, given, outputs, show_progress="hidden", **hidden, **_MODEL)
        stop.click(self._stop, None, [stop], **hidden, **_QUICK)

    def _begin(self, request: gr.Request) -> list[Any]:
        self._tab(request).stop = threading.Event()
        wait = "<p>Waiting for the model …</p><progress></progress>"
        return [*_switches(working=True), wait, *_hidden(5)]

    def _stop(self, request: gr.Request) -> Any:
        self._tab(request).stop.set()
        return gr.update(value="Stopping …", interactive=False)

    def _annotate(
        self,
        source: str | None,
        picked: str | None,
        start: float | None,
        end: float | None,
        threshold: float,
        masks: bool,
        request: gr.Request,
    ) -> Iterator[list[Any]]:
        tab, began = self._tab(request), time.monotonic()
        clip = Path(source) if source else self._clips.get(picked or "")
        stay = [gr.skip(), gr.skip()]
        try:
            if clip is None:
                raise PersondetError("There is no clip yet; drag one in, or pick one.")
            steps = self._trial.annotate(
                clip,
                tab.fresh("clips"),
                threshold=threshold,
                masks=masks,
                start=start or None,
                end=end or None,  # an empty field is 0 until somebody has been in it
                stop=tab.stop,
            )
            for step in steps:
                if isinstance(step, ClipResult):
                    yield [*_switches(working=False), *_shown_clip(step)]
                else:
                    yield [*stay, _progress(*step, time.monotonic() - began), *[gr.skip()] * 5]
        except PersondetError as error:
            text = _wrong(_without_folders(error, clip))
            yield [*_switches(working=False), text, *_hidden(5)]
        except Exception:
            logger.exception("%s", clip)
            text = _wrong("Something unforeseen went wrong; the terminal of the page says more.")
            yield [*_switches(working=False), text, *_hidden(5)]
        finally:
            tab.stop.set()

    def _tab(self, request: gr.Request) -> _Tab:
        """Return the tab that a request comes from."""
        visitor, session = request.headers[VISITOR_HEADER], str(request.session_hash)
        name = hashlib.sha256(session.encode()).hexdigest()[:16]
        with self._lock:
            folder = self._root / visitor / name
            tab = self._tabs.setdefault((visitor, name), _Tab(folder))
            self._tabs.move_to_end((visitor, name))
            while len(self._tabs) > _TABS_KEPT:
                self._remove(self._tabs.popitem(last=False)[1])
        return tab

    def _close(self, request: gr.Request) -> None:
        """Stop and remove what a closed tab had."""
        with self._lock:
            visitor, session = request.headers[VISITOR_HEADER], str(request.session_hash)
            name = hashlib.sha256(session.encode()).hexdigest()[:16]
            if tab := self._tabs.pop((visitor, name), None):
                self._remove(tab)

    def _remove(self, tab: _Tab) -> None:
        tab.stop.set()
        shutil.rmtree(tab.folder, ignore_errors=True)


def _download(label: str, name: str) -> gr.DownloadButton:
    return gr.DownloadButton(label, visible=False, size="sm", min_width=140, elem_id=name)


def _hidden(count: int) -> list[Any]:
    return [gr.update(value=None, visible=False)] * count


def _file(path: Path | None) -> Any:
    return gr.update(value=None if path is None else str(path), visible=path is not None)


def _switches(*, working: bool) -> list[Any]:
    """Return the states of the two buttons."""
    return [gr.update(interactive=not working), gr.update(value="Stop", interactive=working)]


def _shown_image(result: ImageResult, threshold: float, possible: int) -> list[Any]:
    rows = [
        [person["class"], person["score"], *(round(value, 1) for value in person["box"])]
        for person in result.people
    ]
    told = f"<p>Detections from {threshold:.2f} on: <b>{len(rows)}</b> "
    told += f"(from {LOWEST} on: {possible}).</p>"
    table = gr.update(value=rows, visible=bool(rows))
    return [told, *map(_file, (result.image, result.image, result.records)), table]


def _shown_clip(result: ClipResult) -> list[Any]:
    told = "".join(f"<p>{_escaped(sentence)}</p>" for sentence in result.sentences)
    files = (result.clip, result.clip, result.records, result.analysis)
    figures = gr.update(value=_gallery(result.figures), visible=bool(result.figures))
    return [told, *map(_file, files), figures]


def _progress(done: int, total: int | None, seconds: float) -> str:
    """Return a bar, and how far the work is."""
    if not done:
        return "<p>Beginning …</p><progress></progress>"
    speed = done / max(seconds, 1e-9)
    told = f"{done:,} frames, {speed:.1f} per second"
    if total:
        told = f"{done:,} of {total:,} frames, {speed:.1f} per second, "
        told += f"{max(0, total - done) / speed:.0f} seconds left"
    limits = f'value="{done}" max="{max(total, done)}"' if total else ""
    return f"<p>{told}</p><progress {limits}></progress>"


def _escaped(text: str) -> str:
    return html.escape(printable(text, 1500))


def _gallery(images: Sequence[Path]) -> str:
    """Return images side by side; each opens in a tab of its own."""
    shown = []
    for path in images:
        address = html.escape(f"gradio_api/file={quote(str(path))}")
        image = f'<img src="{address}" alt="{path.stem.replace("_", " ")}" loading="lazy">'
        shown.append(f'<a href="{address}" target="_blank">{image}</a>')
    return f'<div class="gallery-of-files">{"".join(shown)}</div>'


def _wrong(text: str) -> str:
    return f'<p class="wrong" role="alert">{_escaped(text)}</p>'


def _without_folders(error: PersondetError, source: str | Path | None) -> str:
    """Return what an error says; the temporary folder of an upload tells nobody anything."""
    text = str(error)
    return text.replace(f"{Path(source).parent}/", "") if source else text
