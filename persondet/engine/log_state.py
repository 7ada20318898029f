"""The event storage of a run as plain containers, so that its smoothing goes on after a resume."""

from __future__ import annotations

from typing import Any

from detectron2.utils.events import EventStorage

# The longest window that anything looks back over (Detectron2's estimate of the time left).
_KEPT = 1000
# Detectron2 does not time the first steps of a process: until then this one has no newest value,
# and an older one would get a row of its own.
_TIMED_LATER = "time"


def log_state(storage: EventStorage) -> dict[str, Any]:
    """Return the newest values of each scalar, and what has been said of all of them.

    Lists of numbers and not tensors: a NaN in a log is a finding, in a tensor it would be damage.
    """
    state = {}
    hints = storage.smoothing_hints()
    # In the order of `latest`, which is that of a row.
    for name, (value, iteration) in storage.latest().items():
        history = storage.history(name)
        newest = history.values()[-_KEPT:]
        state[name] = {
            "values": [float(number) for number, _ in newest],
            "iterations": [int(at) for _, at in newest],
            "count": history._count,
            "average": float(history.global_avg()),
            "latest": [float(value), int(iteration)],
            "smoothed": bool(hints[name]),
        }
    return state


def restore_log(storage: EventStorage, state: dict[str, Any]) -> None:
    """Put back into `storage` what `log_state` returned."""
    for name, scalar in state.items():
        history = storage.histories()[name]
        history._data = list(zip(scalar["values"], scalar["iterations"], strict=True))
        history._count = scalar["count"]
        history._global_avg = scalar["average"]
        if name != _TIMED_LATER:
            value, iteration = scalar["latest"]
            storage.latest()[name] = (value, iteration)
        storage.smoothing_hints()[name] = scalar["smoothed"]
