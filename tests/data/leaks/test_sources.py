from __future__ import annotations

import pytest

from persondet.data.leaks.sources import clip_name, source_name


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("street_0001_jpg.rf.0f3a9c.jpg", "street_0001_jpg"),
        ("1_png.rf.7f8786dc_rotated_90_fliped_h.jpg", "1_png"),
        ("a_jpg.rf.11_jpg.rf.22.jpg", "a_jpg"),  # exported, uploaded, exported again
        ("day 1/ä b_jpg.rf.11.jpg", "day 1/ä b_jpg"),
        ("a.jpg", ""),
        ("a.rfx.jpg", ""),
        (".rf.0f3a.jpg", ""),
        ("day/.rf.0f3a.jpg", ""),
        ("", ""),
    ],
)
def test_source_name(name: str, source: str):
    assert source_name(name) == source


@pytest.mark.parametrize(
    ("name", "clip"),
    [
        ("DJI_0839_5meter_305_MP4-0002_jpg.rf.60cf0d.jpg", "DJI_0839_5meter_305_MP4"),
        ("out_mp4-3_jpg.rf.2ffaf2.jpg", "out_mp4"),
        ("IMG_8496_MOV-4_jpg.rf.0f25b6.jpg", "IMG_8496_MOV"),
        ("walk.mp4_12.png", "walk.mp4"),
        ("walk.avi-frame-00012.png", "walk.avi"),
        ("clip_frame_000123.jpg", "clip"),
        ("1_1_2_15_frame383_png.rf.7f47c1.jpg", "1_1_2_15"),
        ("walk (2)_frame7.jpg", "walk (2)"),
        ("clip-0001_png.rf.11.jpg", "clip"),
        ("video3-0012.png", "video3"),
        ("street_video_2_00017.jpg", "street_video_2"),
        ("cam1/walk_mp4-5.jpg", "cam1/walk_mp4"),
        # No frames of a clip that could be named:
        ("IMG_0001.jpg", ""),
        ("DSC_1234.JPG", ""),
        ("image12.jpg", ""),
        ("00001.jpg", ""),
        ("photo (3).jpg", ""),
        ("photo-0001.jpg", ""),
        ("frame_0001.jpg", ""),
        ("_frame_0001.jpg", ""),
        ("timeframe_12.jpg", ""),
        ("window_frame_12.jpg", ""),
        ("video_12.jpg", ""),
        ("video_20240131.jpg", ""),
        ("street_0001_jpg.rf.0f3a.jpg", ""),
        ("thermalImage12_jpg.rf.0f3a.jpg", ""),
        ("Screenshot-from-2025-05-25-10-17-50_png.rf.54.jpg", ""),
        ("WhatsApp-Image-2025-05-25-at-1_06_34-PM-2-_jpeg.rf.83.jpg", ""),
        ("walk_mp4_jpg.rf.1.jpg", ""),  # a clip's one picture, without a number
        ("_mp4-12.jpg", ""),
        ("", ""),
    ],
)
def test_clip_name(name: str, clip: str):
    assert clip_name(name) == clip
