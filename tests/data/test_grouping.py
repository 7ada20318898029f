from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from persondet.data.grouping import Group, deal_groups

FRACTIONS = [(0.7, 0.2, 0.1), (0.5, 0.5, 0.0), (1.0, 0.0, 0.0), (0.34, 0.33, 0.33)]


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.integers(1, 6), st.integers(0, 20)), max_size=25),
    st.sampled_from(FRACTIONS),
    st.integers(0, 5),
)
def test_shares_are_as_close_as_groups_allow(sizes, fractions, seed):
    groups = [Group(images, people, 0) for images, people in sizes]
    dealt = deal_groups(groups, fractions, seed)
    assert dealt == deal_groups(groups, fractions, seed)
    assert len(dealt) == len(groups)
    wanted = {split for split, fraction in enumerate(fractions) if fraction > 0}
    assert set(dealt) <= wanted
    assert len(set(dealt)) == min(len(wanted), len(groups))
    total = sum(group.images for group in groups)
    for split in wanted:
        got = sum(g.images for g, s in zip(groups, dealt, strict=True) if s == split)
        largest = max((g.images for g in groups), default=0)
        assert abs(got - fractions[split] * total) <= max(largest, 1) + 1


def test_single_images_come_out_to_the_image():
    dealt = Counter(deal_groups([Group(1, 1)] * 100, (0.7, 0.2, 0.1), 0))
    assert dealt == {0: 70, 1: 20, 2: 10}


def test_people_per_image_come_out_alike():
    people = [0] * 30 + [1] * 40 + [12] * 30
    groups = [Group(1, count, int(count == 0)) for count in people]
    for seed in range(3):
        dealt = deal_groups(groups, (0.7, 0.2, 0.1), seed)
        for split in range(3):
            mine = [count for count, s in zip(people, dealt, strict=True) if s == split]
            assert abs(sum(mine) / len(mine) - 4.0) < 0.15
            assert abs(mine.count(0) / len(mine) - 0.3) < 0.06


def test_a_large_group_goes_where_there_is_room():
    dealt = deal_groups([Group(1)] * 40 + [Group(60)], (0.7, 0.2, 0.1), 0)
    assert dealt[-1] == 0
    assert Counter(dealt) == {0: 11, 1: 20, 2: 10}


def test_another_seed_is_another_result():
    groups = [Group(1, index % 3) for index in range(30)]
    assert len({tuple(deal_groups(groups, (0.7, 0.2, 0.1), seed)) for seed in range(5)}) == 5


def test_too_few_groups_go_to_the_largest_shares():
    assert deal_groups([], (0.7, 0.2, 0.1), 0) == []
    assert deal_groups([Group(5)], (0.7, 0.2, 0.1), 0) == [0]
    assert sorted(deal_groups([Group(5), Group(5)], (0.7, 0.1, 0.2), 0)) == [0, 2]
