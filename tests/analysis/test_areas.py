"""Files of areas: what they say, and one sentence for each that says something else."""

import numpy as np
import pytest
import yaml

from persondet.analysis.areas import read_areas, template
from persondet.analysis.movement import on_ground
from persondet.errors import ConfigError

SQUARE = [[10, 10], [90, 10], [90, 90], [10, 90]]


def read(tmp_path, document, clip="walk.mp4", size=(640, 360)):
    path = tmp_path / "areas.yaml"
    path.write_text(document if isinstance(document, str) else yaml.safe_dump(document))
    return read_areas(path, *size, clip)


def test_points_are_pixels_or_shares_and_each_shape_tells_which(tmp_path):
    lines = {"a": [[0.5, 0.25], [1, 1]], "b": [[1, 1], [5, 8], [2.5, 9]]}
    areas = read(tmp_path, {"lines": lines, "zones": {7: SQUARE}})
    assert [line.name for line in areas.lines] == ["a", "b"]
    assert areas.lines[0].points.tolist() == [[320, 90], [640, 360]]
    assert areas.lines[1].points.tolist() == lines["b"]
    assert (areas.zones[0].name, areas.zones[0].points.tolist()) == ("7", SQUARE)
    assert (areas.grace, areas.homography) == (0.5, None)


def test_the_template_is_a_file_of_areas(tmp_path):
    areas = read(tmp_path, "\n".join(template("a: 'b' #.mp4", 640, 360)), "a: 'b' #.mp4")
    assert (len(areas.lines), len(areas.zones)) == (1, 1)


LINE, ZONE = {"door": [[1, 1], [99, 1]]}, {"queue": SQUARE}
FLAT = [[0, 0], [1, 1], [2, 2], [0, 5]]


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({"zones": {"queue": SQUARE[:2]}}, r"zone 'queue' has 2 points; it needs 3"),
        ({"lines": {"door": [[1, 2]]}}, r"line 'door' has 1 point; it needs 2"),
        ({"lines": {"door": [[1, 2], [700, 9]]}}, r"\(700, 9\), outside the frame of 640 × 360"),
        ({"lines": {"door": [[-1, 0.5], [0.5, 0.5]]}}, "outside the frame"),
        ({"lines": LINE, "colour": "red"}, "no key 'colour'; the keys are clip, size, lines"),
        ({"lines": {"door": [[5, 5], [5, 5.5]]}}, "less than a pixel apart"),
        ({"lines": {"door": "here"}}, "is a list of points"),
        ({"lines": {"door": [[1, True], [2, 3]]}}, "is a list of points"),
        ({"lines": {"door": [[1, float("nan")], [2, 3]]}}, "is a list of points"),
        ({"lines": [1]}, "lines: is a name and points"),
        ({"lines": {"a\nb": [[1, 1], [9, 9]]}}, "printable"),
        ({"zones": {"bow": [SQUARE[i] for i in (0, 2, 1, 3)]}}, "'bow' is no polygon"),
        ({"zones": {"flat": [[1, 1], [5, 1], [9, 1]]}}, "'flat' is no polygon"),
        ({}, "neither lines nor zones"),
        ("", "no keys"),
        ("lines: {a: [[1, 1], [9, 9]], a: [[1, 1], [9, 8]]}", "'a' stands there twice"),
        ("lines: !!python/object/apply:os.system ['true']", "no plain YAML"),
        ("lines: [", "no plain YAML"),
        ({"lines": LINE, "grace": -1}, "grace is seconds"),
        ({"lines": LINE, "clip": "run.mp4"}, "of the clip 'run.mp4', and this is 'walk.mp4'"),
        ({"lines": LINE, "size": [1280, 720]}, "1280 × 720 pixels, and these frames have 640"),
        ({"lines": LINE, "size": 3}, "size is the width"),
        ({"lines": LINE, "homography": {"image": SQUARE}}, "keys image and metres"),
        ({"lines": LINE, "homography": {"image": SQUARE, "metres": FLAT}}, "no corners of a quad"),
        ({"lines": LINE, "homography": {"image": SQUARE, "metres": SQUARE[:3]}}, "four points"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_sentence(document, says, tmp_path):
    with pytest.raises(ConfigError, match=says) as caught:
        read(tmp_path, document)
    assert caught.value.exit_code == 2
    assert str(caught.value).startswith(str(tmp_path)) and "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        read_areas(tmp_path / "none.yaml", 640, 360)


@pytest.mark.parametrize("horizon", [-200.0, 100.0])
def test_the_homography_gives_metres_on_this_side_of_the_horizon(horizon, tmp_path):
    """An independent path: a pinhole camera that looks along a level ground."""

    def seen(ground):
        x, z = np.asarray(ground, float).T
        return np.stack([320 + 300 * x / z, horizon + 300 * 2.0 / z], axis=1)

    corners = np.array([[-1, 3], [1.5, 3], [2, 5], [-2, 6]]) * (0.6 if horizon < 0 else 1)
    ground = {"image": seen(corners).tolist(), "metres": corners.tolist()}
    matrix = read(tmp_path, {"lines": LINE, "homography": ground}).homography
    places = np.array([[0.3, 2.5], [-4, 20], [1, 4]])
    assert np.allclose(on_ground(seen(places), matrix), places, atol=1e-5)
    assert np.isnan(on_ground(np.array([[320.0, horizon - 5]]), matrix)).all()
