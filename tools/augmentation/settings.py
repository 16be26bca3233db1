"""What composites are made of and how many, as validated settings: the content of ``tools/configs/augment.yaml``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from maskdet.config import CountOrZero, Ratio


class Kinds(BaseModel):
    """How many images of each kind."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    drawn_mask: CountOrZero = 3600
    """Unmasked faces with a mask drawn on: masked."""
    covered: CountOrZero = 3200
    """Unmasked faces behind a hand, hair, a beard, a pole, a cup, a head: unmasked."""
    swapped_unmasked: CountOrZero = 2000
    """Photographs of persons whose face, masked mostly, gives way to an unmasked one."""
    swapped_masked: CountOrZero = 1700
    """The same with masked ones, so that the seam tells nothing."""
    bust_unmasked: CountOrZero = 1500
    """Unmasked faces on drawn shoulders."""
    bust_masked: CountOrZero = 1500
    detected_unmasked: CountOrZero = 2000
    """Unmasked faces as scoring cuts them out: of their image, of a photograph or drawn shoulders they were put on."""
    detected_masked: CountOrZero = 2000


class ComposeSettings(BaseModel):
    """One making of composites."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    manifest: str = "build/manifest/images.parquet"
    """The training manifest whose images are used; suspicious and flat ones are left out."""
    split: Literal["train", "validation", "test"] = "train"
    sources: tuple[str, ...] = ()
    """None named: all of the manifest's."""
    official_splits: tuple[Literal["train", "validation", "test"], ...] = ("train",)
    """Leave out images of any other official split (but keep sources without any); none named: leave out none."""
    output: str = "build/composites"
    kinds: Kinds = Kinds()
    min_score: Ratio = 0.45
    """Faces that the detector is less sure of are not used."""
    max_side_px: Annotated[int, Field(ge=64)] = 480
    """Larger photographs are shrunk."""
    max_scene_face: Annotated[float, Field(gt=0.0, le=1.0)] = 0.62
    """A photograph whose face takes up more of its height shows no surroundings worth having."""
    seed: CountOrZero = 7
