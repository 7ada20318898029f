"""The same job on a Ray cluster of three nodes, whatever is killed meanwhile."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from persondet.batch.pools import RayPool
from tests.batch.stubs import clip_of, contents, job, ledger, load_slow, mixed_folder

ray = pytest.importorskip("ray")
cluster_utils = pytest.importorskip("ray.cluster_utils")
ROOT = Path(__file__).resolve().parents[2]
NODE = {"num_cpus": 2, "object_store_memory": 80 * 2**20, "include_dashboard": False}


@pytest.fixture
def cluster(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *filter(None, sys.path)]))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    found = cluster_utils.Cluster(initialize_head=True, head_node_args=NODE)
    for _ in range(2):
        found.add_node(num_cpus=2, object_store_memory=80 * 2**20)
    yield found
    ray.shutdown()
    found.shutdown()


def ray_job(source, output, cluster, **more):
    return job(source, output, pool=RayPool, address=cluster.address, **more)


@pytest.mark.slow
def test_a_bad_folder_on_three_nodes_is_as_a_serial_run(tmp_path, cluster):
    source = mixed_folder(tmp_path / "in")
    job(source, tmp_path / "serial")
    clip_of(source / "hangs.mp4", 40, width=64, height=48)
    summary = ray_job(source, tmp_path / "out", cluster, load=load_slow, actors=3, timeout=8.0)
    assert summary.states == {"done": 4, "partial": 2, "failed": 3}
    assert contents(tmp_path / "out") == contents(tmp_path / "serial")
    rows = ledger(tmp_path / "out")
    assert "8 seconds" in rows["hangs.mp4"]["reason"]
    assert all(row["tries"] == 1 for row in rows.values())


DRIVER = """
import sys
from persondet.batch.pools import RayPool
from tests.batch.stubs import job, load_slow
job(sys.argv[1], sys.argv[2], load=load_slow, pool=RayPool, address=sys.argv[3], actors=3)
"""


def drive(source, output, cluster):
    environment = os.environ | {"PERSONDET_STUB_SECONDS": "0.01"}
    command = [sys.executable, "-c", DRIVER, str(source), str(output), cluster.address]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def kill_actor(_, __):
    names = subprocess.run(["pgrep", "-f", "ray::_Actor"], capture_output=True, text=True)
    if names.stdout.split():
        os.kill(int(random.choice(names.stdout.split())), signal.SIGKILL)


def kill_node(cluster, _):
    cluster.remove_node(cluster.list_all_nodes()[-1], allow_graceful=False)
    cluster.add_node(num_cpus=2, object_store_memory=80 * 2**20)


def kill_driver(_, driver):
    driver.kill()


@pytest.mark.soak
def test_a_thousand_clips_are_done_once_whatever_is_killed(tmp_path, cluster):
    source, output = tmp_path / "in", tmp_path / "out"
    for number in range(1000):
        clip_of(source / f"{number % 7}" / f"{number:04d}.mp4", 2 + number % 3, first=number)
    random.seed(5)
    kills = [kill_actor, kill_node, kill_driver] * 3 + [kill_driver]
    for kill in kills:
        driver = drive(source, output, cluster)
        before = done_in(output)
        deadline = time.monotonic() + 120
        while done_in(output) < before + random.randint(5, 60) and driver.poll() is None:
            assert time.monotonic() < deadline, driver.stderr.read()
            time.sleep(0.05)
        kill(cluster, driver)
        if kill is not kill_driver:
            time.sleep(2)
            driver.kill()
        driver.wait()
    driver = drive(source, output, cluster)
    assert driver.wait(timeout=300) == 0, driver.stderr.read()
    job(source, tmp_path / "serial")
    assert contents(output) == contents(tmp_path / "serial")
    assert not [p for p in output.rglob("*") if "partial" in p.name or ".unfinished" in str(p)]
    rows, serial = ledger(output), ledger(tmp_path / "serial")
    assert len(rows) == 1000
    for name, row in rows.items():
        assert {k: row[k] for k in ("state", "frames", "people", "unique")} == {
            k: serial[name][k] for k in ("state", "frames", "people", "unique")
        }


def done_in(output):
    files = (name for _, _, names in os.walk(output) for name in names)
    return sum(name.endswith("_annotated.jsonl") for name in files)


@pytest.mark.soak
def test_an_item_that_kills_its_worker_three_times_fails(tmp_path, cluster):
    clip_of(tmp_path / "in" / "a.mp4", 3)
    clip_of(tmp_path / "in" / "deadly.mp4", 40, width=80, height=48)
    summary = ray_job(tmp_path / "in", tmp_path / "out", cluster, load=load_deadly, actors=2)
    assert summary.states == {"done": 1, "failed": 1}
    row = ledger(tmp_path / "out")["deadly.mp4"]
    assert row["tries"] == 3 and "died 3 times" in row["reason"]


def load_deadly():
    from tests.batch.stubs import BrightSquares

    class Deadly(BrightSquares):
        def predict_batch(self, images):
            if images[0].shape[:2] == (48, 80):
                os.kill(os.getpid(), signal.SIGKILL)
            return super().predict_batch(images)

    return Deadly()
