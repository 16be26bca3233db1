"""An output with everything that is hard for a report: hostile names, missing keys and times, summer time, no faces."""

import hashlib
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa

from benchmarks.large_output import DECISION, Rows, write_output
from maskdet.labels import label_codes, label_names
from maskdet.schemas import failures_schema, no_face_schema, predictions_schema

KEYS = ("site", "camera")
ZONE = "Europe/Berlin"
SCRIPT = "<script>alert(1)</script>"
QUOTES = "\"'><img src=x onerror=alert(2)>"
BRACES = "{{ 7 * 7 }}{% raw %}&amp;"
SITES = ("north", SCRIPT, QUOTES, BRACES, None)
# The last night of March 2026 has 23 hours in Berlin, and its midnight is not that of UTC.
FIRST = datetime(2026, 3, 22, 21, 30, tzinfo=UTC)


def table(schema, rows):
    return pa.Table.from_pylist([{name: row.get(name) for name in schema.names} for row in rows], schema=schema)


def sha256(text):
    return hashlib.sha256(text.encode()).hexdigest()


def image(uri, when, site, camera):
    content = {"content_sha256": sha256(uri), "width_px": 640, "height_px": 480}
    return {"image_uri": uri, "captured_at": when, "site": site, "camera": camera, **content}


def face(of, index, mask, incorrect):
    label = label_names(label_codes(np.float32([mask]), np.float32([incorrect]), DECISION))[0]
    box = {
        f"face_{side}_px": value
        for side, value in zip(("left", "top", "width", "height"), (10, 20, 30, 40), strict=True)
    }
    chances = {
        "probability_mask": mask,
        "probability_incorrect": incorrect,
        "probability_no_mask": 1 - mask - incorrect,
    }
    return {
        **of,
        "face_index": index,
        **box,
        "face_score": 0.9,
        **chances,
        "label": label,
        "model_id": "drawn@000000000000",
    }


def drawn_rows(seed=5, days=16):
    """Rows of three tables: faces, images without faces, failures."""
    random = np.random.default_rng(seed)
    faces, faceless, failures = [], [], []
    for day in range(days):
        for site_number, site in enumerate(SITES):
            for camera in ("gate", f"gate {BRACES}")[: 1 + site_number % 2]:
                for number in range(int(random.integers(1, 6))):
                    when = FIRST + timedelta(days=day, minutes=float(random.integers(0, 300)))
                    uri = f"/photos/{site}/{camera}/{day}-{number}.jpg"
                    one = image(uri, None if random.random() < 0.05 else when, site, camera)
                    kind = random.random()
                    if kind < 0.08:
                        faceless.append(one)
                    elif kind < 0.12:
                        code = ("corrupt_image", "empty_file")[int(random.integers(2))]
                        failures.append({**one, "stage": "decode", "code": code, "message": SCRIPT, "attempts": 1})
                    else:
                        for index in range(int(random.integers(1, 4))):
                            worn = float(random.beta(0.7, 0.5 + 0.2 * site_number))
                            wrong = worn * float(random.beta(0.4, 2))
                            faces.append(face(one, index, worn - wrong, wrong))
    return faces, faceless, failures


def write_drawn(root, rows=None, keys=KEYS, **options):
    """Write the rows in two shards, as a run leaves them."""
    faces, faceless, failures = drawn_rows() if rows is None else rows
    schemas = (predictions_schema(keys), no_face_schema(keys), failures_schema(keys))
    halves = []
    for half in (0, 1):
        tables = [
            table(schema, part[half::2]) for schema, part in zip(schemas, (faces, faceless, failures), strict=True)
        ]
        halves.append((f"shard-{half}", Rows(*tables)))
    write_output(str(root), halves, keys, timezone=ZONE, folders=True, **options)
