"""The Arrow schema of every table.

The schema functions are the only place where columns are named; each column has its description and unit in the
Parquet file itself (field metadata, key ``description``).
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date

import pyarrow as pa

SCHEMA_VERSION = 2
COMPLIANCE_VERSION = 3
"""Version of the compliance tables, which every run makes anew from the others."""
NOT_A_FACE = "not_a_face"
"""The label that people give to a box that holds no face."""


def column(name: str, kind: pa.DataType, description: str, *, nullable: bool = False) -> pa.Field:
    """A column whose description is stored in the file itself."""
    return pa.field(name, kind, nullable=nullable, metadata={"description": description})


_INSTANT = pa.timestamp("ms", tz="UTC")
# Fields as of maskdet.video.sampling.Segment, and of maskdet.tables.results.FrameCounts.
SEGMENT = pa.struct(
    [
        ("start_us", pa.int64()),
        ("end_us", pa.int64()),
        ("frames", pa.string()),
        ("rate", pa.list_(pa.int64())),
        ("duration_us", pa.int64()),
        ("decoder", pa.string()),
    ]
)
FRAMES = pa.struct([("scored", pa.int64()), ("no_face", pa.int64()), ("failed", pa.int64())])
# Keys derived from capture times have the type that readers expect; all others are text as people wrote it.
_KEY_KINDS = {"date": pa.date32(), "hour": pa.int32()}
_NAIVE = "wilson, naive: as if faces were independent and the model without error"
_DERIVED = {
    "week": "; year and week of ISO 8601, 2026-W10",
    "month": "; 2026-03",
    "weekday": "; 1 (Monday) to 7",
}
_KEY_ORIGIN = ", from its path or image list; date and hour from its capture time, in the run's time zone"


def key_value(name: str, value: str | None) -> date | int | str | None:
    """A key's value in the type of its column."""
    if value is None:
        return None
    return date.fromisoformat(value) if name == "date" else int(value) if name == "hour" else value


def _identity_columns(key_names: Iterable[str]) -> list[pa.Field]:
    return [
        column("image_uri", pa.string(), "where the image was read from"),
        column("captured_at", _INSTANT, "when the image was taken, from its path or image list", nullable=True),
        *(
            column(name, _KEY_KINDS.get(name, pa.string()), f"key {name!r} of the image{_KEY_ORIGIN}", nullable=True)
            for name in key_names
        ),
    ]


def _frame_time_column() -> pa.Field:
    return column(
        "frame_time_us",
        pa.int64(),
        "when the frame is shown, in microseconds since the start of its video; null of images",
        nullable=True,
    )


def _content_columns() -> list[pa.Field]:
    return [
        column("content_sha256", pa.string(), "SHA-256 of the image file's bytes, in hexadecimal"),
        column("width_px", pa.int32(), "width of the upright image, in pixels"),
        column("height_px", pa.int32(), "height of the upright image, in pixels"),
        column(
            "damaged", pa.bool_(), "whether the file is damaged, and only what is left of it was seen", nullable=True
        ),
    ]


def table_schema(table: str, columns: Iterable[pa.Field], version: int = SCHEMA_VERSION) -> pa.Schema:
    """The schema of a table, with the table's name and version in the file itself."""
    return pa.schema(columns, metadata={"maskdet.table": table, "maskdet.schema_version": str(version)})


def predictions_schema(key_names: Iterable[str] = ()) -> pa.Schema:
    """Schema of the predictions: one row per face.

    Args:
        key_names: all keys, including partition keys, so that readers need not take them from names of folders.
    """
    return table_schema(
        "predictions",
        [
            *_identity_columns(key_names),
            *_content_columns(),
            column("face_index", pa.int32(), "number of the face within its image, from 0"),
            column(
                "face_left_px", pa.float32(), "left edge of the face in the upright image, in pixels", nullable=True
            ),
            column("face_top_px", pa.float32(), "top edge of the face in the upright image, in pixels", nullable=True),
            column("face_width_px", pa.float32(), "width of the face, in pixels", nullable=True),
            column("face_height_px", pa.float32(), "height of the face, in pixels", nullable=True),
            column(
                "face_score", pa.float32(), "detector's score; null where the whole image is the face", nullable=True
            ),
            column(
                "probability_mask",
                pa.float32(),
                "probability that the face wears a mask over nose and mouth, 0 to 1; of a model of two classes: a mask",
            ),
            column(
                "probability_incorrect",
                pa.float32(),
                "probability that it wears a mask with nose or mouth bare; null of a model of two classes",
                nullable=True,
            ),
            column("probability_no_mask", pa.float32(), "probability that it wears none; the three add to 1"),
            column("label", pa.string(), "mask, incorrect, no_mask or uncertain, by the run's decision thresholds"),
            column("model_id", pa.string(), "name and fingerprint of the model bundle"),
            _frame_time_column(),
        ],
    )


