"""Downloads over a bad line: checked, continued, begun again, given up with one sentence."""

import io
import json
import logging
import shutil
import traceback
import zipfile

import pytest
import requests

from persondet.data.fetch import archive, roboflow_link, transfer
from persondet.data.fetch.transfer import LinkRefusedError, download_export, fetch, partial_download
from persondet.errors import DatasetError, OutputExistsError, PersondetError
from tests.data.fetch.conftest import KEY, SIGNATURE, contents

PATH = "/storage/export.zip"


@pytest.fixture(autouse=True)
def waits(monkeypatch):
    """Wait for nothing; collects how long it would have been."""
    waited = []
    monkeypatch.setattr(transfer, "sleep", waited.append)
    monkeypatch.setattr(roboflow_link, "SILENCE", 0.15)
    return waited


@pytest.fixture
def get(roboflow, tmp_path):
    """Download the server's zip by the given answers, and return its bytes."""

    def go(*answers, link="", **named):
        roboflow.files = list(answers)
        with partial_download(tmp_path / "out", "one") as partial:
            fetch(link or roboflow.link, partial, "it", **named)
            return partial.archive.read_bytes()

    return go


def fails(get, *answers, error=DatasetError, **named):
    with pytest.raises(error) as caught:
        get(*answers, **named)
    text = str(caught.value)
    assert "127.0.0.1" not in text and "storage" not in text
    assert "\n" not in text and text.endswith(".")
    return text


def ranges(roboflow):
    return [served.headers.get("Range", "") for served in roboflow.asked]


def test_a_plain_download(get, roboflow, tmp_path, monkeypatch, waits):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    steps = []
    answers = (f"redirect {roboflow.link}", "whole")
    assert get(*answers, progress=lambda *step: steps.append(step)) == roboflow.content
    assert steps[-1] == (len(roboflow.content), len(roboflow.content)) and not waits
    for served in roboflow.asked:
        assert served.headers["Accept-Encoding"] == "identity"
        assert "Authorization" not in served.headers


@pytest.mark.parametrize(
    ("answers", "etag", "expected", "asked"),
    [
        (("cut 1000", "cut 500", "whole"), True, [1, 1], ["", "bytes=999-", "bytes=1498-"]),
        (("cut 1000", "no-range"), True, [1], ["", "bytes=999-"]),
        (("cut 1000", "part 500", "whole"), True, [1, 1], ["", "bytes=999-", "bytes=1498-"]),
        (("cut 1000", "wrong-range", "whole"), True, [1, 0], ["", "bytes=999-", ""]),
        (("500", "503 7", "429", "whole"), True, [1, 7, 4], [""] * 4),
        # Nothing says that it is cut off but the zip itself.
        (("no-length 900", "no-length"), True, [1], ["", "bytes=899-"]),
        # Without an ETag a server is not trusted to continue.
        (("cut 1000", "whole"), False, [1], ["", ""]),
    ],
)
def test_a_download_comes_through(get, roboflow, waits, answers, etag, expected, asked):
    roboflow.etag = roboflow.etag if etag else ""
    assert get(*answers) == roboflow.content
    assert waits == expected and ranges(roboflow) == asked
    for served in roboflow.asked:
        assert served.headers.get("If-Range") == ('"one"' if "Range" in served.headers else None)


def test_new_bytes_renew_the_patience_and_the_next_call_goes_on(get, roboflow, waits, tmp_path):
    fails(get, *["cut 100"] * 10, "500")
    assert set(waits[:10]) == {1.0}
    for first in (990, len(roboflow.content) - 1):
        assert get("whole") == roboflow.content
        assert ranges(roboflow)[-1] == f"bytes={first}-"


