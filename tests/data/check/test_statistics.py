"""Numbers about an export: known answers, and none that a fault of the json can spoil."""

import math

from persondet.data.check import dataset_statistics


def coco(images, annotations, categories=((1, "person"),)):
    return {
        "images": [
            {"id": number, "file_name": f"{number}.jpg", "width": width, "height": height}
            for number, (width, height) in enumerate(images)
        ],
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for number, name in categories],
    }


def annotation(image, box, category=1, **more):
    return {"id": 1, "image_id": image, "category_id": category, "bbox": box, **more}


def test_known_numbers():
    train = coco(
        [(100, 50), (100, 50), (200, 100)],
        [
            annotation(0, [0, 0, 16, 16], segmentation=[[0, 0, 1, 0, 1, 1]]),
            annotation(0, [0, 0, 32, 32.0], segmentation=[]),
            annotation(2, [0, 0, 96, 96], segmentation={"size": [1, 1], "counts": "x"}),
            annotation(2, [0, 0, 100, 25], 7, segmentation="x"),
        ],
        [(0, "people"), (1, "person")],
    )
    valid = coco([(100, 50)], [annotation(0, [1, 1, 8, 32])], [(5, "person"), (1, "dog")])
    found = dataset_statistics({"train": train, "valid": valid})
    outline = {"images": 3, "annotations": 4, "without_annotations": 1, "sources": 3}
    per_image = {"mean": 1.333, "max": 2, "histogram": [[0, 1], [2, 2]]}
    assert found["splits"]["train"] == outline | {"per_image": per_image}
    assert found["splits"]["valid"]["per_image"] == {"mean": 1.0, "max": 1, "histogram": [[1, 1]]}
    assert found["classes"] == [
        {"name": "person", "boxes": {"train": 3, "valid": 0}},
        {"name": "dog", "boxes": {"train": 0, "valid": 1}},
        {"name": "people", "boxes": {"train": 0, "valid": 0}},
    ]
    assert found["unknown_class"] == 1
    sizes = found["box_sizes"]
    assert sizes["boxes"] == 5
    assert (sizes["small"], sizes["medium"], sizes["large"]) == (0.4, 0.4, 0.2)
    assert sizes["quantile_levels"][3] == 0.5
    assert [sizes["side"][i] for i in (0, 3, -1)] == [16, 32, 96]
    assert [sizes["height"][i] for i in (0, 3, -1)] == [16, 32, 96]
    assert sizes["relative_height"][-1] == 0.96
    assert math.isclose(sizes["relative_side"][-1], 96 / math.sqrt(20000), abs_tol=1e-4)
    assert (sizes["aspect"][0], sizes["aspect"][-1]) == (0.25, 4.0)
    assert found["box_sample"] == {
        "side": [16.0, 16.0, 32.0, 50.0, 96.0],
        "width": [100, 100, 100, 200, 200],
        "height": [50, 50, 50, 100, 100],
    }
    assert found["masks"] == {"polygon": 1, "rle": 1, "empty": 2, "other": 1}
    assert found["image_sizes"] == [
        {"width": 100, "height": 50, "images": 3},
        {"width": 200, "height": 100, "images": 1},
    ]
    assert (found["image_sizes_total"], found["image_sizes_unknown"]) == (2, 0)


def test_what_is_no_number_is_left_out_of_what_needs_it():
    whole = [annotation(0, [0, 0, 10, 10]) for _ in range(3)]
    faults = [
        *("x", None, [1, 2, 3], [0, 0, "1", 2], [0, 0, True, 2], {"a": 1}, [[0], 0, 1, 1], 7),
        *([0, 0, math.nan, 1], [0, 0, math.inf, 1], [0, 0, 10**400, 1], [0, 0, -1, 5]),
        *([0, 0, 0, 5], [0, 0, 2**60, 1]),
    ]
    broken = [annotation(0, fault) for fault in faults]
    strange = [[], {}, None, 5, "x", math.nan, [1]]
    broken += [annotation(fault, None) for fault in strange]
    broken += [annotation(0, None, fault) for fault in strange]
    sizes = [(20, 20), *((size, 20) for size in (0, -1, "640", None, 10**30, math.inf, [], True))]
    found = dataset_statistics({"test": coco(sizes, [*whole, *broken])})
    split = found["splits"]["test"]
    assert split["annotations"] == 3 + len(broken)
    assert found["box_sizes"]["side"] == [10.0] * 7
    assert (found["box_sizes"]["boxes"], found["image_sizes_unknown"]) == (3, len(sizes) - 1)
    assert found["unknown_class"] == len(strange)
    assert dataset_statistics({"train": coco([], [])})["box_sizes"]["side"] is None
