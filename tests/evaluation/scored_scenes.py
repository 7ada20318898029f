"""Ground truth and predictions made of rectangles: their boxes, and masks that fill them."""

Rectangle = tuple[int, int, int, int]  # x, y, width, height


def person(box, category=1, *, crowd=0):
    """An annotated rectangle."""
    return {
        "category_id": category,
        "bbox": list(box),
        "area": box[2] * box[3],
        "iscrowd": crowd,
        "segmentation": _outline(box),
    }


def found(box, score, category=1, *, mask=None):
    """A predicted rectangle; `mask`: another one is its mask."""
    return {
        "category_id": category,
        "bbox": list(box),
        "score": score,
        "segmentation": _outline(mask or box),
    }


def scene(truth, predictions, *, classes=("person",), size=(200, 100)):
    """A COCO dict and COCO results, one image of `size` (width, height) per list of `truth`."""
    coco = {
        "info": {},
        "images": [
            {"id": 10 + n, "file_name": f"{n}.jpg", "width": size[0], "height": size[1]}
            for n in range(len(truth))
        ],
        "categories": [{"id": n, "name": name} for n, name in enumerate(classes, start=1)],
        "annotations": [],
    }
    for number, people in enumerate(truth):
        for one in people:
            entry = {**one, "image_id": 10 + number, "id": len(coco["annotations"]) + 1}
            coco["annotations"].append(entry)
    results = [
        {**one, "image_id": 10 + number} for number, row in enumerate(predictions) for one in row
    ]
    return coco, results


def _outline(box):
    x, y, w, h = box
    return [[x, y, x + w, y, x + w, y + h, x, y + h]]
