"""Drawing detections: Detectron2's call, pixels where they belong and nowhere else."""

import numpy as np
import torch
from detectron2.data.catalog import Metadata
from detectron2.layers import paste_masks_in_image
from detectron2.structures import Boxes, Instances, ROIMasks
from detectron2.utils.visualizer import ColorMode

from persondet.inference.masks import paste_regions
from persondet.visualization import drawing
from persondet.visualization.labels import plate_size
from persondet.visualization.visualizer import ColorAssigner, PersonVideoVisualizer, font_size

METADATA = Metadata(name="drawn", thing_classes=["person"])
HEIGHT, WIDTH = 180, 320
BOX = (100, 60, 140, 150)


def instances(boxes=(BOX,), *, masks=True):
    found = Instances((HEIGHT, WIDTH), pred_boxes=Boxes(torch.tensor(boxes, dtype=torch.float32)))
    found.scores = torch.linspace(0.97, 0.6, len(boxes))
    found.pred_classes = torch.zeros(len(boxes), dtype=torch.int64)
    if masks:
        found.pred_masks = torch.zeros((len(boxes), HEIGHT, WIDTH), dtype=torch.bool)
        for mask, (x0, y0, x1, y1) in zip(found.pred_masks, boxes, strict=True):
            mask[y0 + 10 : y1 - 10, x0 + 5 : x1 - 5] = True
    return found


FRAME = np.random.default_rng(0).integers(90, 110, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def draw(found, *mode, **choices):
    visualizer = PersonVideoVisualizer(METADATA, *mode, **choices)
    return visualizer.draw_instance_predictions(FRAME, found).get_image()


def test_pixels_outside_of_box_mask_label_and_count_stay_as_they_are():
    before = FRAME.copy()
    image = draw(instances())
    assert np.array_equal(FRAME, before)
    assert np.array_equal(image[62:67, 102:138], FRAME[62:67, 102:138])  # beside the mask
    changed = (image != FRAME).any(axis=2)
    size = font_size(FRAME)
    allowed = np.zeros((HEIGHT, WIDTH), dtype=bool)
    x0, y0, x1, y1 = BOX
    allowed[y0:y1, x0:x1] = True
    width, height = plate_size("person 97%", size)
    allowed[y0 - height : y0, x0 : x0 + width] = True
    width, height = plate_size("1 person in view", size * 5 // 4)
    margin = size * 5 // 4 // 2
    allowed[margin : margin + height, margin : margin + width] = True
    assert changed[allowed].any() and not changed[~allowed].any()
    in_place = np.ascontiguousarray(FRAME[:, :, ::-1])
    PersonVideoVisualizer(METADATA).draw_on(in_place, instances())
    assert np.array_equal(in_place[:, :, ::-1], image)


LABELS = np.zeros(2, int)


def test_people_keep_their_colours_whatever_their_order():
    colors, walkers = ColorAssigner(), np.array([[10, 50, 40, 120], [300, 20, 330, 90.0]])
    people, first = colors.assign(walkers, LABELS)
    for _ in range(30):  # towards each other, and past
        walkers += [[4, 0, 4, 0], [-7, 0, -7, 0]]
        keys, now = colors.assign(walkers[::-1], LABELS)
        assert (keys[::-1], now[::-1], len(set(now))) == (people, first, 2)
    assert not set(colors.assign(walkers, LABELS + 1)[0]) & set(people)  # of another class


def test_tracks_keep_their_colour_for_good_and_fill_no_memory(monkeypatch):
    names = list("abcdefghijk"[: len(drawing.PALETTE)])
    boxes = np.array([[40 * n, 0, 40 * n + 30, 60.0] for n in range(len(names))])
    colors, labels = ColorAssigner(), np.zeros(len(names), int)
    first = colors.assign(boxes, labels, names)[1]
    assert sorted(first) == list(range(len(names)))  # all different
    for _ in range(100):
        colors.assign(boxes[:2], LABELS, ["b", "x"])
    assert colors.assign(boxes, labels, names[::-1])[1] == first[::-1]
    monkeypatch.setattr("persondet.visualization.visualizer.MOST_PEOPLE", 50)
    for number in range(100):
        colors.assign(boxes[:2], LABELS, [number, -1])
    assert len(colors._seen) == 50


def test_given_colours_are_used_and_grey_mode_leaves_colour_on_people_only():
    found = instances()
    found.COLOR = [(1.0, 0.0, 0.5)]
    image = draw(found, ColorMode.IMAGE_BW, labels=False, count=False)
    assert image[60, 120].tolist() == [255, 0, 128]  # the box's upper edge
    assert np.ptp(image[5, 5]) == 0 < np.ptp(image[100, 120])


def raw(boxes=(BOX,)):
    """Return the instances as the model hands them out, with small masks."""
    found = instances(boxes, masks=False)
    yy, xx = np.mgrid[0:28, 0:28]
    blob = np.exp(-(((xx - 13.5) / 9) ** 2 + ((yy - 13.5) / 12) ** 2)).astype(np.float32)
    found.roi_masks = ROIMasks(torch.from_numpy(blob).repeat(len(boxes), 1, 1))
    return found


def test_masks_are_the_same_image_in_whichever_field_they_come():
    boxes = [BOX, (3, 2, 60, 178), (130, 70, 170, 180)]
    small, whole = raw(boxes), raw(boxes)
    masks = whole.roi_masks.tensor
    whole.pred_masks = paste_masks_in_image(masks, whole.pred_boxes, whole.image_size)
    whole.remove("roi_masks")
    drawn = draw(small)
    assert np.array_equal(draw(paste_regions(small)), drawn)
    assert np.array_equal(draw(whole), drawn)
    assert not np.array_equal(draw(small, masks=False), drawn)
    # A box that is no number is passed over with its mask.
    found = raw([BOX, (0, 0, 50, 50)])
    found.pred_boxes.tensor[1, 2] = float("inf")
    assert np.array_equal(draw(found), draw(raw()))


def test_a_clip_of_people_who_tremble_shows_steady_labels_and_colours():
    """What is drawn away from boxes and masks, the labels, is the same in every frame."""
    rng = np.random.default_rng(0)
    boxes = np.array([[40, 60, 70, 150], [65, 62, 95, 155], [200, 80, 240, 170.0]])
    visualizer = PersonVideoVisualizer(METADATA, masks=False, count=False)
    away = np.ones((HEIGHT, WIDTH), bool)
    for x0, y0, x1, y1 in boxes.astype(int):
        away[y0 - 3 : y1 + 3, x0 - 3 : x1 + 3] = False
    seen = set()
    for _ in range(20):
        found = instances(boxes + rng.uniform(-0.4, 0.4, boxes.shape), masks=False)
        found.scores = torch.tensor([0.95, 0.9, 0.8]) + torch.rand(3) * 0.02
        shuffled = torch.from_numpy(rng.permutation(3))
        image = visualizer.draw_instance_predictions(FRAME, found[shuffled]).get_image()
        seen.add((image * away[:, :, None]).tobytes())
    assert len(seen) == 1