@pytest.mark.parametrize("damage", ["state", "archive", "identity"])
def test_a_partial_download_without_its_other_half_is_none(get, roboflow, tmp_path, damage):
    fails(get, "cut 1000", "500")
    folder = tmp_path / ".out.download"
    if damage == "state":
        (folder / "state.json").write_text("{")
    elif damage == "archive":
        (folder / "export.zip").unlink()
        (folder / "export.zip").symlink_to("/etc/hostname")
    else:
        with partial_download(tmp_path / "out", "two"):
            pass
    assert get("whole") == roboflow.content
    assert ranges(roboflow)[-1] == ""


@pytest.mark.parametrize("answers", [("whole",), ("any-range", "whole")])
def test_a_file_that_changed_begins_again(get, roboflow, answers):
    """Also when the server looks at Range only: its answer says that the file is another one."""
    fails(get, "cut 1000", "500")
    roboflow.etag, roboflow.content = '"two"', b"PK\3\4?" + roboflow.content[5:]
    assert get(*answers) == roboflow.content


@pytest.mark.parametrize(
    ("answers", "words", "times"),
    [
        (["500"], "download of it broke off: the server answers 500; run the command", 5),
        (["429 3600"], "answers 429", 1),
        (["410"], "is not served", 1),
        (["hang"], "does not answer", 5),
        (["redirect"], "in a circle", 6),
        (["redirect file:///etc/hostname"], "address that is not https", 1),
        (["redirect http://[::1"], "address that is not https", 1),
    ],
)
def test_a_fault_that_stays(get, roboflow, tmp_path, answers, words, times):
    error = LinkRefusedError if "not served" in words else DatasetError
    text = fails(get, *answers, error=error)
    assert words in text and "hostname" not in text
    assert roboflow.times(PATH) == times
    assert not (tmp_path / ".out.download").exists()


def test_only_http_and_never_from_https_to_it(get, roboflow, monkeypatch):
    assert "no connection" in fails(get, "whole", link="http://127.0.0.1:9/storage?sig=1")

    def send(adapter, request, **_):
        assert request.url == "https://x/y"
        answer = requests.Response()
        answer.status_code, answer.headers["Location"], answer.request = 302, roboflow.link, request
        answer.url, answer.raw = request.url, io.BytesIO()
        return answer

    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", send)
    for link in ("https://x/y", "file:///etc/hostname", "ftp://x/y", "/etc/hostname"):
        assert "not https" in fails(get, "whole", link=link)
    assert not roboflow.asked


def test_too_large_and_a_full_disk(get, roboflow, tmp_path, monkeypatch):
    steps = []
    monkeypatch.setattr(archive, "MAX_BYTES", 1000)
    assert "is larger than" in fails(get, "whole", progress=lambda *step: steps.append(step))
    assert not steps  # by what it announces
    assert "is larger than" in fails(get, "no-length")
    monkeypatch.undo()
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert "MiB left" in fails(get, "whole", error=OutputExistsError)


def test_two_downloads_at_once(get, tmp_path):
    with partial_download(tmp_path / "out", "one"):
        assert "being downloaded by another" in fails(get, "whole", error=OutputExistsError)
    assert not any(tmp_path.iterdir())


# The whole road from Roboflow to a folder.


def download(tmp_path, version=3, **named):
    named = {"timeout": 20.0, **named}
    return download_export("harbour", "people", version, tmp_path / "out", **named)


def names(folder):
    return [path.name for path in folder.iterdir()]


def test_an_expired_link_is_asked_for_again_once(roboflow, tiny_export, tmp_path):
    roboflow.files = ["cut 1000", "403", "whole"]
    assert download(tmp_path) == {"train": 6, "valid": 3, "test": 3}
    assert contents(tmp_path / "out") == contents(tiny_export)
    assert roboflow.times("/harbour/people") == 2
    assert roboflow.asked[-1].headers["Range"] == "bytes=999-"  # and goes on where it stopped
    roboflow.files = ["403"]
    with pytest.raises(DatasetError, match="is not served"):
        download(tmp_path, overwrite=True)
    assert roboflow.times("/harbour/people") == 4 and names(tmp_path) == ["out"]


