"""Stock Apache Beam: match, read, decode with Pillow, `RunInference` with its TensorFlow handler, `WriteToParquet`."""

from __future__ import annotations

import io
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import tensorflow as tf
from apache_beam.io import fileio
from apache_beam.io.parquetio import WriteToParquet
from apache_beam.ml.inference.base import KeyedModelHandler, PredictionResult, RunInference
from apache_beam.ml.inference.tensorflow_inference import TFModelHandlerTensor
from apache_beam.options.pipeline_options import PipelineOptions
from PIL import Image

from benchmarks.peers.command import parse_job, worn

BATCH = 64
SCHEMA = pa.schema([("uri", pa.string()), ("probability", pa.float32())])


def main() -> None:
    job = parse_job(__doc__)
    handler = TFModelHandlerTensor(
        job.keras, load_model_args={"compile": False}, min_batch_size=BATCH, max_batch_size=BATCH
    )
    with beam.Pipeline(options=PipelineOptions(["--runner=FnApiRunner"])) as pipeline:
        _ = (
            pipeline
            | fileio.MatchFiles(f"{job.folder}/*")
            | fileio.ReadMatches()
            | beam.Map(decode, job.height, job.width)
            | RunInference(KeyedModelHandler(handler))
            | beam.Map(to_row)
            | WriteToParquet(str(job.output), SCHEMA, num_shards=1, shard_name_template="")
        )


def decode(file: fileio.ReadableFile, height: int, width: int) -> tuple[str, tf.Tensor]:
    """A file's path and its pixels, uint8 ``(height, width, 3)``."""
    with Image.open(io.BytesIO(file.read())) as image:
        pixels = np.asarray(image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR))
    return file.metadata.path, tf.convert_to_tensor(pixels)


def to_row(result: tuple[str, PredictionResult]) -> dict[str, Any]:
    """A row of the table."""
    uri, prediction = result
    return {"uri": uri, "probability": float(worn(np.asarray(prediction.inference)[np.newaxis])[0])}


if __name__ == "__main__":
    main()
