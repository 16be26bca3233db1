"""Start faster: Beam and Arrow import packages that scoring never uses, if they find them installed."""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from types import ModuleType

# For type hints of data frames, a MongoDB source, and Beam's own S3 client, which maskdet.storage replaces; together
# a quarter of the second that importing the scoring command took (measured).
_UNUSED = ("pandas", "pymongo", "bson", "boto3")
_COMPLAINS = "apache_beam.io.mongodbio"


class _Absent(MetaPathFinder):
    """Hides modules of some names from the import system."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names

    def find_spec(self, fullname: str, path: object, target: ModuleType | None = None) -> None:
        """Refuse what is left out; leave the rest to other finders."""
        if fullname in self._names:
            raise ModuleNotFoundError(f"{fullname} is left out for now", name=fullname)


@contextmanager
def unused_left_out() -> Iterator[None]:
    """While the body imports Beam, hide packages that Beam can do without; afterwards they can be imported again.

    Arrow looks for pandas when it makes its first array, which happens in here, so that it finds none; code that makes
    data frames looks again. What was imported is exempt from garbage collection, which would scan it many times in
    vain.
    """
    absent = _Absent([name for name in _UNUSED if name not in sys.modules])
    logger = logging.getLogger(_COMPLAINS)
    level = logger.level
    logger.setLevel(logging.ERROR)
    sys.meta_path.insert(0, absent)
    gc.disable()
    try:
        yield
        if "pyarrow" in sys.modules:
            sys.modules["pyarrow"].array([None])
    finally:
        gc.freeze()
        gc.enable()
        logger.setLevel(level)
        sys.meta_path.remove(absent)
