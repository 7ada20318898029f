"""What stands on labels and on the count: short, and not another number in every frame."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from detectron2.structures import Instances

# A score on a label stays until the real one is this far away.
SCORE_SLACK = 0.025
LONGEST_NAME = 24  # letters of a class name
_PEOPLE = frozenset({"person", "people", "pedestrian", "human"})


class ShownScores:
    """The scores as they are shown: they change when there is something to tell.

    A model's score trembles by a point or two from frame to frame; digits that do cannot be read.
    """

    def __init__(self) -> None:
        """Start without memory."""
        self._shown: dict[Hashable, float] = {}

    def update(self, keys: Sequence[Hashable], scores: Sequence[float] | np.ndarray) -> list[float]:
        """Return the score to show for each person; `keys` say who, the same in every frame.

        Args:
            keys: who each score belongs to.
            scores: 0..1; none is shown more than `SCORE_SLACK` away from what it is.
        """
        shown = []
        for key, score in zip(keys, scores, strict=True):
            before = self._shown.get(key, np.inf)
            shown.append(before if abs(before - score) <= SCORE_SLACK else float(score))
        self._shown = dict(zip(keys, shown, strict=True))
        return shown


def label_texts(
    predictions: Instances, classes: Sequence[str] | None, scores: Sequence[float] | None = None
) -> list[tuple[str, str]]:
    """Return the text of each instance's label, and a short one for where there is no room.

    "#track class score" and "#track"; without tracks "class score" and "score".

    Args:
        predictions: `pred_classes [scores] [ID]`.
        classes: the class names by number.
        scores: to show instead of those of the predictions.
    """
    if scores is None and predictions.has("scores"):
        scores = predictions.scores.tolist()
    texts = []
    for i, number in enumerate(predictions.pred_classes.tolist()):
        name = _plain(str(number) if classes is None else classes[number])
        track = f"#{int(predictions.ID[i])}" if predictions.has("ID") else ""
        score = "" if scores is None else f"{scores[i]:.0%}"
        texts.append((" ".join(filter(None, (track, name, score))), track or score or name))
    return texts


def _plain(name: str) -> str:
    """Return a class name, which may be anything, as a short text of one line."""
    name = " ".join("".join(c if c.isprintable() else " " for c in str(name)).split())
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 3] + "..."


def count_text(in_view: int, unique: int | None, classes: Sequence[str]) -> str:
    """Return how many are in view, and so far if that is known: "5 people in view · 12 so far".

    Args:
        in_view, unique: numbers of people.
        classes: the class names; other things than people are not called so.
    """
    people = {str(name).lower() for name in classes} <= _PEOPLE
    noun = ("person " if in_view == 1 else "people ") if people else ""
    return f"{in_view} {noun}in view" + ("" if unique is None else f" · {unique} so far")
