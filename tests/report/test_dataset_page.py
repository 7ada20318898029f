"""The page on a dataset: drawn whole for any names and numbers, and to scale."""

import warnings
from itertools import combinations

import cv2
import numpy as np
import pytest
from detectron2.data.transforms import ResizeShortestEdge
from matplotlib.text import Text

from persondet.data.check import dataset_statistics
from persondet.errors import MediaError
from persondet.report import dataset_page
from persondet.report.dataset_page import reach_in_words, training_scale, write_dataset_page

ANCHORS = {"sizes": [32, 64, 128, 256, 512], "shortest_edge": 736, "longest_edge": 1333}
NASTY = ("$x$", "$\\frac{a}{b", "<script>alert(1)</script>", "=cmd()", "日本語", "a\nb", "p" * 300)


def report_of(classes=3, per_image=2, sizes=((640, 480),), splits=("train", "valid", "test")):
    rng = np.random.default_rng(0)
    names = [*NASTY, *(f"class {i}" for i in range(200))][:classes]
    annotations = [
        {
            "image_id": int(rng.integers(len(sizes))),
            "category_id": int(rng.integers(max(1, classes))),
            "bbox": [0, 0, *np.exp(rng.normal(4, 1, 2)).tolist()],
            "segmentation": [[[1, 2, 3, 4, 5, 6]], [], {"counts": "x"}, "x"][number % 4],
        }
        for number in range(per_image * len(sizes))
    ]
    coco = {
        "images": [{"id": i, "width": w, "height": h} for i, (w, h) in enumerate(sizes)],
        "categories": [{"id": i, "name": name} for i, name in enumerate(names)],
        "annotations": annotations,
    }
    leaks = {s: {"images": 60, "leaked": 3, "share": 0.05, "clip_mates": 2} for s in splits[1:]}
    return {
        "splits": {split: split for split in splits},
        "statistics": dataset_statistics(dict.fromkeys(splits, coco)),
        **{"findings": [], "errors": 0, "warnings": 0, "leaks": leaks},
    }


REPORTS = {
    "109 classes": report_of(109, 8, [(100 + 7 * i, 50 + 3 * i) for i in range(60)]),
    "crowds": report_of(3, 150),
}


def texts_of(figure):
    """Return (text, its place in pixels) of all that is drawn; ticks out of view are not."""
    hidden = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
                if not axes.axison or not low - 1e-9 <= tick.get_loc() <= high + 1e-9:
                    hidden |= {tick.label1, tick.label2}
            if not axes.axison:
                hidden.add(axis.label)
    renderer = figure.canvas.get_renderer()
    texts = set(figure.findobj(Text)) - hidden
    shown = [text for text in texts if text.get_visible() and text.get_text().strip()]
    return [(text.get_text(), text.get_window_extent(renderer)) for text in shown]


@pytest.mark.parametrize("name", ["crowds", pytest.param("109 classes", marks=pytest.mark.slow)])
def test_a_page_is_whole_for_every_dataset(monkeypatch, tmp_path, name):
    figures, page = [], dataset_page._page
    monkeypatch.setattr(dataset_page, "_page", lambda *a: figures.append(page(*a)) or figures[-1])
    with warnings.catch_warnings(action="error"):
        report = {**REPORTS[name], "folder": "d" * 200}
        write_dataset_page(report, tmp_path / "page.png", anchors=ANCHORS)
    image = cv2.imread(str(tmp_path / "page.png"))
    assert image.shape[1] > image.shape[0] > 1000
    assert (image < 250).any(axis=2).mean() > 0.01
    assert (image[:4] == 255).all() and (image[:, -4:] == 255).all()  # nothing runs off the page
    assert [path.name for path in tmp_path.iterdir()] == ["page.png"]
    (figure,) = figures
    for axes in figure.axes:
        units = ("(number)", "(pixels", "(%)")
        assert not axes.axison or any(unit in axes.get_xlabel() for unit in units)
    boxes, paper = texts_of(figure), figure.bbox
    for text, box in boxes:
        assert box.x0 >= 0 and box.x1 <= paper.x1 and box.y0 >= 0 and box.y1 <= paper.y1, text
    for (text, box), (other, place) in combinations(boxes, 2):
        width = min(box.x1, place.x1) - max(box.x0, place.x0)
        height = min(box.y1, place.y1) - max(box.y0, place.y0)
        # The boxes of numbers one above the other touch; their ink does not.
        assert width < 1.5 or height < 4, (text, other)
    title = next(box for text, box in boxes if text.startswith("dddd"))
    assert title.x1 < figure.legends[0].get_window_extent().x0
    shown = {text for text, _ in boxes}
    if name == "109 classes":
        assert "100 more classes" in shown
    if name == "crowds":
        assert {"$x$", "<script>ale…)</script>"} <= shown  # no formula


def test_the_scale_is_that_of_training():
    rng = np.random.default_rng(0)
    for shortest, longest in ((736, 1333), (96, 192), (800, 800)):
        size = rng.integers(20, 3000, (100, 2))
        scale = training_scale(size[:, 0], size[:, 1], shortest, longest)
        for (width, height), factor in zip(size.tolist(), scale, strict=True):
            expected = ResizeShortestEdge.get_output_shape(height, width, shortest, longest)
            assert np.abs(np.array(expected) - np.array([height, width]) * factor).max() <= 0.51
    assert training_scale(np.array([5.0]), np.array([7.0]), 0, 1333) == [1.0]
    assert training_scale(np.array([50.0]), np.array([500.0]), 100, 0) == [2.0]


def test_boxes_that_the_anchors_do_not_reach_are_said_in_words(tmp_path):
    sides = np.array([10.0] * 5 + [50.0] * 90 + [800.0] * 5)
    small, large = "5.0 % too small, under 23 px", "5.0 % too large, over 724 px"
    assert reach_in_words(sides, [32, 512]) == f"{small}; {large}"
    assert reach_in_words(sides, [8, 1024]) == "every box is within their reach"
    with pytest.raises(MediaError, match="choose one of them"):  # no such format
        write_dataset_page(REPORTS["crowds"], tmp_path / "page.txt")
    assert list(tmp_path.iterdir()) == []
