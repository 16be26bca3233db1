"""Start sooner: Beam imports at its own import what scoring never uses, if it finds it installed."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# For type hints of data frames, a MongoDB source, and Beam's own S3 client, whose place maskdet.storage takes; together
# a quarter of the second that importing the scoring command took (measured).
_UNUSED = ("pandas", "pymongo", "bson", "boto3")
_COMPLAINS = "apache_beam.io.mongodbio"


@contextmanager
def unused_left_out() -> Iterator[None]:
    """While the body imports Beam, pass for a machine that lacks what Beam can do without; afterwards all is there."""
    absent = [name for name in _UNUSED if name not in sys.modules]
    logger = logging.getLogger(_COMPLAINS)
    level = logger.level
    logger.setLevel(logging.ERROR)
    for name in absent:
        sys.modules[name] = None  # type: ignore[assignment]  # Python's own sign for "not to be imported"
    try:
        yield
    finally:
        logger.setLevel(level)
        for name in absent:
            del sys.modules[name]
