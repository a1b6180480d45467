"""From which values on something counts as much, hot or idle: settings that pages, terminal views and alerts share. [S]"""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, Final

from dimint.setting_kinds import Setting

__all__ = ["THRESHOLDS", "THRESHOLD_SETTINGS", "Thresholds", "thresholds_of"]

_WHO: Final = frozenset({"web", "alerts", "up"})


def _row(name: str, kind: str, default: Any, help_: str, **more: Any) -> Setting:
    return Setting(name, kind, default, help_, _WHO, **more)


THRESHOLD_SETTINGS: Final[tuple[Setting, ...]] = (
    _row("some_percent", "int", 65, "Shares of this much and more are yellow in terminals.", unit="%", low=0, high=100),
    _row("much_percent", "int", 90, "Shares of this much and more are red in terminals; memory is marked on pages.",
         unit="%", low=0, high=100),
    _row("warm_temperature", "int", 70, "GPUs of this temperature and more are yellow in terminals.", unit="°C", low=0, high=200),
    _row("hot_temperature", "int", 88, "GPUs of this temperature and more are hot: a problem on the pages, red in terminals, and"
         " an alert where the card tells no limit of its own.", unit="°C", low=0, high=200),
    _row("idle_percent", "int", 5, "A GPU that is less busy than this is idle.", unit="%", low=0, high=100),
    _row("idle_held", "float", 1800.0, "Time after which a GPU that is held and idle is a problem and an alert.",
         unit="s", low=1, high=30 * 86400),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)  # no slots: settings have several bases
class Thresholds:
    """Percent, °C and seconds; see the table."""

    some_percent: int
    much_percent: int
    warm_temperature: int
    hot_temperature: int
    idle_percent: int
    idle_held: float


def thresholds_of(settings: Thresholds) -> Thresholds:
    """These alone, of settings that have more."""
    return Thresholds(**{field.name: getattr(settings, field.name) for field in fields(Thresholds)})


def _defaults(rows: Iterable[Setting]) -> Thresholds:
    return Thresholds(**{row.name: row.default for row in rows})


THRESHOLDS: Final = _defaults(THRESHOLD_SETTINGS)
"""The defaults."""
