"""The settings that say how long things are kept. [S]"""

from typing import Final

from dimint.setting_kinds import Setting

__all__ = ["KEEP_SETTINGS"]

_YEARS: Final = 36_500


def _days(name: str, default: float, help_: str) -> Setting:
    return Setting(name, "float", default, help_, frozenset({"consumer", "up"}), unit="days", low=0, high=_YEARS)


KEEP_SETTINGS: Final = (
    _days("keep_samples", 30.0, "How long single samples are kept in the status tables; 0 = for ever."),
    _days("keep_minutes", 400.0, "How long samples summed up by minute are kept; 0 = for ever."),
    _days("keep_hours", 0.0, "How long samples summed up by hour are kept; 0 = for ever."),
    _days("keep_status_log", 30.0, "How long the log keeps dimint.status, which is archived then; 0 = for ever."),
    _days("keep_kv_log", 0.0, "How long the log keeps dimint.kv, which is archived then, as snapshots allow; 0 = for ever."),
    Setting(
        "keep_snapshots",
        "int",
        3,
        "How many snapshots of the store are kept of those that are taken where keep_kv_log is set.",
        frozenset({"consumer", "up"}),
        low=2,
        high=1000,
    ),
)