def failures_schema(key_names: Iterable[str] = ()) -> pa.Schema:
    """Schema of the failures: one row per image that could not be scored.

    Args:
        key_names: all keys.
    """
    return table_schema(
        "failures",
        [
            *_identity_columns(key_names),
            column("stage", pa.string(), "where it failed: list, fetch, decode or infer"),
            column("code", pa.string(), "why it failed: a stable name"),
            column("message", pa.string(), "why it failed, for people"),
            column("attempts", pa.int32(), "how often it was tried"),
            _frame_time_column(),
            column(
                "frame_end_us",
                pa.int64(),
                "when a stretch that is lost ends, in microseconds since the start of its video; null of all else",
                nullable=True,
            ),
            column(
                "frames",
                pa.int64(),
                "frames of a video that the row stands for; null of images, 0 of a video that cannot be opened",
                nullable=True,
            ),
        ],
    )


def no_face_schema(key_names: Iterable[str] = ()) -> pa.Schema:
    """Schema of the images in which no face was found: one row per image.

    Args:
        key_names: all keys; the table is not partitioned, since such images are few.
    """
    return table_schema("no_face", [*_identity_columns(key_names), *_content_columns(), _frame_time_column()])


def tracks_schema(key_names: Iterable[str] = ()) -> pa.Schema:
    """Schema of the tracks: one row per person seen in a video without a long break.

    Args:
        key_names: all keys; a track has those of its first face.
    """
    change = pa.struct([("time_us", pa.int64()), ("kind", pa.string())])
    face = pa.struct([("frame_time_us", pa.int64()), ("face_index", pa.int32())])
    since = "in microseconds since the start of the video"
    return table_schema(
        "tracks",
        [
            *_identity_columns(key_names),
            column("track", pa.int32(), "number of the track within its video, from 0, by when it begins"),
            column("first_us", pa.int64(), f"when the face is first seen, {since}"),
            column("last_us", pa.int64(), f"when it is last seen, {since}"),
            column("frames", pa.int32(), "in how many of the frames that were looked at"),
            column("best_us", pa.int64(), f"when it is seen best, {since}"),
            column("face_left_px", pa.float32(), "left edge of the face where it is seen best, in pixels"),
            column("face_top_px", pa.float32(), "top edge of the face where it is seen best, in pixels"),
            column("face_width_px", pa.float32(), "width of the face where it is seen best, in pixels"),
            column("face_height_px", pa.float32(), "height of the face where it is seen best, in pixels"),
            column("face_score", pa.float32(), "detector's score of the face where it is seen best"),
            column("probability_mask", pa.float32(), "probability of a mask over nose and mouth, by all frames"),
            column(
                "probability_incorrect",
                pa.float32(),
                "probability of a mask with nose or mouth bare, by all frames; null of a model of two classes",
                nullable=True,
            ),
            column("probability_no_mask", pa.float32(), "probability of none, by all frames; the three add to 1"),
            column("label", pa.string(), "mask, incorrect, no_mask or uncertain, by the run's decision thresholds"),
            column("changes", pa.list_(change), "put_on, taken_off, slipped, put_right, and the first frame of each"),
            column("faces", pa.list_(face), "rows of predictions that the track is made of"),
        ],
    )


def corrections_schema() -> pa.Schema:
    """Schema of the labels that people gave: one row per face with such a label."""
    return table_schema(
        "corrections",
        [
            column("image_uri", pa.string(), "where the image was read from"),
            column("content_sha256", pa.string(), "SHA-256 of the image as people saw it; else the row says nothing"),
            column("face_index", pa.int32(), "number of the face within its image, from 0"),
            column("label", pa.string(), f"what people say: mask, incorrect, no_mask, or {NOT_A_FACE}"),
        ],
        1,
    )


