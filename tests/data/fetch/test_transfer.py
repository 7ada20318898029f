"""Downloads over a bad line: checked, continued, begun again, given up with one sentence."""

from __future__ import annotations

import shutil
import time

import pytest

from persondet.data.fetch.partial_download import PartialDownload
from persondet.data.fetch.transfer import LinkRefusedError, Patience, fetch
from persondet.errors import DatasetError, OutputExistsError


@pytest.fixture
def get(roboflow, tmp_path):
    """Download the server's zip by the given answers, and return its bytes and the waits."""

    def go(*answers: str, link: str = "", **named) -> tuple[bytes, list[float]]:
        waits: list[float] = []
        roboflow.files = list(answers)
        with PartialDownload(tmp_path / "out", "one") as partial:
            fetch(
                link or roboflow.link,
                partial,
                label="it",
                patience=Patience(connect=1.0, silence=0.3, sleep=waits.append),
                **named,
            )
            return partial.archive.read_bytes(), waits

    return go


def fails(get, *answers: str, error: type = DatasetError, **named) -> str:
    with pytest.raises(error) as caught:
        get(*answers, **named)
    text = str(caught.value)
    assert "127.0.0.1" not in text and "storage" not in text
    assert "\n" not in text and text.endswith(".")
    return text


def ranges(roboflow) -> list[str]:
    return [served.headers.get("Range", "") for served in roboflow.asked]


def test_a_plain_download(get, roboflow):
    steps: list[tuple[int, int | None]] = []
    assert get("whole", progress=lambda *step: steps.append(step)) == (roboflow.content, [])
    assert steps[-1] == (len(roboflow.content), len(roboflow.content))
    assert roboflow.asked[0].headers["Accept-Encoding"] == "identity"
    assert "Authorization" not in roboflow.asked[0].headers


def test_without_an_announced_length(get, roboflow):
    assert get("no-length")[0] == roboflow.content
    # Cut off, nothing says so but the zip itself.
    roboflow.etag = '"two"'
    content, waits = get("no-length 900", "whole")
    assert content == roboflow.content and len(waits) == 1


def test_a_cut_download_goes_on_where_it_stopped(get, roboflow):
    content, waits = get("cut 1000", "cut 500", "whole")
    assert content == roboflow.content and waits == [1.0, 1.0]
    assert ranges(roboflow) == ["", "bytes=999-", "bytes=1498-"]
    assert {served.headers.get("If-Range") for served in roboflow.asked} == {None, '"one"'}


def test_the_next_call_goes_on_too(get, roboflow, tmp_path):
    fails(get, "cut 1000", "500")
    assert (tmp_path / ".out.download/export.zip").stat().st_size == 1000
    assert get("whole")[0] == roboflow.content
    assert ranges(roboflow)[-1] == "bytes=999-"


def test_a_file_that_is_whole_is_only_looked_at(get, roboflow):
    get("whole")
    assert get("whole")[0] == roboflow.content
    assert ranges(roboflow)[-1] == f"bytes={len(roboflow.content) - 1}-"


def test_another_download_is_never_continued(get, roboflow, tmp_path):
    fails(get, "cut 1000", "500")
    with PartialDownload(tmp_path / "out", "two") as partial:
        assert partial.size == 0 and partial.validator == ""
    assert not (tmp_path / ".out.download").exists()


@pytest.mark.parametrize("damage", ["state", "archive"])
def test_a_partial_download_without_its_other_half_is_none(get, roboflow, tmp_path, damage):
    fails(get, "cut 1000", "500")
    if damage == "state":
        (tmp_path / ".out.download/state.json").write_text("{")
    else:
        (tmp_path / ".out.download/export.zip").unlink()
        (tmp_path / ".out.download/export.zip").symlink_to("/etc/hostname")
    assert get("whole")[0] == roboflow.content
    assert ranges(roboflow)[-1] == ""


def test_a_server_that_knows_no_ranges(get, roboflow):
    assert get("cut 1000", "no-range")[0] == roboflow.content


def test_a_server_without_an_etag_is_not_trusted_to_continue(get, roboflow):
    roboflow.etag = ""
    assert get("cut 1000", "whole")[0] == roboflow.content
    assert ranges(roboflow) == ["", ""]


def test_a_part_of_the_range_is_not_the_end(get, roboflow):
    content, waits = get("cut 1000", "part 500", "whole")
    assert content == roboflow.content and len(waits) == 2


def test_a_wrong_range_begins_again(get, roboflow):
    content, waits = get("cut 1000", "wrong-range", "whole")
    assert content == roboflow.content and waits == [1.0, 0.0]
    assert ranges(roboflow) == ["", "bytes=999-", ""]


