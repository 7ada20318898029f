"""`metrics.json`: what Detectron2 writes, as JSON that every reader takes, also over a resume."""

import json
import math

from detectron2.utils.events import EventStorage, JSONWriter
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from persondet.engine.console import MetricsWriter, event_writers, keep_rows_before, last_row
from persondet.engine.resumption import log_state, restore_log
from persondet.report.events import load_events


def put(storage, iteration):
    storage.iter = iteration
    storage.put_scalar("total_loss", (iteration * 7919) % 13 / 3)
    if iteration % 4 == 0:  # not in every step, as the mask head's accuracy
        storage.put_scalar("mask_rcnn/accuracy", iteration / 100)
    if iteration % 9 == 8:
        storage.put_scalar("segm/AP", float(iteration), smoothing_hint=False)


def test_rows_are_those_of_detectron2(tmp_path):
    writers = [JSONWriter(str(tmp_path / "stock")), MetricsWriter(tmp_path / "ours")]
    with EventStorage() as storage:
        for iteration in range(60):
            put(storage, iteration)
            if iteration % 7 == 6:
                for writer in writers:
                    writer.write()
    texts = [(tmp_path / name).read_text() for name in ("stock", "ours")]
    stock, ours = ([json.loads(line) for line in text.splitlines()] for text in texts)
    # Detectron2 writes the rows of one moment in no order of time.
    assert ours == sorted(stock, key=lambda row: row["iteration"])


def test_trap_4_a_resumed_log_equals_one_in_one_go(tmp_path):
    with EventStorage() as storage:
        writer = MetricsWriter(tmp_path / "one")
        for iteration in range(60):
            put(storage, iteration)
            if iteration % 5 == 4:
                writer.write()
    with EventStorage() as storage:
        writer = MetricsWriter(tmp_path / "two")
        for iteration in range(36):
            put(storage, iteration)
            if iteration == 30:
                state = log_state(storage)
            if iteration % 5 == 4:
                writer.write()
    with open(tmp_path / "two", "a") as file:
        file.write('{"iteration": 35, "total_')
    with EventStorage(31) as storage:
        restore_log(storage, json.loads(json.dumps(state)))
        assert storage.history("total_loss").global_avg() > 0
        writer = MetricsWriter(tmp_path / "two", start=31)
        assert writer.last_row == 29
        for iteration in range(31, 60):
            put(storage, iteration)
            if iteration % 5 == 4:
                writer.write()
    assert (tmp_path / "one").read_text() == (tmp_path / "two").read_text()


def test_trap_4_what_is_not_finite_is_null_and_read_as_nan(tmp_path):
    with EventStorage() as storage:
        for value in (1.0, math.nan, math.inf):
            storage.put_scalar("bbox/AP", value, smoothing_hint=False)
            storage.put_scalar("total_loss", 2.0)
            writer = MetricsWriter(tmp_path / "metrics.json", start=storage.iter)
            writer.write()
            writer.close()
            storage.iter += 1
    text = (tmp_path / "metrics.json").read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    series = load_events(tmp_path)["bbox/AP"]
    assert series.iterations.tolist() == [0, 1, 2]
    assert series.finite().values.tolist() == [1.0]


def test_cutting_leaves_earlier_rows_and_foreign_lines_alone(tmp_path):
    path = tmp_path / "metrics.json"
    assert keep_rows_before(path, 5) == last_row(path) == -1
    path.write_text(
        '{"iteration": 3}\n\n# mine\n{"iteration": 9}\n{"iteration": 4, "a": NaN}\n{"it'
    )
    assert keep_rows_before(path, 5) == 4
    assert path.read_text() == '{"iteration": 3}\n\n# mine\n{"iteration": 4, "a": NaN}\n'
    assert keep_rows_before(path, 4) == 3
    assert keep_rows_before(path, 0) == -1


def test_tensorboard_shows_each_step_once(tmp_path):
    for start, end in ((0, 8), (5, 10)):
        with EventStorage(start) as storage:
            writers = event_writers(tmp_path, start=start)
            for iteration in range(start, end):
                storage.iter = iteration
                storage.put_scalar("lr", iteration + start, smoothing_hint=False)
                for writer in writers:
                    writer.write()
            for writer in writers:
                writer.close()
    events = EventAccumulator(str(tmp_path)).Reload().Scalars("lr")
    assert [(event.step, event.value) for event in events] == [
        *((i, i) for i in range(5)),
        *((i, i + 5) for i in range(5, 10)),
    ]
