"""The compliance table of a level: one row per group, with counts, rates and intervals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import pyarrow as pa

from maskdet.compliance.rates import KnownErrors, RateRule, measures
from maskdet.compliance.small_cells import round_counts
from maskdet.compliance.state import GroupKey, State
from maskdet.schemas import compliance_schema, key_value
from maskdet.sections import PrivacySettings

Group = TypeVar("Group")

_ALWAYS = ("rate_method", "interval_method", "interval_confidence")
# They describe few faces each, or a single image.
_TELLING = ("score_histogram", "first_captured_at", "last_captured_at")


class Disclosure(NamedTuple):
    """What a table does not show.

    Attributes:
        hidden: values of the keys of groups whose numbers are hidden.
        round_to: counts are rounded to multiples of it; rounded counts have only the naive rates.
        guarded: whether small numbers are hidden at all; if so, histograms and capture times are hidden too.
    """

    hidden: frozenset[tuple[str | None, ...]] = frozenset()
    round_to: int = 1
    guarded: bool = False

    @classmethod
    def of(cls, level: str, hidden: Iterable[GroupKey], privacy: PrivacySettings) -> Disclosure:
        """What one level's table does not show, from all groups that are hidden."""
        unseen = frozenset(key.values for key in hidden if key.level == level)
        return cls(unseen, privacy.round_to, privacy.hides)


EVERYTHING = Disclosure()


def compliance_table(
    groups: Mapping[tuple[str | None, ...], State],
    names: Sequence[str],
    all_names: Sequence[str],
    rule: RateRule,
    time_zone: str = "UTC",
    shown: Disclosure = EVERYTHING,
) -> pa.Table:
    """The compliance table of one level.

    Args:
        groups: values of the level's keys → what is known of the group.
        names: the level's keys.
        all_names: keys of all levels, which are the table's columns; those the level lacks are null.
        rule: how rates are computed.
        time_zone: of dates and hours; the schema's metadata has it as ``maskdet.time_zone``.
        shown: what is hidden or rounded.

    Returns:
        One row per group, sorted by key.
    """
    rows = [
        {**columns, **_shown(values, state, rule, shown)}
        for values, columns, state in keyed_rows(groups, names, all_names)
    ]
    schema = compliance_schema(all_names)
    schema = schema.with_metadata({**schema.metadata, b"maskdet.time_zone": time_zone.encode()})
    return pa.Table.from_pylist(rows, schema=schema)


def _shown(values: tuple[str | None, ...], state: State, rule: RateRule, shown: Disclosure) -> dict[str, Any]:
    if values in shown.hidden:
        found = measures(State(), rule)
        return {name: found[name] if name in _ALWAYS else None for name in found} | {"hidden": True}
    if shown.round_to > 1:
        state = State(round_counts(state.counts, shown.round_to))
        rule = rule._replace(errors=KnownErrors(refused="counts are rounded"), clustered=False)
    found = {**measures(state, rule), "hidden": False}
    return {**found, **dict.fromkeys(_TELLING)} if shown.guarded or shown.round_to > 1 else found


def keyed_rows(
    groups: Mapping[tuple[str | None, ...], Group], names: Sequence[str], all_names: Sequence[str]
) -> list[tuple[tuple[str | None, ...], dict[str, Any], Group]]:
    """The groups of a level in the order of its table, sorted by key, with nulls first.

    Args:
        groups: values of the level's keys → what is known of the group.
        names: the level's keys.
        all_names: keys of all levels, which are the table's columns; those the level lacks are null.

    Returns:
        For each group: the values of its keys, its key columns, and what is known of it.
    """
    ordered = sorted(groups.items(), key=lambda item: tuple((value is not None, value or "") for value in item[0]))
    rows = []
    for values, known in ordered:
        keys = dict(zip(names, values, strict=True))
        rows.append((values, {name: key_value(name, keys.get(name)) for name in all_names}, known))
    return rows


def key_union(levels: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Keys of all levels, each once, in the order of first use."""
    return tuple(dict.fromkeys(name for names in levels.values() for name in names))
