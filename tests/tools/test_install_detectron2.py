"""The installer, on a small stand-in for the pinned wheel; the real thing is the slow test."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import detectron2_wheel as wheel_module
import install_detectron2 as installer
import pytest

SOURCE_FILES = {
    "LabGym/__init__.py": b"raise RuntimeError('not ours')\n",
    "LabGym/detectron2/__init__.py": b"# Copyright\nfrom LabGym.detectron2.x import y\n",
    "LabGym/detectron2/layers/mask_ops.py": b"# Copyright\nmask = np.array(mask, copy=False)\n",
    "LabGym/detectron2/data/common.py": (
        b"# Copyright\nimport LabGym.detectron2.x as x\n"
        b"cur_idx = self._rng.sample(self._fallback_candidates, k=1)[0]\n"
    ),
    "LabGym/detectron2/model_zoo/configs/a.yaml": b"_BASE_: b.yaml\n",
    "LabGym/detectron2/notes.bin": b"LabGym.detectron2",
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "labgym.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in SOURCE_FILES.items():
            archive.writestr(name, data)
    return path


@pytest.fixture
def pinned(source: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The stand-in, with its own digests in the place of the real ones."""
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    tree = wheel_module.tree_digest(wheel_module.read_tree(source))
    monkeypatch.setattr(installer, "SOURCE_SHA256", digest)
    monkeypatch.setattr(installer, "TREE_SHA256", tree)
    return source


def test_tree_has_the_import_name_back_and_only_source_and_configs(source: Path) -> None:
    files = wheel_module.read_tree(source)
    assert sorted(files) == [
        "detectron2/__init__.py",
        "detectron2/data/common.py",
        "detectron2/layers/mask_ops.py",
        "detectron2/model_zoo/configs/a.yaml",
    ]
    assert files["detectron2/__init__.py"] == b"# Copyright\nfrom detectron2.x import y\n"
    assert not any(b"LabGym" in data for data in files.values())


def test_digest_sees_content_and_names_but_not_order() -> None:
    files = {"a": b"1", "b": b"2"}
    digest = wheel_module.tree_digest(files)
    assert wheel_module.tree_digest({"b": b"2", "a": b"1"}) == digest
    assert wheel_module.tree_digest({"a": b"2", "b": b"1"}) != digest
    assert wheel_module.tree_digest({"a": b"1", "c": b"2"}) != digest
    assert wheel_module.tree_digest({"a": b"1"}) != digest


def test_mend_changes_two_lines_and_marks_their_files(source: Path) -> None:
    before = wheel_module.read_tree(source)
    after = wheel_module.mend(before)
    changed = [name for name in before if before[name] != after[name]]
    assert sorted(changed) == ["detectron2/data/common.py", "detectron2/layers/mask_ops.py"]
    lines = after["detectron2/layers/mask_ops.py"].decode().splitlines()
    assert lines[0] == "# Copyright"
    assert lines[1].startswith("# Changed for persondet:")
    assert lines[2] == "mask = np.asarray(mask)"
    assert b".sample(list(self._fallback_candidates), k=1)" in after["detectron2/data/common.py"]


def test_mend_refuses_a_file_without_its_line() -> None:
    with pytest.raises(ValueError, match=r"layers/mask_ops.py does not hold"):
        wheel_module.mend({"detectron2/layers/mask_ops.py": b"# Copyright\n"})


def build(source: Path, folder: Path) -> Path:
    files = wheel_module.mend(wheel_module.read_tree(source))
    return wheel_module.build_wheel(files, b"Apache License", folder)


def test_wheel_record_lists_every_file_with_its_digest(source: Path, tmp_path: Path) -> None:
    wheel = build(source, tmp_path / "built")
    assert wheel.name == "detectron2-0.6+b7ff946-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        info = "detectron2-0.6+b7ff946.dist-info"
        rows = [line.split(",") for line in archive.read(f"{info}/RECORD").decode().splitlines()]
        assert sorted(row[0] for row in rows) == sorted(archive.namelist())
        for name, digest, size in rows:
            if name == f"{info}/RECORD":
                assert (digest, size) == ("", "")
                continue
            data = archive.read(name)
            expected = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode()
            assert digest == "sha256=" + expected.rstrip("=")
            assert int(size) == len(data)
        assert archive.read(f"{info}/LICENSE") == b"Apache License"


