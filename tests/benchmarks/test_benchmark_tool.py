"""tools/benchmark.py: its flags, its lines and what it keeps."""

from __future__ import annotations

import json

import benchmark
import pytest

from persondet.benchmarks import mapper, startup, video
from persondet.errors import OutputExistsError

FIGURES = {"ratio": 2.0, "low": 1.9, "high": 2.1, "first_seconds": [1.0], "second_seconds": [2.0]}


def test_show_baseline_prints_the_stock_sides_and_measures_nothing(capsys, monkeypatch):
    monkeypatch.setattr(startup, "benchmark_startup", lambda **_: pytest.fail("measured"))
    assert benchmark.main(["train", "mapper", "startup", "evaluate", "--show-baseline"]) == 0
    shown = capsys.readouterr().out
    for name in ("stock_train.py", "stock_mapper.py", "stock_startup.py", "stock_evaluate.py"):
        assert (mapper.Path(mapper.__file__).parent / name).read_text() in shown


def test_several_modes_are_measured_printed_and_kept(capsys, monkeypatch, tmp_path):
    asked = []
    rate = {"first_images_per_second": 4.0, "second_images_per_second": 2.0}
    results = {
        "startup": {"small": FIGURES},
        "mapper": dict.fromkeys(("street", "geometry", "flip"), FIGURES | rate),
    }

    def fake(mode):
        return lambda **options: asked.append((mode, options)) or results[mode]

    monkeypatch.setattr(startup, "benchmark_startup", fake("startup"))
    monkeypatch.setattr(mapper, "benchmark_mapper", fake("mapper"))
    kept = tmp_path / "numbers.json"
    command = ["mapper", "startup", "mapper", "--pairs", "3", "--images", "2", "--json", str(kept)]
    assert benchmark.main(command) == 0
    assert [mode for mode, _ in asked] == ["mapper", "startup"]
    assert all((o["pairs"], o["images"]) == (3, 2) for _, o in asked)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert lines[3].startswith("command to first step")
    assert "torch" in lines[-1] and "cpu_count" in lines[-1]
    numbers = json.loads(kept.read_text())
    assert numbers["mapper"] == results["mapper"] and numbers["startup"] == results["startup"]
    assert numbers["environment"]["torch"]
    with pytest.raises(OutputExistsError):
        benchmark.main(command)
    assert benchmark.main([*command, "--overwrite"]) == 0


@pytest.mark.parametrize(
    "bad",
    [
        ["train", "--pairs", "0"],
        ["speed"],
        [],
        ["mapper", "--images", "0"],
        ["video", "--run", "output/demo"],
    ],
)
def test_bad_flags_end_with_2(bad, capsys):
    with pytest.raises(SystemExit) as ended:
        benchmark.main(bad)
    assert ended.value.code == 2
    assert "usage" in capsys.readouterr().err


def test_the_video_benchmark_gets_its_run_and_clip(capsys, monkeypatch, tmp_path):
    asked = []
    one = {**FIGURES, "frames": 8}
    found = {"people": 10, "draw": one, "simulated": one}
    found["memory"] = {"grown_mb": 1.0, "from": 100, "to": 3000}
    monkeypatch.setattr(video, "benchmark_video", lambda **o: asked.append(o) or found)
    run, clip = tmp_path / "run", tmp_path / "walk.mp4"
    words = ["video", "--pairs", "2", "--images", "8", "--run", str(run), "--clip", str(clip)]
    assert benchmark.main(words) == 0
    del asked[0]["progress"]
    assert asked == [{"pairs": 2, "frames": 8, "run": run, "clip": clip}]
    assert capsys.readouterr().out.startswith("paste and draw")


def test_help_asks_for_a_quiet_machine(capsys):
    with pytest.raises(SystemExit):
        benchmark.main(["--help"])
    assert "quiet" in capsys.readouterr().out
