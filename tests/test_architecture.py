"""The rules of the project's layout as code: reads the source, imports nothing of it.

A message names file and line. A rule that is in the way is changed here, with the reason.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator
from functools import cached_property
from graphlib import TopologicalSorter
from pathlib import Path

Function = ast.FunctionDef | ast.AsyncFunctionDef
ROOT = Path(__file__).resolve().parents[1]
PACKAGE, TOOLS = ROOT / "persondet", ROOT / "tools"

MAX_LINES = 600
# The installer runs before anything is installed: it has the standard library and itself.
INSTALLER = {"cli", "detectron2_wheel", "install_detectron2", "make_environment"}
EMPTY_NAMES = {"util", "utils", "helper", "helpers", "misc", "common", "manager", "stuff", "tools"}

# Files that import nothing of ours but what FOR_ALL names: each counts as a room of its own, so
# that rooms below theirs may use them. A mask, its outline and code, and the reading of an image
# file are needed everywhere.
LEAVES = {"data.image_file", "data.shapes", "inference.masks", "inference.tiles"}
# Room → the rooms it may import, each named above it. Everyone may import these:
FOR_ALL = {"errors", "files", "environment", "text"}
ROOMS: dict[str, set[str]] = {
    **{key: set() for key in (*FOR_ALL, "results", "records", "config", "solver")},
    **{key: set() for key in ("data.image_file", "data.shapes", "inference.masks")},
    "inference.tiles": {"inference.masks"},  # a detector that is scored as it is used
    "data": {"data.image_file", "data.shapes"},
    "modeling": {"inference.masks"},  # which field carries the small masks
    "checkpoint": {"modeling"},  # names of a model's parts
    "analysis": {"records"},
    "visualization": {"analysis", "data.image_file", "data.shapes", "inference.masks"},
    "evaluation": {
        *("data.image_file", "inference.masks", "inference.tiles", "modeling", "results"),
        "visualization",
    },
    "engine": {
        *("checkpoint", "config", "data", "data.image_file", "evaluation", "modeling", "results"),
        *("solver", "visualization"),
    },
    "onnx_predictor": {"inference.masks"},  # what it needs is numpy and ONNX Runtime
    "inference": {
        *("data.image_file", "inference.masks", "inference.tiles", "onnx_predictor"),
        "visualization",  # people are hidden before an image is written
        # The predictor rebuilds a run's model and names its classes.
        *("checkpoint", "config", "data", "engine", "modeling", "records", "results"),
    },
    "export": {"data", "engine", "inference", "inference.masks", "onnx_predictor"},
    "video": {
        *("analysis", "inference", "modeling", "records", "inference.masks", "visualization"),
    },
    "batch": {"data.image_file", "inference", "records", "video", "visualization"},
    "sample": {"data.shapes", "inference.masks", "video"},
    "report": {"analysis", "records", "results"},
    "page": {
        *("analysis", "batch", "data.image_file", "inference", "records", "report", "results"),
        *("video", "visualization"),
    },
    "labelling": {
        *("data", "data.image_file", "data.shapes", "engine", "evaluation", "inference"),
        *("inference.masks", "report", "video", "visualization"),
    },
    "demo": {
        *("config", "data", "engine", "evaluation", "inference", "records", "report", "results"),
        *("sample", "video", "visualization"),
    },
}

# What may be imported or named in one place only → where: folders or files of the package.
OWNERS = {
    "import av": ("video/",),
    "import matplotlib": ("report/plots/", "report/dataset_page.py", "report/pdf.py"),
    "import albumentations": ("data/",),
    "import argparse": (),
    "import jinja2": ("report/build.py",),
    "import reportlab": ("report/pdf.py",),
    "import timm": (
        *("config/check.py", "modeling/backbones.py", "modeling/cpu.py"),
        "checkpoint/conventions.py",
    ),
    "import ray": ("batch/",),
    "import fsspec": ("batch/",),
    "import huggingface_hub": ("checkpoint/conventions.py",),
    "import safetensors": ("checkpoint/model_file.py",),
    "import pickle": ("checkpoint/restricted_pickle.py",),
    "import torch": (
        *(
            "batch/",
            "checkpoint/",
            "data/",
            "engine/",
            "evaluation/",
            "inference/",
            "modeling/",
            "solver/",
        ),
        *("video/", "visualization/", "export.py"),
    ),
    "import gradio": ("page/layout.py", "page/server.py"),
    "import fastapi": ("page/server.py",),
    "import uvicorn": ("page/server.py",),
    "import onnx": ("export.py",),
    "import onnxruntime": ("onnx_predictor.py",),
    "DatasetCatalog": ("data/register.py",),
    "MetadataCatalog": ("data/register.py",),
    "requires_grad": ("modeling/freeze.py",),
    "requires_grad_": ("modeling/freeze.py",),
    "print": (),
    "input": (),
    "SystemExit": (),
    "sys.exit": (),
    "torch.save": ("checkpoint/",),
    "torch.load": ("checkpoint/",),
}
FORBIDDEN_CALLS = {
    *("eval", "exec", "os.system", "yaml.load", "yaml.full_load", "yaml.unsafe_load"),
    *("pickle.load", "pickle.loads", "marshal.loads", "shelve.open", "tempfile.mktemp"),
}


def room_of(module: str) -> str:
    """Return the room of a module of the package: a leaf's own name, else its folder's."""
    inner = module.partition(".")[2]
    return inner if inner in LEAVES else inner.partition(".")[0]


class Source:
    """One Python file: its paths (from the root and inside the package), module, room, nodes."""

    def __init__(self, path: Path):
        self.path, self.text = path, path.read_text(encoding="utf-8")
        self.name = path.relative_to(ROOT).as_posix()
        self.inner = self.name.removeprefix("persondet/")
        self.module = self.name.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
        self.room = room_of(self.module)  # empty for the package's own __init__
        self.tree = ast.parse(self.text, self.name)
        self.nodes = list(_running(self.tree))

    @cached_property
    def imports(self) -> list[tuple[str, int]]:
        """The (module, line) of each import, wherever it stands in the file."""
        found = []
        for node in self.nodes:
            if isinstance(node, ast.Import):
                found += [(alias.name, node.lineno) for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert not node.level, f"{self.name}:{node.lineno} a relative import"
                names = [f"{node.module}.{alias.name}" for alias in node.names]
                found += [(n if n in MODULES else str(node.module), node.lineno) for n in names]
        return found

    def uses(self) -> Iterator[tuple[str, int]]:
        """Yield (name, line) of each name, attribute and dotted pair such as `sys.exit`."""
        for node in self.nodes:
            if isinstance(node, ast.Name):
                yield node.id, node.lineno
            elif isinstance(node, ast.Attribute):
                yield node.attr, node.lineno
                yield ast.unparse(node), node.lineno


def _running(node: ast.AST) -> Iterator[ast.AST]:
    """Yield every node that runs: what is under `if TYPE_CHECKING` does not."""
    yield node
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        return
    for child in ast.iter_child_nodes(node):
        yield from _running(child)


PERSONDET = [Source(path) for path in sorted(PACKAGE.rglob("*.py"))]
TOOL_FILES = [Source(path) for path in sorted(TOOLS.glob("*.py"))]
ALL_FILES = PERSONDET + TOOL_FILES
MODULES = {source.module: source for source in PERSONDET}
# What has no command line of its own is a part that tools share; no other tool may be imported.
SHARED_BY_TOOLS = {source.path.stem for source in TOOL_FILES if "__main__" not in source.text}


def refuse(findings: Iterable[str], rule: str) -> None:
    found = sorted(set(findings))
    assert not found, f"{rule}:\n  " + "\n  ".join(found)


def imports_of(*sources: Source) -> Iterator[tuple[str, str]]:
    """Yield (first name of the module, "file:line imports module") of each import."""
    for source in sources:
        for module, line in source.imports:
            yield module.partition(".")[0], f"{source.name}:{line} imports {module}"


def test_a_file_holds_one_concept_that_its_name_says():
    for source in ALL_FILES:
        lines = source.text.count("\n")
        assert lines <= MAX_LINES, f"{source.name} has {lines} lines: more than one concept"
        names = {*source.path.stem.split("_"), source.path.parent.name} - {"tools"}
        assert not names & EMPTY_NAMES, f"{source.name}: a name that could hold anything"


def test_the_installer_needs_the_standard_library_only():
    files = [source for source in TOOL_FILES if source.path.stem in INSTALLER]
    assert len(files) == len(INSTALLER)
    known = {*sys.stdlib_module_names, *SHARED_BY_TOOLS}
    # The light modules of the package end a tool with a code and a sentence.
    light = re.compile(rf"tools/cli.py:.* persondet\.({'|'.join(FOR_ALL)})")
    imports = {text for name, text in imports_of(*files) if name not in known}
    refuse((text for text in imports if not light.fullmatch(text)), "the installer runs without it")


def test_nobody_imports_a_tool():
    tools = {source.path.stem for source in TOOL_FILES} | {"tools"}
    refuse((text for name, text in imports_of(*PERSONDET) if name in tools), "tools are the top")
    tools -= SHARED_BY_TOOLS
    refuse((text for name, text in imports_of(*TOOL_FILES) if name in tools), "tools are the top")


def test_imports_between_rooms_go_one_way():
    for index, (room, targets) in enumerate(ROOMS.items()):
        refuse(targets - set(list(ROOMS)[:index]), f"ROOMS[{room!r}] names a room that follows it")
    found = []
    for source in PERSONDET:
        if not source.room:
            continue
        assert source.room in ROOMS, f"{source.name} is in a room that ROOMS does not know"
        known = {"", source.room, *ROOMS[source.room], *FOR_ALL}
        found += [
            f"{source.name}:{line} imports {module}"
            for module, line in source.imports
            if module.startswith("persondet.") and room_of(module) not in known
        ]
    refuse(found, "an import against the direction")


def test_no_two_files_import_each_other_even_over_others():
    graph = {
        source.module: {module for module, _ in source.imports if module in MODULES}
        for source in PERSONDET
    }
    TopologicalSorter(graph).prepare()  # CycleError names the files


# A file that only its sibling imports is part of that sibling, unless it is a concept that a reader
# looks for by its name.
WHOLE_CONCEPTS = {
    "analysis/movement.py": "where people walk, and how fast",
    "checkpoint/restricted_pickle.py": "the only place that may unpickle",
    "data/fetch/roboflow_link.py": "the questions to Roboflow's API",
    "data/geometry.py": "boxes and masks of one sample under a transform",
    "engine/run_records.py": "what a run folder says about how the run was made",
    "engine/validation.py": "everything that looks at the validation split during training",
    "evaluation/curves.py": "curves.json",
    "evaluation/galleries.py": "gallery.json and its images",
    "evaluation/intervals.py": "the bootstrap",
    "labelling/folds.py": "the models that have not seen an image",
    "modeling/roi_align.py": "one layer, and what it makes of boxes",
    "modeling/winograd.py": "one algorithm",
    "page/layout.py": "what the page shows: the only file that Gradio's components are in",
    "report/pdf.py": "the writer of the PDF",
    "sample/clip.py": "the clip of the sample",
    "sample/street.py": "where the sample's people walk",
    "video/hiding.py": "who is hidden in which frame",
}


def test_a_piece_that_one_sibling_imports_is_part_of_it():
    found = []
    for source in PERSONDET:
        users = [user for user in ALL_FILES if source.module in dict(user.imports)]
        alone = len(users) == 1 and users[0].path.parent == source.path.parent
        if alone and users[0].path.stem != "__init__" and source.inner not in WHOLE_CONCEPTS:
            found.append(f"{source.name} is imported by {users[0].name} alone")
    refuse(found, "part of another file, or a concept that WHOLE_CONCEPTS names with its reason")
    refuse(WHOLE_CONCEPTS.keys() - {s.inner for s in PERSONDET}, "in WHOLE_CONCEPTS, but gone")


def test_no_public_class_shares_its_name_with_another():
    names = [
        node.name
        for source in PERSONDET
        for node in source.tree.body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    ]
    refuse((name for name in names if names.count(name) > 1), "one name for two things")


# Words of the field: what stands on the left is called what stands on the right.
WORDS = {r"pictures?": "image, or frame of a clip", r"(?<!ground[ _-])truths?": "ground truth"}
# Names in files, logs and commands, which stay as they were.
KEPT = re.compile(
    "val/pictures|persondet-picture-records|unique_truth|args\\.truth"
    r'|"truth",|"TRUTH"|\(\?:picture\|'
)


def test_the_field_has_its_words():
    found = [
        f"{source.name}:{line} {text.strip()[:60]} ({better})"
        for source in ALL_FILES
        for line, text in enumerate(source.text.splitlines(), start=1)
        for word, better in WORDS.items()
        if re.search(rf"(?i)(?<![a-z]){word}(?![a-z])", KEPT.sub("", text))
    ]
    refuse(found, "another word than the field's")


def test_the_light_modules_reach_no_torch():
    """Through their own imports and those of what they import (also of the packages around it)."""
    heavy = {"torch", "torchvision", "detectron2", "fvcore", "av", "albumentations", "cv2"}
    light = {"report", "results", "records", "files", "errors"}
    seen: set[str] = set()
    waiting = [source.module for source in PERSONDET if source.room in light]
    while waiting:
        seen.add(module := waiting.pop())
        for target, _ in MODULES[module].imports:
            parts = target.split(".")
            waiting += {".".join(parts[: n + 1]) for n in range(len(parts))} & MODULES.keys() - seen
    # environment.py asks for its libraries where a caller needs them.
    sources = [MODULES[module] for module in seen - {"persondet", "persondet.environment"}]
    refuse((text for name, text in imports_of(*sources) if name in heavy), "heavy for a light one")


def test_a_line_knows_its_room():
    found = []
    for source in PERSONDET:
        imports = {(f"import {module.partition('.')[0]}", line) for module, line in source.imports}
        found += [
            f"{source.name}:{line} {name}"
            for name, line in imports | set(source.uses())
            if name in OWNERS and not source.inner.startswith(OWNERS[name])
        ]
    refuse(found, "a library or a name outside its room (see OWNERS)")


def test_what_comes_from_outside_cannot_run_code():
    found = []
    for source in ALL_FILES:
        for call in source.nodes:
            if not isinstance(call, ast.Call):
                continue
            name = ast.unparse(call.func)
            words = {f"{word.arg}={ast.unparse(word.value)}" for word in call.keywords}
            unsafe = name in FORBIDDEN_CALLS or name.endswith((".extractall", ".unpack_archive"))
            unsafe |= name == "torch.load" and "weights_only=True" not in words
            if unsafe or words & {"allow_unsafe=True", "shell=True"}:
                found.append(f"{source.name}:{call.lineno} calls {name}")
    refuse(found, "an unsafe call")


def test_the_stock_side_of_a_benchmark_has_nothing_of_ours():
    # Detectron2's demo writes its clips with OpenCV.
    foreign = {"detectron2", "torch", "numpy", "albumentations", "cv2"}
    stock = Source(ROOT / "tests" / "benchmarks" / "bm_stock.py")
    known = foreign | sys.stdlib_module_names
    assert len(stock.imports) > 10
    refuse((text for name, text in imports_of(stock) if name not in known), "not Detectron2's own")


def publics(body: list[ast.stmt], place: str) -> Iterator[tuple[str, ast.ClassDef | Function]]:
    """Yield (file, line and name, node) of each public class, function and method."""
    for node in body:
        if isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_"):
            yield f"{place}:{node.lineno} {node.name}", node
            if isinstance(node, ast.ClassDef):
                yield from publics(node.body, place)


PUBLIC = [named for source in ALL_FILES for named in publics(source.tree.body, source.name)]


def arguments(function: Function) -> list[ast.arg]:
    spec = function.args
    rest = filter(None, (spec.vararg, spec.kwarg))
    return [*spec.posonlyargs, *spec.args, *spec.kwonlyargs, *rest]


def test_documented_arguments_are_real():
    found = []
    for place, node in PUBLIC:
        inside = list(ast.walk(node)) if isinstance(node, ast.ClassDef) else [node]
        functions = [n for n in inside if isinstance(n, Function)]
        real = {argument.arg for function in functions for argument in arguments(function)}
        real |= {function.name for function in functions}
        real |= {n.attr for n in inside if isinstance(n, ast.Attribute)}  # self.name = …
        real |= {n.id for n in inside if isinstance(n, ast.Name)}
        found += [
            f"{place}: {n}" for n in documented(ast.get_docstring(node) or "") if n not in real
        ]
    refuse(found, "a docstring names what its function or class does not have")


def documented(docstring: str) -> Iterator[str]:
    """Yield the names in a docstring's `Args:` and `Attributes:` sections (`a, b: …` is two)."""
    for section in re.findall(r"^(?:Args|Attributes):\n((?: +.*\n?)+)", docstring, re.MULTILINE):
        indent = re.match(" +", section).group()
        entry = rf"^{indent}([\w*`]+(?:, [\w*`]+)*)(?: \([^)]*\))?:"
        for names in re.findall(entry, section, re.MULTILINE):
            yield from (name.strip("*`") for name in names.split(", "))


