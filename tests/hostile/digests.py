"""Prints what each mutant decodes to; processes whose fresh memory is filled differently must print the same.

MALLOC_PERTURB_=85 python -m tests.hostile.digests SEED COUNT OUTPUT
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from pathlib import Path

from maskdet.errors import ImageFault
from maskdet.images.codecs import PILLOW, Codecs, load_codecs
from maskdet.images.preprocessing import ImageLimits, decode_upright
from tests.hostile.corpus import corpus


def digest(data: bytes, codecs: Codecs, *, keep: bool = False) -> str:
    """A digest of a file's pixels, or its failure."""
    try:
        upright = decode_upright(data, ImageLimits(keep_damaged=keep), codecs=codecs)
    except ImageFault as fault:
        return f"{fault.code}: {fault.message}"
    return f"{hashlib.sha256(upright.image.tobytes()).hexdigest()} {upright.damaged}"


def main() -> None:
    seed, count, output = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    codecs = {"fast": load_codecs("fast"), "pillow": PILLOW}
    answers, slowest = [], (0.0, -1)
    for mutant in corpus(seed, count):
        began = time.process_time()
        found = digest(mutant.data, codecs["fast"])
        slowest = max(slowest, (time.process_time() - began, mutant.number))
        other = digest(mutant.data, codecs["pillow"])
        kept = digest(mutant.data, codecs["fast"], keep=True)
        answers.append([mutant.kind, mutant.mutation, found, other, kept])
    output.write_text(json.dumps({"answers": answers, "slowest": slowest}))


if __name__ == "__main__":
    main()