def _rate_columns(name: str, description: str) -> list[pa.Field]:
    return [
        column(name, pa.float64(), description, nullable=True),
        column(f"{name}_low", pa.float64(), f"lower end of the naive interval of {name}: {_NAIVE}", nullable=True),
        column(f"{name}_high", pa.float64(), f"upper end of the naive interval of {name}: {_NAIVE}", nullable=True),
    ]


def _more_rate_columns(name: str) -> list[pa.Field]:
    """Intervals of a rate besides the naive one, and bounds."""
    ends = {
        "cluster": "interval that knows of clusters; null below two",
        "corrected": "interval of the corrected rate, of independent faces",
        "melded": "interval of the corrected rate that knows of clusters; null below two",
        "uncertain": "bound of the rate: uncertain faces taken for {}",
        "no_face": "bound of the rate: each image without a face taken for one face {}",
    }
    sides = {"low": ("lower", "bare", "without a mask"), "high": ("upper", "masked", "with a mask")}
    fields = [
        column(
            f"{name}_design_effect",
            pa.float64(),
            f"faces that tell as much as one independent face does, for {name}; null below two clusters",
            nullable=True,
        ),
        column(
            f"{name}_corrected",
            pa.float64(),
            f"{name} freed of the model's own errors; null where correction_refused says why",
            nullable=True,
        ),
    ]
    for kind, text in ends.items():
        for side, (word, uncertain, faceless) in sides.items():
            said = text.format(uncertain if kind == "uncertain" else faceless)
            fields.append(column(f"{name}_{kind}_{side}", pa.float64(), f"{name}, {word} end: {said}", nullable=True))
    return fields


def _count_columns() -> list[pa.Field]:
    described = {
        "images_listed": "images of the group: scored, without a face, or failed",
        "images_scored": "images with at least one scored face",
        "images_no_face": "images in which no face was found",
        "images_failed": "images that could not be scored",
        "faces": "faces scored",
        "faces_mask": "faces labelled mask",
        "faces_incorrect": "faces labelled incorrect; null of a model of two classes",
        "faces_no_mask": "faces labelled no_mask",
        "faces_uncertain": "faces labelled uncertain; not part of any rate",
        "faces_corrected": "faces whose label people gave, which then counts; boxes without a face among them count as "
        "no face",
    }
    # Null too where privacy.min_cell hides them.
    return [column(name, pa.int64(), f"{text}; null where hidden", nullable=True) for name, text in described.items()]


def _method_columns() -> list[pa.Field]:
    return [
        column("rate_method", pa.string(), "how the rates were estimated: raw, the labels as they are"),
        column("interval_method", pa.string(), f"how …_low and …_high were computed: {_NAIVE}"),
        column("interval_confidence", pa.float64(), "nominal coverage of the intervals, 0 to 1"),
        column("clusters", pa.int64(), "clusters with labelled faces; null where none are named", nullable=True),
        column("cluster_method", pa.string(), "how …_cluster_… were computed; null where they are", nullable=True),
        column("corrected_method", pa.string(), "how …_corrected_… were computed; null where they are", nullable=True),
        column("melded_method", pa.string(), "how …_melded_… were computed; null where they are", nullable=True),
        column("correction_refused", pa.string(), "why there are no corrected rates", nullable=True),
        column(
            "recommended",
            pa.string(),
            "which interval to quote: melded, corrected, cluster, or wilson (the naive "
            "one); null where the faces are one cluster, of which none is right",
            nullable=True,
        ),
    ]


def _score_columns() -> list[pa.Field]:
    return [
        column("no_face_share", pa.float64(), "images_no_face of the images that could be read", nullable=True),
        column("mean_probability", pa.float64(), "mean probability that a face has a mask, 0 to 1", nullable=True),
        column("sd_probability", pa.float64(), "standard deviation of that probability", nullable=True),
        column(
            "score_histogram",
            pa.list_(pa.field("item", pa.int64(), nullable=False)),
            "faces by that probability, in 20 bins of .05 from 0 to 1",
            nullable=True,
        ),
        column("first_captured_at", _INSTANT, "earliest capture time of its images", nullable=True),
        column("last_captured_at", _INSTANT, "latest capture time of its images", nullable=True),
        column("hidden", pa.bool_(), "whether its numbers are hidden, because few faces could be told by them"),
    ]