def test_wheel_metadata_names_licence_changes_and_no_pytorch(source: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(build(source, tmp_path)) as archive:
        text = archive.read("detectron2-0.6+b7ff946.dist-info/METADATA").decode()
    metadata = Parser().parsestr(text)
    assert metadata["Version"] == "0.6+b7ff946"
    assert metadata["License"] == "Apache-2.0"
    required = metadata.get_all("Requires-Dist") or []
    assert "setuptools<81" in required
    assert not any(name.startswith("torch") for name in required)
    body = str(metadata.get_payload())
    for change in wheel_module.MENDS:
        assert change.file in body and change.new in body


def test_same_source_gives_the_same_wheel(source: Path, tmp_path: Path) -> None:
    assert build(source, tmp_path / "a").read_bytes() == build(source, tmp_path / "b").read_bytes()


def test_pip_installs_and_uninstalls_the_wheel(source: Path, tmp_path: Path) -> None:
    wheel, target = build(source, tmp_path), tmp_path / "target"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    flags = ["--no-deps", "--no-index", "--no-compile", "--quiet", "--target", str(target)]
    subprocess.run([*pip, "install", *flags, str(wheel)], check=True, capture_output=True)
    listed = subprocess.run(
        [*pip, "list", "--format=json", "--path", str(target)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert json.loads(listed.stdout) == [{"name": "detectron2", "version": "0.6+b7ff946"}]
    assert (target / "detectron2" / "model_zoo" / "configs" / "a.yaml").is_file()


def run_main(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = installer.main(arguments)
    return code, capsys.readouterr().err


def test_wheel_only_needs_no_network(
    pinned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _ = run_main(capsys, "--from-file", str(pinned), "--wheel-only", str(tmp_path / "out"))
    assert code == 0
    assert [path.suffix for path in (tmp_path / "out").iterdir()] == [".whl"]


@pytest.mark.parametrize(
    ("name", "out", "tree", "says"),
    [
        ("foreign.whl", "out", None, "the file has SHA-256"),
        ("labgym.whl", "out", "0" * 64, "the tree has digest"),
        ("no.whl", "out", None, "take Detectron2 out of no.whl"),
        ("labgym.whl", "labgym.whl/out", None, "mend and build the wheel"),
    ],
)
def test_a_failure_names_the_step_and_writes_nothing(
    name: str,
    out: str,
    tree: str | None,
    says: str,
    pinned: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = pinned.parent
    (folder / "foreign.whl").write_bytes(pinned.read_bytes() + b"x")
    monkeypatch.setattr(installer, "TREE_SHA256", tree or installer.TREE_SHA256)
    words = ("--from-file", str(folder / name), "--wheel-only", str(folder / out))
    code, error = run_main(capsys, *words)
    assert code == 2
    assert says in error and "try next" in error
    assert not (folder / "out").exists()


def fake_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, message: str) -> None:
    """Let an interpreter whose pip fails with `message` stand where this one stands."""
    script = tmp_path / "python"
    script.write_text(f"#!/bin/sh\necho '{message}' >&2\nexit 1\n")
    script.chmod(0o755)
    monkeypatch.setattr(installer.sys, "executable", str(script))


@pytest.mark.parametrize(
    ("message", "advice"),
    [
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM", "pip cache purge"),
        ("ERROR: No matching distribution found for labgym", "--from-file"),
        ("ERROR: Could not install: [Errno 28] No space left on device", "free some disk space"),
        ("ERROR: [Errno 13] Permission denied: /usr/lib", "virtual environment"),
        ("error: externally-managed-environment", "virtual environment"),
        ("ERROR: something new", "run pip yourself"),
    ],
)
def test_pip_failure_says_what_to_try(
    message: str,
    advice: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fake_pip(tmp_path, monkeypatch, message)
    code, error = run_main(capsys, "--wheel-only", str(tmp_path / "out"))
    assert code == 2
    assert "download labgym==3.1.2" in error
    assert message in error and advice in error


def test_interpreter_without_pip_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_pip(tmp_path, monkeypatch, "No module named pip")
    code, error = run_main(capsys)
    assert code == 2
    assert "has no pip" in error and "ensurepip" in error


def test_broken_build_of_somebody_else_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    def another_version(*_: str) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([], 0, stdout="0.6+cu118\n", stderr="")

    monkeypatch.setattr(installer, "run_python", another_version)
    with pytest.raises(installer.StepError, match=r"(?s)0\.6\+cu118 .*--force"):
        installer.refuse_foreign("undefined symbol")


def test_working_compiled_build_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"version": "0.6", "file": "/opt/d2/detectron2/__init__.py", "compiled": True}
    monkeypatch.setattr(installer, "find_detectron2", lambda: (found, ""))
    monkeypatch.setattr(installer, "run_pip", lambda *_: pytest.fail("pip was called"))
    assert installer.main([]) == 0


@pytest.mark.slow
def test_detectron2_of_this_environment_is_found_working() -> None:
    detectron2 = pytest.importorskip("detectron2")
    found, reason = installer.find_detectron2()
    assert found is not None, reason
    assert found["file"] == detectron2.__file__


def test_masks_are_pasted_where_numpy_2_must_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    mask_ops = pytest.importorskip("detectron2.layers.mask_ops")
    import numpy as np
    import torch
    from PIL import Image

    class Picture:
        """An image whose memory numpy cannot borrow: there numpy 2 refuses `copy=False`."""

        def __init__(self, image: Image.Image) -> None:
            self.image = image

        def resize(self, size: tuple[int, int], resample: int) -> Picture:
            return Picture(self.image.resize(tuple(map(int, size)), resample=resample))

        def __array__(self, dtype: object = None, copy: bool | None = None) -> np.ndarray:
            if copy is False:
                raise ValueError("Unable to avoid copy while creating an array as requested.")
            return np.array(self.image)

    class Pictures:
        BILINEAR = Image.BILINEAR

        @staticmethod
        def fromarray(array: np.ndarray) -> Picture:
            return Picture(Image.fromarray(array))

    mask = torch.zeros(28, 28)
    mask[:14] = 1  # the upper half of the box is the object
    box = torch.tensor([2.0, 4.0, 10.0, 12.0])
    plain = np.asarray(mask_ops.paste_mask_in_image_old(mask, box, 16, 20, 0.5))
    assert plain.shape == (16, 20)
    assert plain[5:7, 3:9].all()
    assert plain.sum() == plain[4:9, 2:11].sum() > 0
    monkeypatch.setattr(mask_ops, "Image", Pictures)
    copied = np.asarray(mask_ops.paste_mask_in_image_old(mask, box, 16, 20, 0.5))
    assert (copied == plain).all()


def test_mapper_that_returns_none_gets_another_item() -> None:
    common = pytest.importorskip("detectron2.data.common")
    dataset = common.MapDataset(list(range(10)), lambda item: item if item == 5 else None)
    assert dataset[5] == 5
    assert dataset[3] == 5


@pytest.mark.slow
def test_pinned_wheel_becomes_the_wheel_that_is_installed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, error = run_main(capsys, "--wheel-only", str(tmp_path))
    if "no matching distribution" in error.lower() or "connection" in error.lower():
        pytest.skip("the package index cannot be reached")
    assert code == 0, error
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as archive:
        names = archive.namelist()
    core = [
        name
        for name in names
        if name.endswith(".py") and "/configs/" not in name and "/projects/" not in name
    ]
    assert len(core) == 154
    assert "detectron2/model_zoo/configs/Base-RCNN-FPN.yaml" in names
