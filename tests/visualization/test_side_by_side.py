"""Two panels of one image."""

import numpy as np

from persondet.visualization.sheets import CROWD, RIGHT, WRONG, Shown, draw_side_by_side


def colors_of(panel):
    codes = np.unique(panel.astype(np.int64) @ [1 << 16, 1 << 8, 1])
    return {(int(code) >> 16, int(code) >> 8 & 255, int(code) & 255) for code in codes}


def test_what_is_wrong_has_its_colour_on_its_side_alone():
    image = np.full((480, 632, 3), 90, np.uint8)  # a panel's own size: nothing is scaled
    missed, known = Shown((20, 20, 60, 90), wrong=True), Shown((200, 20, 260, 90))
    sheet = draw_side_by_side(image, [missed, known], [known, Shown((1, 1, 9, 9), crowd=True)])
    left, right = sheet[26:, :632], sheet[26:, -632:]  # below the titles
    assert {WRONG, RIGHT} <= colors_of(left)
    assert CROWD not in colors_of(left)
    assert {RIGHT, CROWD} <= colors_of(right)
    assert WRONG not in colors_of(right)
    assert tuple(left[20, 40]) == WRONG  # the upper edge of the box


def test_a_cut_out_shows_its_neighbourhood_and_nothing_from_elsewhere():
    image = np.full((1000, 1000, 3), 90, np.uint8)
    near, far = Shown((500, 500, 520, 540), wrong=True), Shown((10, 10, 60, 60), label="far")
    sheet = draw_side_by_side(image, [near, far], [], around=near.box)
    left = sheet[26:, : sheet.shape[1] // 2 - 8]
    assert WRONG in colors_of(left)
    assert RIGHT not in colors_of(left)
    assert left.shape[0] > 200  # enlarged
