"""Training over two hosts, which are two network namespaces of this machine with a cable between.

Needs the rights to make them.
"""

import os
import signal
import subprocess
import sys
import time
import uuid

import pytest
import torch

from tests.engine.test_launch import OPTS, start
from tests.engine.toy_training import CONFIG, ROOT

pytestmark = pytest.mark.soak
PORT = 29400


def ip(*words):
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def hosts():
    """The names of two namespaces; host n has the address 10.77.0.n at its end of the cable."""
    names = [f"pd{number}{uuid.uuid4().hex[:6]}" for number in (1, 2)]
    try:
        for name in names:
            ip("netns", "add", name)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no network namespaces here: {error}")
    try:
        ip("link", "add", names[0], "type", "veth", "peer", "name", names[1])
        for number, name in enumerate(names, start=1):
            ip("link", "set", name, "netns", name)
            ip("-n", name, "addr", "add", f"10.77.0.{number}/24", "dev", name)
            for device in (name, "lo"):
                ip("-n", name, "link", "set", device, "up")
        yield names
    finally:
        for name in names:
            kill_host(name)
            ip("netns", "delete", name)


def kill_host(name):
    for pid in ip("netns", "pids", name).split():
        os.kill(int(pid), signal.SIGKILL)


def start_on(hosts, *, root, output, keys):
    """Start torchrun on each host, as the documentation says."""
    opts = ["DATASETS.ROBOFLOW.ROOT", str(root), "OUTPUT_DIR", str(output), *OPTS, *keys.split()]
    flags = ["--resume"] if output.exists() else []
    return [
        subprocess.Popen(
            [
                *("ip", "netns", "exec", name, sys.executable, "-m", "torch.distributed.run"),
                *("--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d"),
                *("--rdzv-endpoint", f"10.77.0.1:{PORT}", "--local-addr", f"10.77.0.{number}"),
                *("--rdzv-conf", f"is_host={number == 1}"),
                *(str(ROOT / "tools/train_net.py"), "--config-file", str(CONFIG), *flags, *opts),
            ],
            env=os.environ
            | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "GLOO_SOCKET_IFNAME": name},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number, name in enumerate(hosts, start=1)
    ]


def test_two_hosts_train_as_two_processes_of_one(tmp_path, tiny_export, hosts):
    keys = "SOLVER.MAX_ITER 2 TEST.EVAL_PERIOD 0"
    alone = start(root=tiny_export, output=tmp_path / "alone", keys=keys)
    said, wrong = alone.communicate(timeout=300)
    assert alone.returncode == 0, said + wrong
    both = start_on(hosts, root=tiny_export, output=tmp_path / "both", keys=keys)
    texts = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], texts
    assert sum(said.count("Scoring model_best.pth") for said, _ in texts) == 1
    weights, files = [], []
    for name in ("alone", "both"):
        weights.append(torch.load(tmp_path / name / "model_final.pth", weights_only=True)["model"])
        paths = (tmp_path / name).iterdir()
        files.append(sorted(path.name.partition("tfevents")[0] for path in paths))
    torch.testing.assert_close(*map(dict, weights), rtol=1e-5, atol=1e-7)
    assert files[0] == files[1]


def test_a_host_that_dies_ends_the_other_and_a_resume_goes_on(tmp_path, tiny_export, hosts):
    keys = "SOLVER.MAX_ITER 6 SOLVER.CHECKPOINT_PERIOD 2 TEST.EVAL_PERIOD 0"
    whole = start_on(hosts, root=tiny_export, output=tmp_path / "whole", keys=keys)
    for process in whole:
        assert process.communicate(timeout=300) and process.returncode == 0
    output = tmp_path / "cut"
    first, second = start_on(hosts, root=tiny_export, output=output, keys=keys)
    while not (output / "model_0000001.pth").is_file():
        assert first.poll() is None, first.communicate()
        time.sleep(0.02)
    kill_host(hosts[1])
    said, wrong = first.communicate(timeout=120)
    assert first.returncode != 0 and second.wait() != 0
    assert "--resume" in wrong and "another process of this run" in wrong, said + wrong
    again = start_on(hosts, root=tiny_export, output=output, keys=keys)
    texts = [process.communicate(timeout=300) for process in again]
    assert [process.returncode for process in again] == [0, 0], texts
    weights = [
        dict(torch.load(tmp_path / name / "model_final.pth", weights_only=True)["model"])
        for name in ("whole", "cut")
    ]
    torch.testing.assert_close(*weights, rtol=0, atol=0)
