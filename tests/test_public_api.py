"""`import persondet` is free, and its names are there when they are used."""

from __future__ import annotations

import subprocess
import sys

import pytest

import persondet

HEAVY = ("torch", "detectron2", "numpy", "cv2", "av", "matplotlib", "albumentations", "yaml")


def run(code):
    """Run Python code in a process of its own; return what it printed."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_the_package_imports_nothing_heavy():
    code = f"import sys, persondet; print([m for m in {HEAVY!r} if m in sys.modules])"
    assert run(code) == "[]"


def test_the_light_modules_stay_light():
    code = (
        "import sys, persondet.errors, persondet.files, persondet.results; "
        f"print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    assert run(code) == "[]"


@pytest.mark.parametrize("name", persondet.__all__)
def test_every_public_name_is_there(name):
    value = getattr(persondet, name)
    if name != "__version__":
        assert value.__name__ == name
        assert value.__doc__


def test_the_names_are_listed_and_an_unknown_one_is_an_attribute_error():
    assert set(persondet.__all__) <= set(dir(persondet))
    with pytest.raises(AttributeError, match="no attribute 'no_such_name'"):
        _ = persondet.no_such_name


def test_without_detectron2_the_first_use_says_what_to_run():
    """A finder that knows no detectron2 stands for a machine that has none."""
    code = """
import sys
class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "detectron2":
            raise ModuleNotFoundError("No module named 'detectron2'", name="detectron2")
sys.meta_path.insert(0, Nothing())
import persondet
from persondet.errors import InstallationError
persondet.load_events  # needs none
try:
    persondet.Trainer
except InstallationError as error:
    print(error)
"""
    message = run(code)
    assert "install_detectron2.py" in message or "make install" in message
    assert "\n" not in message


def test_another_missing_module_is_not_taken_for_detectron2():
    code = """
import sys
sys.modules["numpy"] = None
import persondet
try:
    persondet.load_events
except ModuleNotFoundError as error:
    print(error.name)
"""
    assert run(code) == "numpy"