def test_a_file_that_changed_begins_again(get, roboflow):
    fails(get, "cut 1000", "500")
    roboflow.etag, roboflow.content = '"two"', b"PK\3\4" + roboflow.content
    assert get("whole")[0] == roboflow.content


def test_an_etag_that_changes_in_spite_of_if_range(get, roboflow):
    """A server that looks at Range only: its answer says that the file is another one."""
    fails(get, "cut 1000", "500")
    roboflow.etag, roboflow.content = '"two"', b"PK\3\4" + roboflow.content[4:-1] + b"?"
    assert get("any-range", "whole")[0] == roboflow.content
    assert ranges(roboflow)[-2:] == ["bytes=999-", ""]


def test_a_fault_of_the_server_passes(get, roboflow):
    content, waits = get("500", "503 7", "429", "whole")
    assert content == roboflow.content and waits == [1.0, 7.0, 4.0]


def test_a_fault_that_stays(get, roboflow):
    text = fails(get, "500")
    assert text.startswith("the download of it broke off: the server answers 500; run the command")
    assert roboflow.times("/storage/export.zip") == 5
    assert "answers 429" in fails(get, "429 3600")
    assert roboflow.times("/storage/export.zip") == 6


def test_new_bytes_renew_the_patience(get, roboflow):
    size = len(roboflow.content)
    content, waits = get(*[f"cut {size // 12}"] * 14, "whole")
    assert content == roboflow.content and set(waits) == {1.0}


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_a_link_that_is_not_served_any_more(get, roboflow, status):
    assert f"({status})" in fails(get, str(status), error=LinkRefusedError).replace(
        "the server answers ", ""
    )
    assert roboflow.times("/storage/export.zip") == 1


def test_a_status_that_means_nothing(get, roboflow):
    assert "cannot be downloaded: the server answers 418" in fails(get, "418")


def test_a_web_page_with_status_200(get, roboflow, tmp_path):
    text = fails(get, "html")
    assert "a web page instead of the zip" in text
    assert not (tmp_path / ".out.download").exists()


def test_something_else_with_status_200(get, roboflow):
    roboflow.content = b"\x1f\x8b gzip"
    assert "is no zip" in fails(get, "whole")


def test_a_server_that_hangs(get, roboflow):
    start = time.monotonic()
    assert "does not answer" in fails(get, "hang")
    assert time.monotonic() - start < 10


def test_no_server(get, roboflow):
    assert "no connection" in fails(get, "whole", link="http://127.0.0.1:9/storage?sig=1")


def test_redirects(get, roboflow):
    assert get(f"redirect {roboflow.link}", "whole")[0] == roboflow.content
    assert get("redirect export.zip?" + roboflow.link.partition("?")[2], "whole")[0]
    assert "in a circle" in fails(get, "redirect")


@pytest.mark.parametrize("target", ["file:///etc/hostname", "ftp://x/y", "http://[::1"])
def test_a_redirect_to_something_else(get, roboflow, target):
    text = fails(get, f"redirect {target}", "redirect")
    assert "address that is" in text and "hostname" not in text


def test_never_from_https_to_http():
    from persondet.data.fetch.transfer import _Try

    class Session:
        def get(self, *_, **__):
            return type(
                "R",
                (),
                {"status_code": 302, "headers": {"Location": "http://x/"}, "close": lambda _: None},
            )()

    attempt = _Try(
        "https://x/y", PartialDownload("out", ""), "it", Patience(), most_bytes=None, progress=None
    )
    assert "not https" in attempt._open(Session()).what


@pytest.mark.parametrize("link", ["file:///etc/hostname", "ftp://x/y", "/etc/hostname"])
def test_only_http(get, roboflow, link):
    assert "not https" in fails(get, "whole", link=link)


def test_too_large(get, roboflow, tmp_path):
    steps: list[tuple[int, int | None]] = []
    text = fails(get, "whole", most_bytes=1000, progress=lambda *step: steps.append(step))
    assert "is larger than" in text and not steps  # by what it announces
    assert "is larger than" in fails(get, "no-length", most_bytes=1000)
    assert not (tmp_path / ".out.download").exists()


def test_a_full_disk(get, roboflow, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    assert "MiB left" in fails(get, "whole", error=OutputExistsError)


def test_two_downloads_at_once(tmp_path):
    with (
        PartialDownload(tmp_path / "out", "one"),
        pytest.raises(OutputExistsError, match="being downloaded by another"),
    ):
        PartialDownload(tmp_path / "out", "one").__enter__()
    assert not any(tmp_path.iterdir())


def test_credentials_of_netrc_do_not_go_along(get, roboflow, tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    get("whole")
    assert "Authorization" not in roboflow.asked[0].headers
