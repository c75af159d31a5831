"""How many letters are kept, and how long, beside the stamp that each carries."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import attrs

from .errors import InvalidQuery, InvalidTask
from .query import glob_match
from .task import Duration, seconds


def _check_count(_: object, __: object, value: int | None) -> None:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
        raise InvalidTask("count", f"{value!r} is no number of letters; give a whole number, 0 or more")


def _to_age(value: Duration | None) -> timedelta | None:
    return None if value is None else timedelta(seconds=seconds("age", value))


def _to_rules(value: Any) -> dict[str, Retention]:
    if not isinstance(value, Mapping):
        raise InvalidTask("by_type", f'{value!r} is no mapping; give {{"email.*": Retention(count=1000)}}')
    for pattern, rule in value.items():
        if not isinstance(pattern, str) or not pattern:
            raise InvalidTask("by_type", f"{pattern!r} is no type; give a name or a glob such as 'email.*'")
        try:
            glob_match(pattern, "")
        except InvalidQuery as error:
            raise InvalidTask("by_type", str(error)) from None
        if not isinstance(rule, Retention):
            raise InvalidTask("by_type", f"{pattern!r} has {rule!r}; give a Retention")
        if rule.by_type:
            raise InvalidTask("by_type", f"{pattern!r} has a by_type of its own; write its globs beside this one")
    return dict(value)


@attrs.frozen(kw_only=True)
class Retention:
    r"""Limits on the letters that are kept, applied only by workers whose queue was given them.

    A letter goes by what limits it first: this, or the ``dlq_ttl`` with which it was stamped when it died. Raises
    InvalidTask (a ValueError) that names the field.

    Attributes:
        count: the newest so many stay, by death; None is no limit.
        age: seconds or a timedelta since the death; what is older goes. None is no limit.
        by_type: limits of their own for some types, by name or glob (only ``*``; ``\*`` is a literal one). A letter obeys
            the first that matches its type, alone and whole: nothing is inherited, ``Retention()`` keeps all. The types
            of one glob are counted together, and so are those that no glob matches.
    """

    count: int | None = attrs.field(default=None, validator=_check_count)
    age: timedelta | None = attrs.field(default=None, converter=_to_age)
    by_type: Mapping[str, Retention] = attrs.field(factory=dict, converter=_to_rules, hash=False)

    def glob(self, type: str) -> str | None:
        """The name or glob of ``by_type`` that a type's letters obey; None where it is none of them."""
        return next((pattern for pattern in self.by_type if glob_match(pattern, type)), None)

    @property
    def limits(self) -> bool:
        """Whether it takes anything away itself, ``by_type`` aside."""
        return self.count is not None or self.age is not None
