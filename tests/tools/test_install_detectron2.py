"""The installer, on a small stand-in for the pinned wheel; the real thing is the slow test."""

import base64
import hashlib
import zipfile

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
def source(tmp_path, monkeypatch):
    """The stand-in, with its own digests in the place of the real ones."""
    path = tmp_path / "labgym.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in SOURCE_FILES.items():
            archive.writestr(name, data)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    tree = wheel_module.tree_digest(wheel_module.read_tree(path))
    monkeypatch.setattr(installer, "SOURCE_SHA256", digest)
    monkeypatch.setattr(installer, "TREE_SHA256", tree)
    return path


def test_tree_has_the_import_name_back_and_two_lines_mended(source):
    before = wheel_module.read_tree(source)
    assert sorted(before) == [
        *("detectron2/__init__.py", "detectron2/data/common.py"),
        *("detectron2/layers/mask_ops.py", "detectron2/model_zoo/configs/a.yaml"),
    ]
    assert before["detectron2/__init__.py"] == b"# Copyright\nfrom detectron2.x import y\n"
    assert not any(b"LabGym" in data for data in before.values())
    after = wheel_module.mend(before)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"detectron2/data/common.py", "detectron2/layers/mask_ops.py"}
    lines = after["detectron2/layers/mask_ops.py"].decode().splitlines()
    assert lines[0::2] == ["# Copyright", "mask = np.asarray(mask)"]
    assert lines[1].startswith("# Changed for persondet:")
    assert b".sample(list(self._fallback_candidates), k=1)" in after["detectron2/data/common.py"]


def test_wheel_record_lists_every_file_with_its_digest(source, tmp_path):
    assert installer.main(["--from-file", str(source), "--wheel-only", str(tmp_path / "o")]) == 0
    info = "detectron2-0.6+b7ff946.dist-info"
    with zipfile.ZipFile(tmp_path / "o" / "detectron2-0.6+b7ff946-py3-none-any.whl") as archive:
        rows = [line.split(",") for line in archive.read(f"{info}/RECORD").decode().splitlines()]
        assert sorted(row[0] for row in rows) == sorted(archive.namelist())
        rows.remove([f"{info}/RECORD", "", ""])
        for name, digest, size in rows:
            expected = hashlib.sha256(data := archive.read(name)).digest()
            assert digest == "sha256=" + base64.urlsafe_b64encode(expected).decode().rstrip("=")
            assert int(size) == len(data)
        assert b"Apache License" in archive.read(f"{info}/LICENSE")


@pytest.mark.parametrize(
    ("name", "out", "tree", "says"),
    [
        ("foreign.whl", "out", None, "the file has SHA-256"),
        ("labgym.whl", "out", "0" * 64, "the tree has digest"),
        ("labgym.whl", "labgym.whl/out", None, "mend and build the wheel"),
    ],
)
def test_a_failure_names_the_step_and_writes_nothing(
    name, out, tree, says, source, monkeypatch, capsys
):
    folder = source.parent
    (folder / "foreign.whl").write_bytes(source.read_bytes() + b"x")
    monkeypatch.setattr(installer, "TREE_SHA256", tree or installer.TREE_SHA256)
    words = ("--from-file", str(folder / name), "--wheel-only", str(folder / out))
    assert installer.main(words) == 2
    error = capsys.readouterr().err
    assert says in error and "try next" in error
    assert not (folder / "out").exists()


def test_mapper_that_returns_none_gets_another_item():
    common = pytest.importorskip("detectron2.data.common")
    dataset = common.MapDataset(list(range(10)), lambda item: item if item == 5 else None)
    assert dataset[3] == dataset[5] == 5
