"""The table of families."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nag.families.family import Family

__all__ = ["FamilyTable"]

COLUMNS = (
    "family",
    "models",
    "attention",
    "exact",
    "CFG",
    "torch.compile",
    "calls join",
    "scale",
    "tau",
    "alpha",
    "defaults from",
)


class FamilyTable(tuple[Family, ...]):
    """All families; prints as a Markdown table."""

    __slots__ = ()

    def __str__(self) -> str:
        return self.markdown()

    def markdown(self, more: Mapping[str, Mapping[str, str]] | None = None) -> str:
        """Returns the table. more: further columns, by the families' names."""
        more = more or {}
        lines = [[*COLUMNS, *more], ["---"] * (len(COLUMNS) + len(more))]
        for family in sorted(self, key=lambda family: family.name.lower()):
            lines.append([*_row(family), *(column.get(family.name, "") for column in more.values())])
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _row(family: Family) -> Sequence[str]:
    numbers = (family.defaults.scale, family.defaults.tau, family.defaults.alpha)
    if family.refused is not None:
        return [family.name, family.models, family.attention, f"refused: {family.refused}", *[""] * (len(COLUMNS) - 4)]
    cfg = {"batched": "in one batch", "separate": "calls of its own"}[family.cfg]
    facts = [family.notes or "yes", cfg, family.compiled, _describe_joining(family)]
    return [family.name, family.models, family.attention, *facts, *(f"{n:g}" for n in numbers), family.source]


def _describe_joining(family: Family) -> str:
    if family.cannot_join is not None:
        return f"no: {family.cannot_join}"
    text = "text of any length" if family.pads_text else "text of one length"
    return text if family.join_note is None else f"{text}, {family.join_note}"
