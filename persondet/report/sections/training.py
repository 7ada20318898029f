"""Section 5: training: the settings, the curves, the best step, time and hardware."""

from __future__ import annotations

import numpy as np

from persondet.report.document import (
    Block,
    Bullets,
    Heading,
    Note,
    Paragraph,
    Section,
    Table,
)
from persondet.report.facts import Facts
from persondet.report.run_state import RunState
from persondet.report.wording import DASH, duration, listed, plain, points, several, whole

_LOSSES = {
    "loss_rpn_cls": "proposals: does the network tell places with an object from empty ones?",
    "loss_rpn_loc": "proposals: do they lie where the objects are?",
    "loss_cls": "class: does each proposal get the right class, or “nothing”?",
    "loss_box_reg": "box: how far are the box's edges from the true ones?",
    "loss_mask": "mask: which share of pixels is wrongly in or out?",
}
_NO_CURVE = "The training has not logged it, or the plots are not drawn yet:"


def training(state: RunState) -> Section:
    """Explain what training is, and show how this one went."""
    return Section(
        "training",
        "Training",
        (
            Paragraph(
                "Training is a loop. In each step the model gets a batch, a few training pictures, "
                "and makes its guesses. The loss is a number that says how wrong they are: 0 would "
                "be perfect. For every weight it is then calculated in which direction the loss "
                "falls, and the weight is moved a little that way; how far, the learning rate "
                "says. After many steps the guesses are good.",
            ),
            Note("answer" if state.complete else "warning", state.how_it_ended()),
            *_settings(state),
            *_curves(state),
            *_best(state),
            *_effort(state),
        ),
    )


def _settings(state: RunState) -> list[Block]:
    solver = state.config["SOLVER"]
    if not solver:
        how = "A training writes it at its start."
        return [state.run.missing("config.yaml", "The settings are not known.", how)]
    batch, planned = solver["IMS_PER_BATCH"].count(), state.planned_steps
    rows = [
        ("Steps", whole(planned), "SOLVER.MAX_ITER"),
        ("Pictures per step (batch)", whole(batch), "SOLVER.IMS_PER_BATCH"),
    ]
    pictures = _training_pictures(state)
    if pictures and batch and planned:
        rows.append(("Passes over the pictures (epochs)", plain(planned * batch / pictures, 3), ""))
    low_precision = solver["AMP"]["ENABLED"].value is True
    precision = solver["AMP"]["DTYPE"].text() or "float16" if low_precision else "float32"
    precision = "the device's best (auto)" if precision == "auto" else precision
    rows += [
        ("Rule for moving the weights", solver["OPTIMIZER"].text() or "SGD", "SOLVER.OPTIMIZER"),
        ("Learning rate", plain(solver["BASE_LR"].number()), "SOLVER.BASE_LR"),
        ("Its course", solver["LR_SCHEDULER_NAME"].text() or DASH, "SOLVER.LR_SCHEDULER_NAME"),
        ("Steps of warming up", whole(solver["WARMUP_ITERS"].number()), "SOLVER.WARMUP_ITERS"),
        ("Weight decay", plain(solver["WEIGHT_DECAY"].number()), "SOLVER.WEIGHT_DECAY"),
        ("Number format", precision, "SOLVER.AMP"),
        ("Random seed", state.config["SEED"].shown() or DASH, "SEED"),
    ]
    return [
        Heading("Settings"),
        Table("The settings of this training", ("setting", "value", "key"), tuple(rows), (1,)),
        Paragraph(
            "Warming up means that the first steps use a smaller rate, since the new layers still "
            "guess at random. Later the rate falls, so that the weights come to rest. Weight decay "
            "keeps them small. The seed fixes the order of all random choices.",
        ),
    ]


def _training_pictures(state: RunState) -> float:
    names = state.config["DATASETS"]["TRAIN"].texts()
    told = [state.last_start["datasets"][name]["images"].number() for name in names]
    if told and None not in told:
        return sum(number or 0 for number in told)
    statistics = state.run.facts("dataset.json")["statistics"]
    return statistics["splits"]["train"]["images"].number() or 0


