"""The compliance table of a level: one row per group, with counts, rates and intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from maskdet.compliance.rates import RateRule, measures
from maskdet.compliance.state import State
from maskdet.schemas import compliance_schema, key_value


def compliance_table(
    groups: Mapping[tuple[str | None, ...], State],
    names: Sequence[str],
    all_names: Sequence[str],
    rule: RateRule,
    time_zone: str = "UTC",
) -> pa.Table:
    """The compliance table of one level.

    Args:
        groups: values of the level's keys → what is known of the group.
        names: the level's keys.
        all_names: keys of all levels, which are the table's columns; those the level lacks are null.
        rule: how rates are computed.
        time_zone: that of dates and hours; in the schema's metadata as ``maskdet.time_zone``.

    Returns:
        One row per group, sorted by key.
    """
    ordered = sorted(groups.items(), key=lambda item: tuple((value is not None, value or "") for value in item[0]))
    rows = []
    for values, state in ordered:
        keys = dict(zip(names, values, strict=True))
        rows.append({**{name: key_value(name, keys.get(name)) for name in all_names}, **measures(state, rule)})
    schema = compliance_schema(all_names)
    schema = schema.with_metadata({**schema.metadata, b"maskdet.time_zone": time_zone.encode()})
    return pa.Table.from_pylist(rows, schema=schema)


def key_union(levels: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Keys of all levels, each once, in the order of first use."""
    return tuple(dict.fromkeys(name for names in levels.values() for name in names))
