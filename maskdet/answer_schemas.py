"""Columns of the tables that answer questions about an output: samples to label, their results, what changed."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

from maskdet.schemas import column, table_schema


def audit_schema(key_names: Iterable[str] = ()) -> pa.Schema:
    """Schema of a sample of faces to label: one row per face, in an order that mixes the strata."""
    pixels = {"left": "left edge", "top": "top edge", "width": "width", "height": "height"}
    whole = "; null where the whole image is the face"
    return table_schema(
        "audit",
        [
            column("image_uri", pa.string(), "where the image is read from"),
            column("content_sha256", pa.string(), "SHA-256 of the image file's bytes, in hexadecimal"),
            column("face_index", pa.int32(), "number of the face within its image, from 0"),
            *(
                column(f"face_{name}_px", pa.float32(), f"{text} of the face, in pixels{whole}", nullable=True)
                for name, text in pixels.items()
            ),
            *(column(name, pa.string(), f"key {name!r} of the image", nullable=True) for name in key_names),
            column("probability_mask", pa.float32(), "probability of mask, 0 to 1"),
            column("probability_incorrect", pa.float32(), "probability of incorrect", nullable=True),
            column("label", pa.string(), "what the model says; not shown to who labels"),
            column("stratum", pa.int32(), "number of the stratum"),
            column("band", pa.string(), "band of the probability that there is a mask"),
            column("stratum_faces", pa.int64(), "faces of the stratum"),
            column("stratum_drawn", pa.int64(), "faces drawn from it, at random"),
            column("stratum_probability_worn", pa.float64(), "sum over its faces of the probability of any mask"),
            column("stratum_probability_mask", pa.float64(), "sum over its faces of the probability of mask"),
            column("inclusion_probability", pa.float64(), "chance of the face to be drawn, 0 to 1"),
            column("model_id", pa.string(), "name and fingerprint of the model bundle"),
        ],
        1,
    )


def audited_schema(key_names: Iterable[str] = ()) -> pa.Schema:
    """Schema of the results of a labelled sample: one row per quantity for everything, then for each group."""
    keys = [column(name, pa.string(), f"group key {name!r}; null in rows of all", nullable=True) for name in key_names]
    numbers = {
        "share": "the estimate, 0 to 1",
        "share_low": "lower end of its interval",
        "share_high": "upper end of its interval",
        "known": "what the tables say without labels (rates), or the bundle (sensitivity and specificity)",
        "drift": "share minus known, where known is the bundle's",
        "drift_low": "lower end of its interval",
        "drift_high": "upper end of its interval",
        "weight": "how much the model's probabilities were believed, 0 to 1",
        "confidence": "nominal coverage of the intervals, 0 to 1",
    }
    return table_schema(
        "audited",
        [
            *keys,
            column("scope", pa.string(), "all, or group"),
            column("quantity", pa.string(), "a rate, or sensitivity or specificity of one of the two questions"),
            *(column(name, pa.float64(), text, nullable=True) for name, text in numbers.items()),
            column("labelled", pa.int64(), "labelled faces that the share is of"),
            column("faces", pa.int64(), "all faces, labelled or not"),
            column("method", pa.string(), "how share and interval were computed"),
        ],
        1,
    )


_CHANGE_NUMBERS = {
    "rate_before": "the rate before",
    "rate_after": "the rate after",
    "difference": "after minus before",
    "difference_low": "lower end of its interval; null below two clusters on either side",
    "difference_high": "upper end of its interval",
    "difference_naive_low": "lower end of the naive interval: as if faces were independent",
    "difference_naive_high": "upper end of the naive interval",
    "p": "level at which the interval would begin to hold 0; of the naive one where there is no other",
    "p_adjusted": "the same, corrected for the number of groups compared; null in the row of all",
}


def changes_schema(key_names: Iterable[str] = ()) -> pa.Schema:
    """Schema of what changed between two sides: one row for all groups together, then one per group."""
    keys = [
        column(name, pa.string(), f"group key {name!r}; null in the row of all", nullable=True) for name in key_names
    ]
    counts = {
        "images": "images of the group",
        "images_failed": "of those, images that could not be read",
        "faces_labelled": "faces that the rate is a share of",
    }
    faceless = "share of the readable images in which no face was found"
    sides = ("before", "after")
    return table_schema(
        "changes",
        [
            *keys,
            column("scope", pa.string(), "all, or group"),
            column("rate", pa.string(), "which rate is compared"),
            *(
                column(f"{name}_{side}", pa.int64(), f"{text}, {side}")
                for name, text in counts.items()
                for side in sides
            ),
            *(column(f"no_face_share_{side}", pa.float64(), f"{faceless}, {side}", nullable=True) for side in sides),
            *(column(name, pa.float64(), text, nullable=True) for name, text in _CHANGE_NUMBERS.items()),
            column("pairs", pa.int64(), "clusters with labelled faces on both sides"),
            column("method", pa.string(), "how the interval was computed"),
            column("adjustment", pa.string(), "how p_adjusted was: holm, benjamini-hochberg or none"),
            column("confidence", pa.float64(), "nominal coverage of the intervals, 0 to 1"),
        ],
        1,
    )
