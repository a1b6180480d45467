"""The colours of the pages: whatever is read or told apart stands out from what is behind it, by day and by night."""

import re
from pathlib import Path

import pytest

STYLE = (Path(__file__).parents[3] / "webapp" / "static" / "style.css").read_text()
DAY, _, NIGHT = STYLE.partition("@media (prefers-color-scheme: dark)")
TEXTS = ("text", "soft", "ok", "wait", "bad", "warn", "sim")
DRAWN = ("util", "mem", "cpu", "ram", "focus", *(f"c{at}" for at in range(10)))


def colours(css: str) -> dict[str, str]:
    """The first value of each variable."""
    found: dict[str, str] = {}
    for name, value in re.findall(r"--([a-z0-9-]+): (#[0-9a-f]{6});", css):
        found.setdefault(name, value)
    return found


def contrast(one: str, other: str) -> float:
    """Of two colours, 1 to 21 (https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio)."""

    def luminance(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", [DAY, NIGHT], ids=["day", "night"])
def test_everything_stands_out(scheme: str) -> None:
    """Texts by 4.5 from every ground that they stand on, lines and bars by 3, as WCAG asks at level AA."""
    of = colours(scheme)
    assert (contrast("#000000", "#ffffff"), contrast("#777777", "#777777")) == (21, 1)
    pale = [
        f"{name} on {ground}: {contrast(of[name], of[ground]):.1f}"
        for name, ground, least in (
            *((name, ground, 4.5) for name in TEXTS for ground in ("page", "card")),
            *((name, "track", 4.5) for name in ("text", "ok")),
            ("bad", "bad-soft", 4.5),
            ("sim", "sim-soft", 4.5),
            *((name, "card", 3.0) for name in DRAWN),
        )
        if contrast(of[name], of[ground]) < least
    ]
    assert pale == []
