"""Compare the sites of an output: mask rates with their intervals, and how many faces and images they are based on.

    python examples/compare_sites.py tables/

Reads the compliance table of a level ``site`` whose only key is ``site``; score with
``--set 'compliance.levels={site: [site]}'``.
"""

import sys

import pyarrow.parquet as pq


def describe(row: dict) -> str:
    """One line about a site: its rate, or why there is none."""
    seen = f"{row['faces']:,} faces in {row['images_listed']:,} images ({row['images_no_face']:,} without a face)"
    if row["mask_rate"] is None:
        return f"{row['site']}: no rate, {seen}"
    low, high = row["mask_rate_low"], row["mask_rate_high"]
    return f"{row['site']}: {row['mask_rate']:.1%} masked ({low:.1%} to {high:.1%}), {seen}"


def main(output: str) -> None:
    """Print the sites, the lowest rate first."""
    rows = pq.ParquetFile(f"{output}/compliance/level=site/groups.parquet").read().to_pylist()
    for row in sorted(rows, key=lambda row: (row["mask_rate"] is None, row["mask_rate"])):
        print(describe(row))


if __name__ == "__main__":
    main(sys.argv[1].rstrip("/"))
