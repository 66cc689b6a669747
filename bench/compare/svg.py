"""Pictures of figures, as SVG: bars, and lines on logarithmic axes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

ours, without, peer, muted, ink = "#1f6feb", "#57606a", "#d1791f", "#d0d7de", "#24292f"
colours = [ours, peer, "#2da44e", "#8250df", without]
_font = 'font-family="Helvetica, Arial, sans-serif"'


def _text(x: float, y: float, text: str, size: int = 12, anchor: str = "start", colour: str = ink,
          bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return (f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{colour}"{weight} '
            f"{_font}>{escape(text)}</text>")


def _line(x1: float, y1: float, x2: float, y2: float, colour: str = muted, dashes: str = "") -> str:
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    return (f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" '
            f'stroke-width="1"{dashed}/>')


def _document(width: int, height: int, title: str, parts: list[str]) -> str:
    # A ground of its own: pages are dark or light.
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" role="img">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>', *parts, "</svg>", ""])


@dataclass
class Bar:
    name: str
    value: float
    shown: str
    colour: str = without


def bars(title: str, groups: Sequence[tuple[str, Sequence[Bar]]], least: float, unit: str,
         marks: Sequence[tuple[float, str]] = (), logarithmic: bool = True) -> str:
    """Horizontal ones, in groups. `least` is where the axis begins; marks are lines across it."""
    width, left, right, height, thick = 820, 250, 110, 40, 20
    values = [bar.value for _, group in groups for bar in group] + [value for value, _ in marks]
    most = max([*values, least * 1.01])

    def place(value: float) -> float:
        value = max(value, least)
        share = math.log(value / least) / math.log(most / least) if logarithmic else (value - least) / (most - least)
        return left + share * (width - left - right)

    parts = [_text(12, 24, title, 15, bold=True)]
    top = height
    for name, group in groups:
        parts.append(_text(12, height + 16, name, 12, bold=True))
        height += 24
        for bar in group:
            end = place(bar.value)
            parts += [_text(left - 8, height + 14, bar.name, 12, "end"),
                      f'<rect x="{left}" y="{height + 2}" width="{max(end - left, 1):.1f}" height="{thick - 5}" '
                      f'fill="{bar.colour}"/>',
                      _text(max(end, left) + 6, height + 14, bar.shown, 12)]
            height += thick
        height += 10
    for value, text in marks:
        parts += [_line(place(value), top, place(value), height, "#cf222e", "4 3"),
                  _text(place(value), height + 12, text, 11, "middle", "#cf222e")]
    scale = ", logarithmic" if logarithmic else ""
    parts.append(_text(width - 12, height + 12, unit + scale, 11, "end", without))
    return _document(width, height + 24, title, parts)


@dataclass
class Curve:
    name: str
    points: Sequence[tuple[float, float]]


@dataclass
class Panel:
    title: str
    across: str
    curves: Sequence[Curve]
    shown: Callable[[float], str]
    proportional: bool = True  # with the line that "twice as many, twice as long" would be


def panels(title: str, all_panels: Sequence[Panel]) -> str:
    """Two in a row, both axes logarithmic; what is at 0 stands at the left."""
    each_width, each_height = 400, 280
    rows = -(-len(all_panels) // 2)
    parts = [_text(12, 24, title, 15, bold=True)]
    for number, panel in enumerate(all_panels):
        parts += _panel(panel, 10 + number % 2 * each_width, 36 + number // 2 * each_height, each_width - 10,
                        each_height - 10)
    return _document(2 * each_width + 20, 44 + rows * each_height, title, parts)


def _panel(panel: Panel, x0: float, y0: float, width: float, height: float) -> list[str]:
    left, right, top, bottom = x0 + 62, x0 + width - 14, y0 + 30, y0 + height - 42
    points = [point for curve in panel.curves for point in curve.points]
    across = sorted({x for x, _ in points})
    positive = [x for x in across if x > 0] or [1]
    low_x, high_x = positive[0], max(positive[-1], positive[0] * 2)
    if 0 in across:
        low_x /= 4
    low_y = 10 ** math.floor(math.log10(min(y for _, y in points)))
    high_y = 10 ** math.ceil(math.log10(max(y for _, y in points) * 1.05))

    def at(x: float, y: float) -> tuple[float, float]:
        share_x = math.log(max(x, low_x) / low_x) / math.log(high_x / low_x)
        share_y = math.log(max(y, low_y) / low_y) / math.log(high_y / low_y)
        return left + share_x * (right - left), bottom - share_y * (bottom - top)

    parts = [_text(x0 + 6, y0 + 16, panel.title, 13, bold=True)]
    tick = low_y
    while tick <= high_y * 1.01:
        y = at(low_x, tick)[1]
        parts += [_line(left, y, right, y), _text(left - 6, y + 4, panel.shown(tick), 11, "end", without)]
        tick *= 10
    last_shown = -math.inf
    for x in across:
        place = at(x, low_y)[0]
        if place - last_shown >= 44:
            parts += [_text(place, bottom + 16, f"{x:,.0f}", 11, "middle", without)]
            last_shown = place
    parts.append(_text((left + right) / 2, bottom + 34, panel.across, 11, "middle"))
    for number, curve in enumerate(panel.curves):
        colour = colours[number % len(colours)]
        placed = [at(x, y) for x, y in curve.points]
        parts.append(f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="'
                     + " ".join(f"{x:.1f},{y:.1f}" for x, y in placed) + '"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in placed]
        parts.append(_text(left + 8, top + 14 + 15 * number, curve.name, 11, colour=colour))
    if panel.proportional:
        parts += _proportion(panel.curves[0], at, low_y, high_y)
    return parts


def _proportion(curve: Curve, at, low_y: float, high_y: float) -> list[str]:
    """From the last point of the curve down: above it is worse than linear."""
    x, y = curve.points[-1]
    least = max(next((x for x, _ in curve.points if x > 0), 1), x * low_y / y)
    (x1, y1), (x2, y2) = at(least, min(max(y * least / x, low_y), high_y)), at(x, y)
    return [_line(x1, y1, x2, y2, without, "3 3")]