def _curves(state: RunState) -> list[Block]:
    how = f"{_NO_CURVE} python tools/plot_metrics.py {state.run.word}"
    events = state.run.events()
    if events is None:
        text = "metrics.json, the log of the training, is missing or holds no row yet. "
        how = "A training (tools/train_net.py) writes it while it runs."
        return [Heading("Curves"), Note("missing", text + how)]
    blocks: list[Block] = [
        Heading("Curves"),
        Paragraph(
            "The curves show whether the training went well. Solid lines are of the training "
            "split, dashed ones with dots of the validation split.",
        ),
        state.run.figure(
            "plots/loss.png",
            "The loss over the steps.",
            "Both lines should fall and then level out. When the dashed line turns upward while "
            "the solid one goes on falling, the model has begun to learn its pictures by heart "
            "(overfitting), and further training harms it.",
            how=how,
        ),
        state.run.figure(
            "plots/loss_components.png",
            "The parts of which the loss is the sum.",
            "A part that does not fall points to what the model cannot learn from these pictures.",
            how=how,
        ),
        Bullets(tuple((f"{name}:", text) for name, text in _LOSSES.items() if name in events)),
        state.run.figure(
            "plots/accuracy.png",
            "How many of its choices are right during the training.",
            "Most proposals show nothing, so that a model which always says “nothing” already has "
            "a high share of right classes. Look at the rise, more than at the height.",
            how=how,
        ),
        state.run.figure(
            "plots/average_precision.png",
            "Average precision on the validation split; a star marks the best step.",
            "This is the measure by which the model is chosen. A curve that still rises at the end "
            "says that more steps would help; a flat one, that they would not.",
            how=how,
        ),
        state.run.figure(
            "plots/learning_rate.png",
            "The learning rate over the steps.",
            "It is planned before the training and does not depend on the pictures.",
            how=how,
        ),
    ]
    notes = []
    loss = events["total_loss"].values if "total_loss" in events else np.zeros(0)
    lost = int((~np.isfinite(loss)).sum())
    if lost:
        notes.append(
            f"{whole(lost)} of the {several(len(loss), 'logged loss', 'logged losses')} are no "
            "finite numbers: the training diverged there, and what it learned after that is worth "
            "nothing unless it was set back to an earlier step. A lower SOLVER.BASE_LR helps."
        )
    if events.restarts:
        steps = listed([whole(step) for step in events.restarts])
        notes.append(
            f"The training was resumed; the log went back to step {steps}, and what had been "
            "logged after that is superseded."
        )
    if events.unreadable_lines:
        lines = several(events.unreadable_lines, "line")
        notes.append(f"{lines} of metrics.json could not be read and left out.")
    return [block for block in blocks if block != Bullets(())] + [
        Note("warning", note) for note in notes
    ]


def _best(state: RunState) -> list[Block]:
    best = state.run.facts("model_best.json")
    if not best:
        how = "A training writes it at each evaluation on the validation split."
        return [
            Heading("The best step"),
            state.run.missing("model_best.json", "No best step is chosen yet.", how),
        ]
    metric, score, step = best["metric"].text(), best["score"].number(), best["iteration"].number()
    after = "" if step is None else f" after {whole(step + 1)} steps"
    if not metric:
        text = (
            "There was no score on a validation split to choose by, so the best model is the last"
            f" one{after and ','}{after}."
        )
    else:
        task = {"segm": "mask", "bbox": "box"}.get(metric.partition("/")[0], "")
        text = (
            f"The model kept as the best (model_best.pth) is the one{after}: it has the highest "
            f"{task} {metric.rpartition('/')[2]} on the validation split, {points(score)} "
            f"({metric}). All that follows is about this model."
        )
    return [Heading("The best step"), Paragraph(text)]


def _effort(state: RunState) -> list[Block]:
    rows: list[tuple[str, str]] = []
    seconds = state.results["seconds"]["train"].number()
    if seconds is not None:
        rows.append(("Time for the training", duration(seconds)))
    events = state.run.events()
    step = events.finite("time") if events else None
    if step is not None:
        middle = float(sorted(step.values)[len(step.values) // 2])
        rows.append(("Time per step (the middle one)", f"{plain(middle, 3)} seconds"))
        batch = state.config["SOLVER"]["IMS_PER_BATCH"].number()
        if batch and middle > 0:
            rows.append(("Pictures per second", plain(batch / middle, 3)))
    hardware = state.last_start["hardware"]
    if hardware:
        memory = hardware["memory_bytes"].number()
        gpus = [_gpu(gpu) for gpu in hardware["gpus"].entries()]
        rows += [
            ("Processor", hardware["cpu"].text() or DASH),
            ("Processor cores", whole(hardware["cores"].number())),
            ("Memory", DASH if memory is None else f"{memory / 2**30:.0f} GiB"),
            ("Graphics processors", listed(gpus) or "none"),
        ]
    blocks: list[Block] = [Heading("Time and hardware")]
    if rows:
        caption = "How long the training took, and on what"
        blocks.append(Table(caption, ("what", "value"), tuple(rows)))
    if not hardware:
        how = "A training (tools/train_net.py) writes it at its start."
        blocks.append(state.run.missing("provenance.json", "The hardware is not known.", how))
    if events and (events.finite("time") is not None):
        how = f"It is drawn by: python tools/plot_metrics.py {state.run.word}"
        blocks.append(
            state.run.figure(
                "plots/speed.png",
                "The speed of the training over its steps.",
                "An even line is a healthy one. Dips are evaluations, or another program that "
                "used the machine.",
                how=how,
            )
        )
    return blocks


def _gpu(gpu: Facts) -> str:
    memory = gpu["memory_bytes"].number()
    return (gpu["name"].text() or "unknown") + (f", {memory / 2**30:.0f} GiB" if memory else "")
