"""The source domain: the same streets with five kinds of objects, and without people."""

from __future__ import annotations

import numpy as np

from persondet.sample.placement import Plan, furnish, is_free, scene_rng
from persondet.sample.scenes import Scene, empty_scene, furniture_item, visible_part

OBJECT_CLASSES = ("bench", "bicycle", "car", "traffic_sign", "trash_can")

_HEIGHTS = {"bench": 0.88, "bicycle": 1.05, "car": 1.45, "traffic_sign": 2.9, "trash_can": 1.0}


def compose_objects(
    seed: int, kind: str, split: str, plan: Plan, size: tuple[int, int]
) -> tuple[Scene, np.random.Generator]:
    """Return a scene of a plan with objects of `OBJECT_CLASSES`, and the generator for the rest."""
    rng = scene_rng(seed, kind, split, plan.index)
    scene = empty_scene(rng, size, plan.time, plan.weather, plan.layout, people_pictures=False)
    furnish(scene, rng, without=("poster_stand",))
    camera = scene.camera
    unit = size[1] / 360.0
    for _ in range(int(rng.integers(4, 9))):
        name = str(rng.choice(OBJECT_CLASSES, p=(0.2, 0.26, 0.14, 0.2, 0.2)))
        tall = np.exp(rng.uniform(np.log(26.0), np.log(120.0))) * (
            1.7 if name == "traffic_sign" else 1.0
        )
        for _ in range(10):
            z = camera.depth_for(_HEIGHTS[name], tall * unit)
            if name == "car" and scene.street.layout == "along":
                break
            x = camera.across(rng.uniform(0.06, 0.94) * camera.width, z)
            if z < 2.4 or not scene.street.walkable(x, z) or not is_free(scene, x, z, 1.2):
                continue
            item = furniture_item(scene, rng, name, x, z)
            if item is None or visible_part(item, scene.items, *size).share < 0.5:
                continue
            before = [other for other in scene.items if other.name in OBJECT_CLASSES]
            shares = [visible_part(other, [*scene.items, item], *size).share for other in before]
            if all(share > 0.25 for share in shares) or not shares:
                scene.items.append(item)
                break
    return scene, rng
