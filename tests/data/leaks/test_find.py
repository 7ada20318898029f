from dataclasses import replace

import numpy as np
import pytest

from persondet.data.findings import Findings
from persondet.data.leaks.find import (
    NEAR_IDENTICAL,
    SAME_CLIP,
    SAME_FILE,
    SAME_SOURCE,
    ExportImage,
    Share,
    clip_name,
    find_leaks,
    source_name,
)
from persondet.data.leaks.hashing import image_signature
from tests.data.leaks.scenes import COPIES, grey, scene


def named(leaks, code):
    return [(k.split, k.file_name, k.partner_split, k.partner) for k in leaks.kinds[code]]


def seen(split, name, pixels, digest=b""):
    return ExportImage(split, name, digest, *image_signature(grey(pixels)))


def test_each_kind_by_itself():
    image = scene(np.random.default_rng(0))
    other = scene(np.random.default_rng(1))
    leaks = find_leaks(
        [
            ExportImage("train", "a.jpg", b"1"),
            ExportImage("test", "b.jpg", b"1"),
            ExportImage("train", "s_jpg.rf.1.jpg"),
            ExportImage("valid", "s_jpg.rf.2.jpg"),
            seen("valid", "n.jpg", image),
            seen("test", "m.jpg", COPIES["mirrored"](image)),
            seen("test", "o.jpg", other),
            ExportImage("train", "w_mp4-1.jpg"),
            ExportImage("test", "w_mp4-2.jpg"),
            ExportImage("test", "w_mp4-3.jpg"),
        ]
    )
    assert named(leaks, SAME_FILE) == [("test", "b.jpg", "train", "a.jpg")]
    assert named(leaks, SAME_SOURCE) == [("valid", "s_jpg.rf.2.jpg", "train", "s_jpg.rf.1.jpg")]
    assert named(leaks, NEAR_IDENTICAL) == [("test", "m.jpg", "valid", "n.jpg")]
    assert [leak[1] for leak in named(leaks, SAME_CLIP)] == ["w_mp4-2.jpg", "w_mp4-3.jpg"]
    assert leaks.shares == {"valid": Share(2, 1, 0), "test": Share(5, 2, 2)}
    assert leaks.to_drop == {"train": ["a.jpg", "s_jpg.rf.1.jpg"], "valid": ["n.jpg"]}
    assert leaks.as_json()["test"] == {
        **{"images": 5, "leaked": 2, "share": 0.4, "clip_mates": 2},
        "with": {"train": 1, "valid": 1},
    }
    findings = Findings()
    leaks.add_to(findings)
    assert findings.counts() == {SAME_FILE: 1, SAME_SOURCE: 1, NEAR_IDENTICAL: 1, SAME_CLIP: 2}
    (example,) = next(iter(findings)).examples
    assert (example.split, example.file, example.detail) == ("test", "b.jpg", "in train: a.jpg")


def test_the_strongest_kind_wins_and_an_image_counts_once():
    image, name = scene(np.random.default_rng(0)), "w_mp4-{}_jpg.rf.{}.jpg"
    images = [
        seen("train", name.format(1, "a"), image, b"1"),
        seen("train", name.format(1, "b"), image, b"2"),
        seen("test", name.format(1, "c"), image, b"1"),
    ]
    weaker = {
        SAME_FILE: lambda i, p: replace(p, digest=b""),
        SAME_SOURCE: lambda i, p: replace(p, file_name=f"w_mp4-{i}.jpg"),
        NEAR_IDENTICAL: lambda i, p: ExportImage(p.split, p.file_name),
        SAME_CLIP: lambda i, p: p,
    }
    for strongest, weaken in weaker.items():
        leaks = find_leaks(images)
        assert {code: len(found) for code, found in leaks.kinds.items() if found} == {strongest: 1}
        images = [weaken(i, p) for i, p in enumerate(images)]


def test_every_version_is_dropped_wherever_the_other_lies():
    images = [ExportImage(s, f"{s}{i}.jpg", b"1") for s in ("train", "valid") for i in range(3)]
    assert find_leaks(images).to_drop == {"train": ["train0.jpg", "train1.jpg", "train2.jpg"]}
    leaks = find_leaks([*images, ExportImage("test", "t.jpg", b"1")])
    assert leaks.to_drop["valid"] == ["valid0.jpg", "valid1.jpg", "valid2.jpg"]
    assert named(leaks, SAME_FILE)[0] == ("test", "t.jpg", "train", "train0.jpg")


def test_what_is_no_leak():
    one_split = [ExportImage("train", f"a_jpg.rf.{i}.jpg", b"1") for i in range(2)]
    leaks = find_leaks(one_split)
    assert not any(leaks.kinds.values()) and not leaks.shares and not leaks.to_drop
    unknown = {"train": "a.jpg", "test": "a.jpg", "valid": ""}
    leaks = find_leaks([ExportImage(*one) for one in unknown.items()])
    assert not any(leaks.kinds.values())
    assert leaks.shares == {"valid": Share(1, 0, 0), "test": Share(1, 0, 0)}
    assert find_leaks([]).as_json() == {}
    with pytest.raises(ValueError, match="train, valid, test"):
        find_leaks([ExportImage("val", "a.jpg")])


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("street_0001_jpg.rf.0f3a9c.jpg", "street_0001_jpg"),
        ("1_png.rf.7f8786dc_rotated_90_fliped_h.jpg", "1_png"),
        ("a_jpg.rf.11_jpg.rf.22.jpg", "a_jpg"),  # exported, uploaded, exported again
        ("day 1/ä b_jpg.rf.11.jpg", "day 1/ä b_jpg"),
        ("a.jpg", ""),
        ("", ""),
    ],
)
def test_source_name(name, source):
    assert source_name(name) == source


@pytest.mark.parametrize(
    ("name", "clip"),
    [
        ("DJI_0839_5meter_305_MP4-0002_jpg.rf.60cf0d.jpg", "DJI_0839_5meter_305_MP4"),
        ("out_mp4-3_jpg.rf.2ffaf2.jpg", "out_mp4"),
        ("walk.avi-frame-00012.png", "walk.avi"),
        ("1_1_2_15_frame383_png.rf.7f47c1.jpg", "1_1_2_15"),
        ("clip-0001_png.rf.11.jpg", "clip"),
        ("street_video_2_00017.jpg", "street_video_2"),
        # No frames of a clip that could be named:
        ("IMG_0001.jpg", ""),
        ("frame_0001.jpg", ""),
        ("window_frame_12.jpg", ""),
        ("street_0001_jpg.rf.0f3a.jpg", ""),
        ("WhatsApp-Image-2025-05-25-at-1_06_34-PM-2-_jpeg.rf.83.jpg", ""),
        ("walk_mp4_jpg.rf.1.jpg", ""),  # a clip's one image, without a number
        ("", ""),
    ],
)
def test_clip_name(name, clip):
    assert clip_name(name) == clip
