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
def source(tmp_path):
    path = tmp_path / "labgym.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in SOURCE_FILES.items():
            archive.writestr(name, data)
    return path


@pytest.fixture
def pinned(source, monkeypatch):
    """The stand-in, with its own digests in the place of the real ones."""
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    tree = wheel_module.tree_digest(wheel_module.read_tree(source))
    monkeypatch.setattr(installer, "SOURCE_SHA256", digest)
    monkeypatch.setattr(installer, "TREE_SHA256", tree)
    return source


def test_tree_has_the_import_name_back_and_only_source_and_configs(source):
    files = wheel_module.read_tree(source)
    assert sorted(files) == [
        "detectron2/__init__.py",
        "detectron2/data/common.py",
        "detectron2/layers/mask_ops.py",
        "detectron2/model_zoo/configs/a.yaml",
    ]
    assert files["detectron2/__init__.py"] == b"# Copyright\nfrom detectron2.x import y\n"
    assert not any(b"LabGym" in data for data in files.values())


def test_mend_changes_two_lines_and_marks_their_files(source):
    before = wheel_module.read_tree(source)
    after = wheel_module.mend(before)
    changed = [name for name in before if before[name] != after[name]]
    assert sorted(changed) == ["detectron2/data/common.py", "detectron2/layers/mask_ops.py"]
    lines = after["detectron2/layers/mask_ops.py"].decode().splitlines()
    assert lines[0] == "# Copyright"
    assert lines[1].startswith("# Changed for persondet:")
    assert lines[2] == "mask = np.asarray(mask)"
    assert b".sample(list(self._fallback_candidates), k=1)" in after["detectron2/data/common.py"]


def build(source, folder):
    files = wheel_module.mend(wheel_module.read_tree(source))
    return wheel_module.build_wheel(files, b"Apache License", folder)


def test_wheel_record_lists_every_file_with_its_digest(source, tmp_path):
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


def run_main(capsys, *arguments):
    code = installer.main(arguments)
    return code, capsys.readouterr().err


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
    name, out, tree, says, pinned, monkeypatch, capsys
):
    folder = pinned.parent
    (folder / "foreign.whl").write_bytes(pinned.read_bytes() + b"x")
    monkeypatch.setattr(installer, "TREE_SHA256", tree or installer.TREE_SHA256)
    words = ("--from-file", str(folder / name), "--wheel-only", str(folder / out))
    code, error = run_main(capsys, *words)
    assert code == 2
    assert says in error and "try next" in error
    assert not (folder / "out").exists()


def test_mapper_that_returns_none_gets_another_item():
    common = pytest.importorskip("detectron2.data.common")
    dataset = common.MapDataset(list(range(10)), lambda item: item if item == 5 else None)
    assert dataset[5] == 5
    assert dataset[3] == 5
