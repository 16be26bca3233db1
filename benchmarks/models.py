"""Models for peers: the same weights, in formats that they can load."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from benchmarks.contestants import ROOT

BUILTIN = ROOT / "maskdet" / "model" / "builtin" / "compact"


def peer_bundle(model: str, work: Path) -> Path:
    """A model as a bundle with Keras and ONNX files, exported once."""
    source = BUILTIN if model == "builtin" else Path(model)
    if not (source / "manifest.json").is_file():
        sys.exit(f"--model: expected a local bundle, received {model!r}. Train it: make train-reference")
    fingerprint = json.loads((source / "manifest.json").read_text())["fingerprint"]
    bundle = work / "models" / fingerprint[:12]
    if not bundle.is_dir():
        print(f"exporting {model} for the peers", file=sys.stderr, flush=True)
        export = ["export", "--model", str(source), "--output", str(bundle), "--formats", "keras,onnx"]
        subprocess.run([sys.executable, "-m", "maskdet.cli.main", *export], check=True, capture_output=True)
    return bundle
