"""How a run's images and segments of videos ended, kept apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from maskdet.tables.receipts import Outcomes, Receipt, ShardReport
from maskdet.tables.run_records import ImageCounts
from maskdet.tables.videos import SegmentCounts


@dataclass(frozen=True)
class Endings:
    """Images and segments of videos by how they ended, each kind separately."""

    images: Outcomes
    segments: SegmentCounts

    @classmethod
    def of(cls, references: Outcomes, segments: SegmentCounts) -> Endings:
        """Separate images from segments among references of both kinds."""
        images = Outcomes(
            references.scored - segments.scored,
            references.no_face - segments.no_face,
            _less(references.failed, segments.failed),
        )
        return cls(images, segments)

    def minus(self, other: Endings) -> Endings:
        """What is left without some of them."""
        mine, others = self.images, other.images
        images = Outcomes(mine.scored - others.scored, mine.no_face - others.no_face, _less(mine.failed, others.failed))
        return Endings(images, self.segments.minus(other.segments))

    @classmethod
    def of_receipts(cls, receipts: Sequence[Receipt]) -> Endings:
        """How everything in some shards ended."""
        references = Outcomes.sum(Outcomes(one.scored, one.no_face, one.failed) for one in receipts)
        return cls.of(references, SegmentCounts.sum(receipt.segments for receipt in receipts))

    @classmethod
    def carried(cls, reports: Sequence[ShardReport]) -> Endings:
        """How the part of it ended that the run did not list."""
        references = Outcomes.sum(report.carried for report in reports)
        return cls.of(references, SegmentCounts.sum(report.carried_segments for report in reports))

    @property
    def failed_by_code(self) -> dict[str, int]:
        """How many images and segments failed."""
        return dict(sorted((Counter(self.images.failed) + Counter(self.segments.failed)).items()))

    @property
    def counts(self) -> ImageCounts:
        """The images, in the form of a run's record."""
        failed = sum(self.images.failed.values())
        return ImageCounts(
            listed=self.images.images, scored=self.images.scored, no_face=self.images.no_face, failed=failed
        )


def _less(failed: Mapping[str, int], others: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted((Counter(failed) - Counter(others)).items()))
