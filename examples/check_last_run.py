"""Tell an alerting system how the last run of an output went.

    python examples/check_last_run.py tables/

Prints one line for each problem that somebody should look at, and exits with 1 if there is any.
"""

import json
import sys
from pathlib import Path

MOST_WITHOUT_A_FACE = 0.3


def warnings(output: Path) -> list[str]:
    """What is wrong or unusual about the latest run; records sort by time."""
    records = sorted((output / "_runs").glob("*.json"))
    if not records:
        return ["no run has begun yet"]
    record = json.loads(records[-1].read_text(encoding="utf-8"))
    images, found = record["images"], []
    if record["status"] != "succeeded":
        found.append(f"run {record['run_id']}: {record['status']}: {record.get('reason') or 'no reason given'}")
    found += [f"{count} images failed: {code}" for code, count in record["failed_by_code"].items()]
    looked_at = images["scored"] + images["no_face"]
    if looked_at and images["no_face"] / looked_at > MOST_WITHOUT_A_FACE:
        found.append(f"no face in {images['no_face']} of {looked_at} images: has a camera moved?")
    return found


if __name__ == "__main__":
    lines = warnings(Path(sys.argv[1]))
    print("\n".join(lines) or "all well")
    sys.exit(1 if lines else 0)