@pytest.mark.parametrize("other", [{}, {"dataset_format": "coco"}])
def test_an_interrupted_download_is_no_dataset_and_goes_on(roboflow, tmp_path, other):
    def stop(*_):
        raise KeyboardInterrupt

    roboflow.files = ["cut 1000", "500"]
    with pytest.raises(KeyboardInterrupt):
        download(tmp_path, progress=stop)
    assert names(tmp_path) == [".out.download"]
    roboflow.files = ["whole"]
    download(tmp_path, **other)
    assert names(tmp_path) == ["out"]
    assert roboflow.asked[-1].headers.get("Range") == (None if other else "bytes=999-")


def packed(image):
    """A zip of one json, which lists `image`."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        lists = {"images": [{"file_name": image}], "annotations": [], "categories": []}
        coco = json.dumps(lists)
        archive.writestr("train/_annotations.coco.json", coco)
    return content.getvalue()


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"\x1f\x8b gzip", "is no zip"),
        (b"PK\3\4 and nothing", "is cut off"),
        (packed("../x.jpg"), "leads out of its"),
    ],
)
def test_a_zip_that_is_refused_is_not_kept(roboflow, tmp_path, content, match):
    roboflow.content = content
    with pytest.raises(DatasetError, match=f"harbour/people version 3.*{match}"):
        download(tmp_path)
    assert not any(tmp_path.iterdir())


def test_missing_images_leave_the_zip_to_the_user(roboflow, tmp_path):
    roboflow.content = packed("a.jpg")
    with pytest.raises(DatasetError, match="1 of the 1 images .* the zip is kept as") as caught:
        download(tmp_path)
    kept = tmp_path / ".out.download/export.zip"
    assert str(kept) in str(caught.value) and kept.read_bytes() == roboflow.content
    assert names(tmp_path) == [".out.download"]


SECRETS = (KEY, SIGNATURE, "X-Goog-Signature", "/storage/")
# How the server answers the request for the zip, or what goes wrong in looking it up.
FATES = [
    *("whole", "key in the server's words", "no Roboflow"),
    *("403", "cut 1000,500", "hang", "html"),
    f"redirect file:///storage/?X-Goog-Signature={SIGNATURE}",
    f"redirect http://127.0.0.1:9/storage/?X-Goog-Signature={SIGNATURE}",
]


def told(error):
    """Everything that an exception holds: its chain, also what `from None` hides, and its state."""
    text, one = "".join(traceback.format_exception(error)), error
    while one is not None:
        text += f"{one!r} {one} {one.args} {vars(one)} {getattr(one, '__notes__', '')}"
        one = one.__cause__ or one.__context__
    return text


@pytest.mark.parametrize("fate", FATES)
def test_nobody_learns_the_key_or_the_link(roboflow, tmp_path, monkeypatch, capfd, caplog, fate):
    monkeypatch.setattr(transfer, "_TRIES", 2)
    roboflow.files = fate.split(",")
    if fate == "key in the server's words":
        roboflow.api["export"] = (402, {"error": {"message": f"{KEY} used {roboflow.link} up"}})
    elif fate == "no Roboflow":
        monkeypatch.setenv("API_URL", "http://127.0.0.1:9/storage/")
        monkeypatch.setattr(roboflow_link, "_POLL", 0.0)
    text = ""
    with caplog.at_level(logging.DEBUG):
        try:
            download(tmp_path)
            assert fate == "whole"
        except PersondetError as error:
            text = told(error)
            assert fate != "whole"
    out, err = capfd.readouterr()
    text += out + err + caplog.text + "".join(str(vars(record)) for record in caplog.records)
    text += "".join(f"{name} {data.decode('latin-1')}" for name, data in contents(tmp_path).items())
    assert not [secret for secret in SECRETS if secret.lower() in text.lower()]
    # The HTTP library would have logged the link: the look above is where there is something.
    if fate == "whole":
        with caplog.at_level(logging.DEBUG):
            requests.get(roboflow.link, timeout=5)
        assert SIGNATURE in caplog.text
