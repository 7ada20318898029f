"""The rules of the project's layout as code: reads the source, imports nothing of it.

A message names file and line. A rule that is in the way is changed here, with the reason.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE, TOOLS = ROOT / "persondet", ROOT / "tools"

MAX_LINES = 600
# The installer runs before anything is installed: it has the standard library and itself.
INSTALLER = {
    "tools/install_detectron2.py",
    "tools/detectron2_wheel.py",
    "tools/make_environment.py",
    "tools/cli.py",
}
EMPTY_NAMES = {"util", "utils", "helper", "helpers", "misc", "common", "manager", "stuff", "tools"}

# Files that import nothing of ours but what FOR_ALL names: each counts as a room of its own, so
# that rooms below theirs may use them. A mask and the reading of an image file are needed
# everywhere.
LEAVES = {"data.image_file", "inference.masks"}
# Room → the rooms it may import. Everyone may import these:
FOR_ALL = {"errors", "files", "environment", "text"}
ROOMS: dict[str, set[str]] = {
    "errors": set(),
    "text": set(),
    "files": set(),
    "environment": set(),
    "results": set(),
    "records": set(),
    "data.image_file": set(),
    "inference.masks": set(),
    "config": set(),
    "data": {"data.image_file"},
    "modeling": {"inference.masks"},  # which field carries the small masks
    "solver": set(),
    "checkpoint": {"modeling"},  # names of a model's parts
    "visualization": {"data.image_file", "inference.masks"},
    "evaluation": {
        *("data.image_file", "inference.masks"),
        *("modeling", "results", "visualization"),
    },
    "engine": {
        *("checkpoint", "config", "data", "data.image_file", "evaluation", "modeling", "results"),
        *("solver", "visualization"),
    },
    "inference": {
        *("data.image_file", "inference.masks"),
        # The predictor rebuilds a run's model and names its classes.
        *("checkpoint", "config", "data", "engine", "modeling", "records", "results"),
    },
    "video": {"inference", "records", "inference.masks", "visualization"},
    "sample": {"inference.masks", "video"},
    "report": {"records", "results"},
    "demo": {
        *("config", "data", "engine", "evaluation", "inference", "records", "report", "results"),
        *("sample", "video", "visualization"),
    },
}

# What may be named in one place only → where: a folder or a file of the package.
OWNERS_OF_MODULES = {
    "av": ("video/",),
    "matplotlib": ("report/plots/", "report/dataset_page.py", "report/pdf.py"),
    "albumentations": ("data/",),
    "argparse": (),
    "jinja2": ("report/build.py",),
    "reportlab": ("report/pdf.py",),
    "timm": (
        *("config/check.py", "modeling/backbones.py", "modeling/cpu.py"),
        *("checkpoint/timm_weights.py", "checkpoint/conventions.py"),
    ),
    "huggingface_hub": ("checkpoint/timm_weights.py",),
    "safetensors": ("checkpoint/timm_weights.py",),
    "pickle": ("checkpoint/restricted_pickle.py",),
    "torch": tuple(f"{room}/" for room in ("checkpoint", "data", "engine"))
    + (
        "evaluation/",
        "inference/",
        "modeling/",
        "solver/",
        "video/",
        "visualization/",
    ),
}
OWNERS_OF_NAMES = {
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


@dataclass(frozen=True)
class Source:
    """One Python file: its path, text and syntax tree."""

    path: Path

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, str(self.path))

    @property
    def name(self) -> str:
        """The path from the root of the project, with slashes."""
        return self.path.relative_to(ROOT).as_posix()

    @property
    def module(self) -> str:
        return self.name.removesuffix(".py").replace("/", ".").removesuffix(".__init__")

    @property
    def room(self) -> str:
        """The first name below the package; empty for the package's own __init__."""
        return room_of(self.module)

    @cached_property
    def nodes(self) -> list[ast.AST]:
        """Every node that runs: what is under `if TYPE_CHECKING` is left out."""
        return list(_running(self.tree))

    def imports(self) -> Iterator[tuple[str, int]]:
        """Yield (module, line) of each import, wherever it stands in the file."""
        for node in self.nodes:
            if isinstance(node, ast.Import):
                yield from ((alias.name, node.lineno) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = node.module or ""
                if node.level:
                    parts = self.module.split(".")
                    keep = len(parts) - node.level + self.name.endswith("__init__.py")
                    base = ".".join([*parts[:keep], *filter(None, [base])])
                for alias in node.names:
                    inner = f"{base}.{alias.name}"
                    yield (inner if inner in MODULES else base), node.lineno

    def uses(self) -> Iterator[tuple[str, int]]:
        """Yield (name, line) of each name, attribute and dotted pair such as `sys.exit`."""
        for node in self.nodes:
            if isinstance(node, ast.Name):
                yield node.id, node.lineno
            elif isinstance(node, ast.Attribute):
                yield node.attr, node.lineno
                if isinstance(node.value, ast.Name):
                    yield f"{node.value.id}.{node.attr}", node.lineno

    def calls(self) -> Iterator[tuple[str, ast.Call]]:
        """Yield (dotted name, node) of each call."""
        for node in self.nodes:
            if isinstance(node, ast.Call):
                yield ast.unparse(node.func), node


def _running(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        return
    for child in ast.iter_child_nodes(node):
        yield from _running(child)


PERSONDET = [Source(path) for path in sorted(PACKAGE.rglob("*.py"))]
TOOL_FILES = [Source(path) for path in sorted(TOOLS.glob("*.py"))]
MODULES = {source.module: source for source in PERSONDET}
# What has no command line of its own is a part that tools share; no other tool may be imported.
SHARED_BY_TOOLS = {source.path.stem for source in TOOL_FILES if "__main__" not in source.text}


def refuse(found: list[str], rule: str) -> None:
    """Fail with one line per finding."""
    assert not found, f"{rule}:\n  " + "\n  ".join(sorted(set(found)))


def allowed(source: Source, places: tuple[str, ...]) -> bool:
    """Return whether a file of the package is one of `places` or in one of them."""
    name = source.name.removeprefix("persondet/")
    return any(
        name == place or (place.endswith("/") and name.startswith(place)) for place in places
    )


def test_a_file_can_be_read_at_once():
    found = [
        f"{source.name}:{MAX_LINES} has {lines} lines"
        for source in PERSONDET + TOOL_FILES
        if (lines := source.text.count("\n")) > MAX_LINES
    ]
    refuse(found, f"more than one concept, or one that takes more than {MAX_LINES} lines")


def test_a_file_name_says_what_is_in_it():
    found = [
        f"{source.name}:1"
        for source in PERSONDET + TOOL_FILES
        if EMPTY_NAMES & {*source.path.stem.split("_"), source.path.parent.name} - {"tools"}
    ]
    refuse(found, "a name that could hold anything")


def test_the_installer_needs_the_standard_library_only():
    files = [source for source in TOOL_FILES if source.name in INSTALLER]
    assert len(files) == len(INSTALLER)
    found = [
        f"{source.name}:{line} imports {module}"
        for source in files
        for module, line in source.imports()
        if module.partition(".")[0] not in sys.stdlib_module_names | SHARED_BY_TOOLS
        # To end with a code and a sentence, when the package is there; both are as light.
        and (source.path.stem, module) not in {("cli", f"persondet.{m}") for m in FOR_ALL}
    ]
    refuse(found, "not there yet when the installer runs")


def test_nobody_imports_a_tool():
    tools = {source.path.stem for source in TOOL_FILES} | {"tools"}
    found = [
        f"{source.name}:{line} imports {module}"
        for source in PERSONDET + TOOL_FILES
        for module, line in source.imports()
        if module.partition(".")[0] in tools - (SHARED_BY_TOOLS if source in TOOL_FILES else set())
    ]
    refuse(found, "tools are the top: nobody imports them")


def test_imports_between_rooms_go_one_way():
    found = []
    for source in PERSONDET:
        if not source.room:
            continue
        if source.room not in ROOMS:
            found.append(f"{source.name}:1 is a room that ROOMS does not know")
            continue
        for module, line in source.imports():
            target = room_of(module)
            known = {source.room, *ROOMS[source.room], *FOR_ALL}
            if module.startswith("persondet.") and target and target not in known:
                found.append(f"{source.name}:{line} imports persondet.{target}")
    refuse(found, "an import against the direction")


def test_the_rooms_themselves_have_no_cycle():
    refuse(_cycles({room: set(targets) for room, targets in ROOMS.items()}), "ROOMS has a cycle")


def test_no_two_files_import_each_other_even_over_others():
    graph = {
        source.module: {module for module, _ in source.imports() if module in MODULES}
        for source in PERSONDET
    }
    refuse(_cycles(graph), "a cycle of imports")


def _cycles(graph: dict[str, set[str]]) -> list[str]:
    """Return each cycle that a depth-first walk meets, as `a → b → a`."""
    found: list[str] = []
    done: set[str] = set()

    def walk(node: str, trail: list[str]) -> None:
        if node in trail:
            found.append(" → ".join([*trail[trail.index(node) :], node]))
        elif node not in done:
            for target in sorted(graph.get(node, ())):
                walk(target, [*trail, node])
            done.add(node)

    for start in sorted(graph):
        walk(start, [])
    return found


# A file that only its sibling imports is part of that sibling, unless it is a concept that a reader
# looks for by its name.
WHOLE_CONCEPTS = {
    "checkpoint/restricted_pickle.py": "the only place that may unpickle",
    "data/fetch/roboflow_link.py": "runs as a process of its own",
    "data/geometry.py": "boxes and masks of one sample under a transform",
    "data/grouping.py": "which images belong together, and their even division",
    "engine/run_records.py": "what a run folder says about how the run was made",
    "engine/validation.py": "everything that looks at the validation split during training",
    "evaluation/curves.py": "curves.json",
    "evaluation/galleries.py": "gallery.json and its images",
    "evaluation/intervals.py": "the bootstrap",
    "report/pdf.py": "the writer of the PDF",
    "sample/clip.py": "the clip of the sample",
    "sample/street.py": "where the sample's people walk",
    "video/sound.py": "copying sound",
    "visualization/colors.py": "colours of classes and tracks",
}


def test_a_piece_that_one_sibling_imports_is_part_of_it():
    importers: dict[str, set[Source]] = {}
    for source in PERSONDET + TOOL_FILES:
        for module, _ in source.imports():
            importers.setdefault(module, set()).add(source)
    found = []
    for source in PERSONDET:
        users = importers.get(source.module, set())
        siblings = {user.path.parent for user in users} == {source.path.parent}
        alone = len(users) == 1 and siblings and next(iter(users)).path.stem != "__init__"
        if alone and source.name.removeprefix("persondet/") not in WHOLE_CONCEPTS:
            found.append(f"{source.name}:1 is imported by {next(iter(users)).name} alone")
    refuse(found, "part of another file, or a concept that WHOLE_CONCEPTS names with its reason")
    gone = WHOLE_CONCEPTS.keys() - {s.name.removeprefix("persondet/") for s in PERSONDET}
    refuse(sorted(gone), "WHOLE_CONCEPTS names files that are not there")


def test_no_public_class_shares_its_name_with_another():
    homes: dict[str, list[str]] = {}
    for source in PERSONDET:
        for node in source.tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes.setdefault(node.name, []).append(f"{source.name}:{node.lineno}")
    found = [f"{name}: {', '.join(places)}" for name, places in homes.items() if len(places) > 1]
    refuse(found, "one name for two things")


# Words of the field: what stands on the left is called what stands on the right.
WORDS = {r"pictures?": "image, or frame of a clip", r"(?<!ground[ _-])truths?": "ground truth"}
# Names in files, logs and commands, which stay as they were.
KEPT = re.compile(
    "val/pictures|persondet-picture-records|unique_truth|args\\.truth"
    r'|"truth",|"TRUTH"|\(\?:picture\|'
)


def test_the_field_has_its_words():
    found = []
    for source in PERSONDET + TOOL_FILES:
        for line, text in enumerate(source.text.splitlines(), start=1):
            text = KEPT.sub("", text)
            for word, better in WORDS.items():
                if re.search(rf"(?i)(?<![a-z]){word}(?![a-z])", text):
                    found.append(f"{source.name}:{line} {text.strip()[:60]} ({better})")
    refuse(found, "another word than the field's")


def test_the_light_modules_reach_no_torch():
    """Through their own imports and those of what they import (also of the packages around it)."""
    heavy = {"torch", "torchvision", "detectron2", "fvcore", "av", "albumentations", "cv2"}
    found = []
    for start in PERSONDET:
        if start.room not in {"report", "results", "records", "files", "errors", "environment"}:
            continue
        waiting, seen = [start.module], set()
        while waiting:
            module = waiting.pop()
            if module in seen:
                continue
            seen.add(module)
            for target, line in MODULES[module].imports():
                if target.partition(".")[0] in heavy and module != "persondet":
                    found.append(f"{MODULES[module].name}:{line} imports {target}, by {start.name}")
                around = target.split(".")
                names = {".".join(around[:depth]) for depth in range(1, len(around) + 1)}
                waiting.extend(names & MODULES.keys())
    refuse([entry for entry in found if "environment.py" not in entry], "heavy for a light module")


def test_a_library_has_its_one_place():
    found = [
        f"{source.name}:{line} imports {module}"
        for source in PERSONDET
        for module, line in source.imports()
        if not allowed(
            source, OWNERS_OF_MODULES.get(module.partition(".")[0], ("", source.name[10:]))
        )
    ]
    refuse(found, "a library outside its place (see OWNERS_OF_MODULES)")


def test_a_line_knows_its_room():
    found = [
        f"{source.name}:{line} uses {name}"
        for source in PERSONDET
        for name, line in source.uses()
        if name in OWNERS_OF_NAMES and not allowed(source, OWNERS_OF_NAMES[name])
    ]
    refuse(found, "a name outside its room (see OWNERS_OF_NAMES)")


def test_what_comes_from_outside_cannot_run_code():
    found = []
    for source in PERSONDET + TOOL_FILES:
        for name, call in source.calls():
            keywords = {word.arg: ast.unparse(word.value) for word in call.keywords}
            unsafe = name in FORBIDDEN_CALLS
            unsafe |= name == "torch.load" and keywords.get("weights_only") != "True"
            unsafe |= keywords.get("allow_unsafe") == "True" or keywords.get("shell") == "True"
            unsafe |= name.endswith((".extractall", ".unpack_archive"))
            if unsafe:
                found.append(f"{source.name}:{call.lineno} calls {name}")
    refuse(found, "an unsafe call")


def test_the_stock_side_of_a_benchmark_has_nothing_of_ours():
    # Detectron2's demo writes its clips with OpenCV.
    foreign = {"detectron2", "torch", "numpy", "albumentations", "cv2"}
    stock = Source(ROOT / "tests" / "benchmarks" / "bm_stock.py")
    found = [
        f"{stock.name}:{line} imports {module}"
        for module, line in stock.imports()
        if module.partition(".")[0] not in foreign | sys.stdlib_module_names
    ]
    assert len(list(stock.imports())) > 10
    refuse(found, "a stock side is Detectron2's own, without help")


Function = ast.FunctionDef | ast.AsyncFunctionDef


def public(tree: ast.Module) -> Iterator[tuple[ast.ClassDef | Function, ast.ClassDef | None]]:
    """Yield (public function or class, the class it is a method of)."""

    def inside(body: list[ast.stmt], owner: ast.ClassDef | None) -> Iterator:
        for node in body:
            if isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_"):
                yield node, owner
                if isinstance(node, ast.ClassDef):
                    yield from inside(node.body, node)

    yield from inside(tree.body, None)


def arguments(function: Function, *, method: bool) -> list[ast.arg]:
    """Return the arguments of a function, without `self` or `cls`."""
    spec = function.args
    named = [*spec.posonlyargs, *spec.args]
    static = any(ast.unparse(d) == "staticmethod" for d in function.decorator_list)
    rest = [argument for argument in (spec.vararg, spec.kwarg) if argument]
    return [*named[1 if method and not static else 0 :], *spec.kwonlyargs, *rest]


def every_public(check: Callable[..., list[str]]) -> list[str]:
    """Return what `check(node, owner)` finds in the package and the tools, with file and line."""
    return [
        f"{source.name}:{node.lineno} {node.name}: {finding}"
        for source in PERSONDET + TOOL_FILES
        for node, owner in public(source.tree)
        for finding in check(node, owner)
    ]


def test_every_public_function_is_typed():
    def untyped(node: ast.AST, owner: ast.ClassDef | None) -> list[str]:
        if not isinstance(node, Function):
            return []
        bare = [a.arg for a in arguments(node, method=owner is not None) if a.annotation is None]
        return [f"{name} has no type" for name in bare] + ["no return type"] * (not node.returns)

    refuse(every_public(untyped), "not typed")


def test_every_public_name_is_documented():
    def silent(node: ast.ClassDef | Function, owner: ast.ClassDef | None) -> list[str]:
        return [] if ast.get_docstring(node) else ["no docstring"]

    found = every_public(silent)
    found += [f"{s.name}:1" for s in PERSONDET + TOOL_FILES if not ast.get_docstring(s.tree)]
    refuse(found, "no docstring")


def test_documented_arguments_are_real():
    def invented(node: ast.ClassDef | Function, owner: ast.ClassDef | None) -> list[str]:
        documented = set(_documented(ast.get_docstring(node) or ""))
        functions = [node] if isinstance(node, Function) else []
        real: set[str] = set()
        if isinstance(node, ast.ClassDef):
            functions = [n for n in node.body if isinstance(n, Function) and n.name == "__init__"]
            fields = [n.target for n in ast.walk(node) if isinstance(n, ast.AnnAssign)]
            fields += [t for n in ast.walk(node) if isinstance(n, ast.Assign) for t in n.targets]
            names = ", ".join(ast.unparse(field).strip("()") for field in fields)
            real |= {name.removeprefix("self.") for name in names.split(", ")}
            real |= {n.name for n in node.body if isinstance(n, Function)}
        for function in functions:
            method = owner is not None or isinstance(node, ast.ClassDef)
            real |= {argument.arg for argument in arguments(function, method=method)}
        return [f"documents {name}, which it does not have" for name in documented - real]

    refuse(every_public(invented), "a docstring of something else")


def _documented(docstring: str) -> Iterator[str]:
    """Yield the names in a docstring's `Args:` and `Attributes:` sections (`a, b: …` is two)."""
    lines = iter(docstring.splitlines())
    for line in lines:
        if line.strip() not in ("Args:", "Attributes:"):
            continue
        indent = None
        for entry in lines:
            if not entry.strip():
                break
            indent = indent or re.match(" *", entry).group()
            match = re.match(rf"{indent}([\w*`]+(?:, [\w*`]+)*)(?: \([^)]*\))?:", entry)
            if match:
                yield from (name.strip("*`") for name in match[1].split(", "))


def config_keys() -> Iterator[tuple[str, int]]:
    """Yield (dotted key, line) of each key that config/defaults.py sets to a value."""
    for node in ast.walk(MODULES["persondet.config.defaults"].tree):
        if isinstance(node, ast.Assign) and not ast.unparse(node.value).startswith("CfgNode("):
            target = ast.unparse(node.targets[0])
            if re.fullmatch(r"cfg(\.[A-Z][A-Z0-9_]*)+", target):
                yield target.removeprefix("cfg."), node.lineno


def test_every_config_key_has_its_comment():
    lines = MODULES["persondet.config.defaults"].text.splitlines()
    keys = list(config_keys())
    assert len(keys) > 20
    found = [
        f"persondet/config/defaults.py:{line} {key}"
        for key, line in keys
        if not lines[line - 2].strip().startswith("#") and " # " not in lines[line - 1]
    ]
    refuse(found, "a config key without a comment above or beside it")


def test_every_config_key_is_read_somewhere():
    readers = [
        source
        for source in PERSONDET + TOOL_FILES
        if source.module not in ("persondet.config.defaults", "persondet.config.check")
    ]
    texts = [source.text for source in readers]
    found = []
    for key, line in config_keys():
        *groups, last = key.split(".")
        group = groups[-1] if groups else ""
        if not any(re.search(rf"[.\"']{last}\b", text) and group in text for text in texts):
            found.append(f"persondet/config/defaults.py:{line} {key}")
    refuse(found, "a config key that nobody reads")


def test_nothing_names_the_machine_it_was_written_on():
    folders = "work home root Users scratch shared".split()
    machine = re.compile(rf"(?<![\w.$}}<-])/(?:{'|'.join(folders)})/\w")
    number = re.compile(r"\bissue" + r"s? #?\d", re.IGNORECASE)
    endings = {".py", ".md", ".yaml", ".yml", ".toml", ".txt", ".cfg", ".in", ""}
    found = []
    for folder in ("", "persondet", "tools", "tests", "configs", "docs", "datasets", ".ci"):
        files = (ROOT / folder).rglob("*") if folder and folder != "datasets" else ROOT.glob("*")
        for path in files:
            if path.suffix not in endings or not path.is_file() or "__pycache__" in path.parts:
                continue
            for line, text in enumerate(path.read_text("utf-8", "replace").splitlines(), start=1):
                if machine.search(text) or number.search(text):
                    found.append(f"{path.relative_to(ROOT)}:{line} {text.strip()[:80]}")
    refuse(found, "a path of one machine, or a number that only its tracker knows")
