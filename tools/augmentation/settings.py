"""Settings of composites, validated: the content of ``tools/configs/augment.yaml``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from maskdet.config import CountOrZero, Ratio


class Kinds(BaseModel):
    """How many images of each kind."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    drawn_mask: CountOrZero = 3600
    """Unmasked faces with a mask drawn on; labelled masked."""
    covered: CountOrZero = 3200
    """Unmasked faces partly hidden by a hand, hair, a beard, a pole, a cup or a head; labelled unmasked."""
    swapped_unmasked: CountOrZero = 2000
    """Photographs of people whose face, usually masked, is replaced by an unmasked one."""
    swapped_masked: CountOrZero = 1700
    """The same with masked faces, so that the seam gives no clue to the class."""
    bust_unmasked: CountOrZero = 1500
    """Unmasked faces on drawn shoulders."""
    bust_masked: CountOrZero = 1500
    detected_unmasked: CountOrZero = 2000
    """Unmasked faces as scoring cuts them out, from their own image or from a photograph or drawn shoulders that they
    were put on."""
    detected_masked: CountOrZero = 2000


class ComposeSettings(BaseModel):
    """Everything that one run of ``tools.augment`` depends on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    manifest: str = "build/manifest/images.parquet"
    """The training manifest whose images are used; suspicious and flat ones are left out."""
    split: Literal["train", "validation", "test"] = "train"
    sources: tuple[str, ...] = ()
    """Sources of the manifest to use; empty: all of them."""
    official_splits: tuple[Literal["train", "validation", "test"], ...] = ("train",)
    """Official splits to use; sources without official splits are always used. Empty: use all."""
    output: str = "build/composites"
    kinds: Kinds = Kinds()
    min_score: Ratio = 0.45
    """Faces with a lower detection score are not used."""
    max_side_px: Annotated[int, Field(ge=64)] = 480
    """Larger photographs are shrunk."""
    max_scene_face: Annotated[float, Field(gt=0.0, le=1.0)] = 0.62
    """A photograph whose face takes up more of its height has too little around it to serve as surroundings."""
    seed: CountOrZero = 7
