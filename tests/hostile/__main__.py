"""The long form: scores every mutant in a whole run in both modes, and prints costs and a table of codes.

make hostile
.venv/bin/python -m tests.hostile --images 1000 --seed 3
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from pathlib import Path

from benchmarks.process_tree import measure
from tests.hostile.corpus import corpus

MOST_MIB, MOST_SECONDS = 1536, 5.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--modes", nargs="*", default=["whole", "detect"])
    parser.add_argument("--skip-decoding", action="store_true", help="score alone")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        findings = [] if arguments.skip_decoding else _decode(arguments.seed, arguments.images, Path(scratch))
        findings += _run(arguments.seed, arguments.images, arguments.modes, Path(scratch))
    print("\n".join(findings) or "no findings")
    sys.exit(bool(findings))


def _decode(seed: int, count: int, scratch: Path) -> list[str]:
    """Decode all mutants with both codecs and with two different fillings of fresh memory."""
    outputs = {fill: scratch / f"digests-{fill}.json" for fill in (85, 170)}
    for fill, output in outputs.items():
        command = [sys.executable, "-m", "tests.hostile.digests", str(seed), str(count), str(output)]
        environment = os.environ | {"MALLOC_PERTURB_": str(fill)}
        done = subprocess.run(command, env=environment, check=False, stderr=subprocess.DEVNULL)
        if done.returncode:
            return [f"decoding ended with {done.returncode}"]
    first, second = (json.loads(output.read_text()) for output in outputs.values())
    findings, codes = [], defaultdict(Counter)
    for number, (one, other) in enumerate(zip(first["answers"], second["answers"], strict=True)):
        kind, mutation, fast, pillow, _ = one
        code = fast.partition(":")[0] if ":" in fast else "decoded"
        codes[kind.split()[0]][code] += 1
        if one != other:
            findings.append(f"mutant {number} ({kind}, {mutation}) has two answers: {one[2:]} and {other[2:]}")
        if fast != pillow:
            findings.append(f"mutant {number} ({kind}, {mutation}): codecs differ: {fast} and {pillow}")
    _print_table(codes)
    seconds, number = max(first["slowest"], second["slowest"])
    print(f"slowest image: mutant {number}, {seconds:.2f} s of CPU")
    if seconds > MOST_SECONDS:
        findings.append(f"mutant {number} took {seconds:.1f} s, more than {MOST_SECONDS}")
    return findings


def _print_table(codes: dict[str, Counter[str]]) -> None:
    names = sorted({code for counts in codes.values() for code in counts})
    print("| format | " + " | ".join(names) + " |")
    print("|---|" + "---:|" * len(names))
    for kind, counts in sorted(codes.items()):
        print(f"| {kind} | " + " | ".join(str(counts[name]) for name in names) + " |")


def _run(seed: int, count: int, modes: list[str], scratch: Path) -> list[str]:
    """Score all mutants as a run does."""
    images, findings = scratch / "images", []
    images.mkdir()
    for mutant in corpus(seed, count):
        (images / mutant.name).write_bytes(mutant.data)
    for mode in modes:
        output = scratch / f"tables-{mode}"
        command = [sys.executable, "-m", "maskdet.cli.main", "score", "--input", str(images), "--output", str(output)]
        command += ["--faces", mode, "--quiet", "--set", "failure_budget.max_ratio=1.0"]
        cost = measure(command, stdout=output.with_suffix(".out"), stderr=output.with_suffix(".err"))
        runs = list((output / "_runs").glob("*.json"))
        if cost.exit_code or len(runs) != 1:
            findings.append(f"{mode}: the run ended with {cost.exit_code}")
            continue
        run = json.loads(runs[0].read_text())
        counts = run["images"]
        print(
            f"{mode}: {counts}, {run['failed_by_code']}; {cost.wall_s:.0f} s, {cost.cpu_s:.0f} s of CPU, "
            f"peak {cost.peak_mib:,.0f} MiB"
        )
        if counts["listed"] != count or sum(counts.values()) != 2 * count or counts["skipped"]:
            findings.append(f"{mode}: {count} files, {counts}")
        if cost.peak_mib > MOST_MIB:
            findings.append(f"{mode}: peak {cost.peak_mib:,.0f} MiB, more than {MOST_MIB}")
    return findings


if __name__ == "__main__":
    main()