def test_every_config_key_has_its_comment_and_a_reader():
    lines = MODULES["persondet.config.defaults"].text.splitlines()
    texts = [source.text for source in ALL_FILES if not source.inner.startswith("config/")]
    keys = re.findall(r"^    cfg\.([A-Z0-9_.]+) = (?!CfgNode)", "\n".join(lines), re.MULTILINE)
    assert len(keys) > 20
    for key in keys:
        line = next(n for n, text in enumerate(lines) if text.startswith(f"    cfg.{key} = "))
        assert lines[line - 1].strip().startswith("#") or " # " in lines[line], f"{key}: no comment"
        group, _, last = key.rpartition(".")
        reader = re.compile(rf"[.\"']{last}\b")
        used = any(group.split(".")[-1] in text and reader.search(text) for text in texts)
        assert used, f"nobody reads {key}"


def test_nothing_names_the_machine_it_was_written_on():
    folders = "work home root Users scratch shared".split()
    machine = re.compile(rf"(?<![\w.$}}<-])/(?:{'|'.join(folders)})/\w|(?i:\bissue)" + r"s? #?\d")
    endings = {".py", ".md", ".yaml", ".yml", ".toml", ".txt", ".cfg", ".in", ""}
    files = [*ROOT.glob("*"), *ROOT.glob("datasets/*")]
    for folder in ("persondet", "tools", "tests", "configs", "docs", ".ci"):
        files += (ROOT / folder).rglob("*")
    found = [
        f"{path.relative_to(ROOT)}:{line} {text.strip()[:80]}"
        for path in files
        if path.suffix in endings and path.is_file() and "__pycache__" not in path.parts
        for line, text in enumerate(path.read_text("utf-8", "replace").splitlines(), start=1)
        if machine.search(text)
    ]
    refuse(found, "a path of one machine, or a number that only its tracker knows")
