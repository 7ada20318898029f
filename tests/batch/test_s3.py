"""A job from one S3 bucket to another, against a server that speaks its protocol."""

import json
import logging

import pytest

from persondet.batch.pools import RayPool
from persondet.batch.store import Store
from persondet.errors import MediaError
from tests.batch.stubs import contents, job, mixed_folder

pytest.importorskip("s3fs")
moto_server = pytest.importorskip("moto.server", exc_type=ImportError)


@pytest.fixture
def requests(monkeypatch):
    """Start a server with the buckets `clips` and `annotated`; the list of what it was asked."""
    import boto3
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()  # it would still ask the last test's server
    asked: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: asked.append(record.getMessage())
    log = logging.getLogger("werkzeug")
    log.addHandler(handler)
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://{}:{}".format(*server.get_host_and_port()))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalr-secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    for bucket in ("clips", "annotated"):
        boto3.client("s3").create_bucket(Bucket=bucket)
    yield asked
    server.stop()
    log.removeHandler(handler)


@pytest.fixture
def mixed(tmp_path, requests):
    mixed_folder(tmp_path / "in")
    store = Store("s3://clips/night")
    for path in (tmp_path / "in").rglob("*"):
        if path.is_file():
            store.write(path.relative_to(tmp_path / "in").as_posix(), path.read_bytes())
    return tmp_path / "in"


def downloaded(address, folder):
    store = Store(address)
    for name, _, _ in store.walk():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(store.read(name))
    return contents(folder, fingerprint=False)


@pytest.mark.slow
def test_a_bucket_is_annotated_as_a_folder_is_and_listed_once(mixed, requests, tmp_path):
    job(mixed, tmp_path / "folder")
    requests.clear()
    summary = job("s3://clips/night", "s3://annotated/night")
    assert summary.states == {"done": 4, "partial": 2, "failed": 2}
    listings = [line for line in requests if "list-type=2" in line and "max-keys=1" not in line]
    assert not any("/annotated" in line for line in listings)
    assert len(listings) == len(set(listings)) == 3, listings  # a page for each folder
    assert downloaded("s3://annotated/night", tmp_path / "bucket") == contents(
        tmp_path / "folder", fingerprint=False
    )

    written = len([line for line in requests if "PUT /annotated" in line])
    again = job("s3://clips/night", "s3://annotated/night")
    assert again.finished_before == 6 and again.states == summary.states
    renewed = [line for line in requests if "PUT /annotated" in line][written:]
    assert all(".job.json" in line or "ledger" in line or "summary" in line for line in renewed)


@pytest.mark.slow
def test_workers_of_a_cluster_share_a_bucket(mixed, requests, tmp_path):
    pytest.importorskip("ray")
    job(mixed, tmp_path / "folder")
    job("s3://clips/night", "s3://annotated/night", pool=RayPool, address="local", actors=2)
    assert downloaded("s3://annotated/night", tmp_path / "bucket") == contents(
        tmp_path / "folder", fingerprint=False
    )
    rows = Store("s3://annotated/night").read("ledger.jsonl").decode()
    assert "secret" not in rows and len(rows.splitlines()) == 8
    assert all(json.loads(line)["state"] for line in rows.splitlines())


def test_a_bucket_that_is_not_there_is_one_sentence(requests):
    with pytest.raises(MediaError, match="s3://nothing"):
        list(Store("s3://nothing/clips").walk())


def test_a_server_that_is_not_there_is_one_sentence(requests, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(MediaError, match="s3://clips/night cannot be used"):
        list(Store("s3://clips/night").walk())
    with pytest.raises(MediaError, match="s3://annotated cannot be used"):
        job("s3://clips/night", "s3://annotated")