def compliance_schema(key_names: Iterable[str] = ()) -> pa.Schema:
    """Schema of the compliance tables: one row per group; the level is a folder."""
    keys = [
        column(
            name,
            _KEY_KINDS.get(name, pa.string()),
            f"group key {name!r}; null where the level has no such key{_DERIVED.get(name, '')}",
            nullable=True,
        )
        for name in key_names
    ]
    described = {
        "mask_rate": "faces with a mask of those labelled a class, as it was before there were three classes; equal to "
        "any_mask_rate; null without such faces",
        "any_mask_rate": "faces with a mask, worn correctly or not: (faces_mask + faces_incorrect) / (faces_mask + "
        "faces_incorrect + faces_no_mask); null without such faces",
        "correct_rate": "faces with a mask over nose and mouth: faces_mask / (faces_mask + faces_incorrect + "
        "faces_no_mask); null without such faces, and of a model of two classes, which cannot tell",
    }
    rates = [field for name, text in described.items() for field in _rate_columns(name, text)]
    more = [field for name in ("any_mask_rate", "correct_rate") for field in _more_rate_columns(name)]
    fields = [*keys, *_count_columns(), *rates, *more, *_method_columns(), *_score_columns()]
    return table_schema("compliance", fields, COMPLIANCE_VERSION)


def track_rates_schema(key_names: Iterable[str] = ()) -> pa.Schema:
    """Schema of the rates of tracks: one row per group; the level is a folder. Each person counts once per video."""
    keys = [
        column(
            name,
            _KEY_KINDS.get(name, pa.string()),
            f"group key {name!r}, of a track's first face; null where the level has no such key",
            nullable=True,
        )
        for name in key_names
    ]
    worn = "tracks with a mask, worn correctly or not, of those labelled a class; null without such tracks"
    right = "tracks with a mask over nose and mouth, of the same; null of a model of two classes, which cannot tell"
    counts = {
        "tracks": "tracks of at least tracks.min_frames frames",
        "tracks_mask": "tracks labelled mask",
        "tracks_incorrect": "tracks labelled incorrect; null of two classes",
        "tracks_no_mask": "tracks labelled no_mask",
        "tracks_uncertain": "tracks labelled uncertain; not part of any rate",
    }
    return table_schema(
        "track_rates",
        [
            *keys,
            *(column(name, pa.int64(), f"{text}; null where hidden", nullable=True) for name, text in counts.items()),
            *_rate_columns("any_mask_rate", worn),
            *_rate_columns("correct_rate", right),
            column("interval_method", pa.string(), "how the intervals were computed: wilson"),
            column("interval_confidence", pa.float64(), "nominal coverage of the intervals, 0 to 1"),
            column("hidden", pa.bool_(), "whether its numbers are hidden, because few people could be told by them"),
        ],
    )


def images_schema() -> pa.Schema:
    """Schema of what a shard remembers of its images, in which the next run looks up what has changed."""
    return table_schema(
        "images",
        [
            column("image_uri", pa.string(), "where the image was read from"),
            column("size_bytes", pa.int64(), "size of the file as listed; -1 if unknown"),
            column("version", pa.string(), "changes whenever the file's content may have"),
            column("keys", pa.list_(pa.string()), "values of the run's keys, in their order"),
            column("captured_at_ms", pa.int64(), "capture time, in milliseconds since 1970 in UTC", nullable=True),
            column(
                "problem_code",
                pa.string(),
                "why the path or row of an image list could not be understood",
                nullable=True,
            ),
            column("problem_message", pa.string(), "the same, for people", nullable=True),
            column("outcome", pa.string(), "scored, no_face, or the code of the failure"),
            column("scored_by", pa.string(), "fingerprint of the model and the settings that its rows depend on"),
            column("segment", SEGMENT, "the part of a video, and which frames of it; null of images", nullable=True),
            column("frames", FRAMES, "frames of the segment by how they ended; null of images", nullable=True),
        ],
    )


def conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """A table with the columns of a schema; those that an earlier version did not write are null.

    Raises:
        pyarrow.ArrowException: a column that cannot be null is missing, or has another type.
    """
    for field in schema:
        if field.name not in table.column_names and field.nullable:
            table = table.append_column(field, pa.nulls(table.num_rows, field.type))
    return table.select(schema.names).cast(schema)


RESERVED_NAMES = frozenset(
    name
    for schema in (
        *(predictions_schema, failures_schema, no_face_schema, compliance_schema),
        *(tracks_schema, track_rates_schema),
    )
    for name in ("level", *schema().names)
)
"""Names of the tables' columns, which keys must not have."""
