"""Plots as inline SVG, and rows of bars and dots as plain elements, whose text keeps its size in a narrow window: nothing is
loaded from anywhere, and a browser's dark mode is followed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import Callable, Optional

from .metrics import ratio_text

# Distinguishable for colour-blind readers too; ours first, the reference, the floor in grey.
OURS = ["#0072b2", "#009e73", "#56b4e9", "#cc79a7", "#b8860b", "#7b61c9"]
REFERENCE_COLOUR = "#d55e00"
FLOOR_COLOUR = "#8a8a8a"

Curve = list[tuple[float, float]]


@dataclass(frozen=True)
class Ink:
    """How a contender is drawn. The one-core columns are the same colour, dashed or hollow."""

    colour: str
    dashed: bool = False


def short(value: float) -> str:
    for size, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {name}"
    return f"{value:g}"


def memory_text(value: float) -> str:
    return f"{value / 1000:g} kB" if value >= 1000 else f"{value:g} B"


def bytes_text(value: float) -> str:
    for size, name in ((2**20, "MiB"), (2**10, "KiB")):
        if value >= size:
            return f"{value / size:g} {name}"
    return "0 B" if value == 1 else f"{value:g} B"  # a logarithmic axis has no zero; nothing is measured at one byte


def bandwidth_text(value: float) -> str:
    for size, name in ((1e9, "GB/s"), (1e6, "MB/s"), (1e3, "kB/s")):
        if value >= size:
            return f"{value / size:g} {name}"
    return f"{value:g} B/s"


def ns_text(value: float) -> str:
    for size, name in ((1e9, "s"), (1e6, "ms"), (1e3, "µs")):
        if value >= size:
            return f"{value / size:g} {name}"
    return f"{value:g} ns"


def legend(names: list[str], inks: dict[str, Ink], says: Optional[dict[str, str]] = None) -> str:
    """says: what stands behind a name; aligned, then."""

    def swatch(ink: Ink) -> str:
        if ink.dashed:
            return f"background:repeating-linear-gradient(90deg,{ink.colour} 0 5px,transparent 5px 8px)"
        return f"background:{ink.colour}"

    def text(name: str) -> str:
        more = (says or {}).get(name, "")
        return escape(name) + (f" <small>{escape(more)}</small>" if more else "")

    items = "".join(f'<span><i style="{swatch(inks[n])}"></i>{text(n)}</span>' for n in names)
    return f'<div class="legend{" aligned" if says else ""}">{items}</div>'


def figure(title: str, note: str, body: str, below: str = "", wide: bool = False) -> str:
    if not body:
        return ""
    css = ' class="wide"' if wide else ""
    return f"<figure{css}><figcaption>{escape(title)} <span>{escape(note)}</span></figcaption>{body}{below}</figure>"


def apart(xs: list[float], position: Callable[[float], float]) -> list[float]:
    """Of the measured places on an axis those that can be labelled without touching; the last one always."""
    out = xs[-1:]
    for x in xs:
        if (len(out) == 1 or position(x) - position(out[-2]) >= 0.115) and position(xs[-1]) - position(x) >= 0.115:
            out.insert(-1, x)
    return out


def ticks_log(low: float, high: float) -> list[float]:
    """1, 10, 100, … ; with 2 and 5 between them when there would be too few."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    decades = [10.0**e for e in range(first, last + 1)]
    if high / low < 300:
        fine = [m * d for d in decades for m in (1.0, 2.0, 5.0)]
        below = [t for t in fine if t <= low * 1.0001] or fine[:1]
        above = [t for t in fine if t >= high * 0.9999] or fine[-1:]
        return [t for t in fine if below[-1] <= t <= above[0]]
    step = max(1, (last - first) // 6)
    return decades[::step] if decades[-1] in decades[::step] else [*decades[::step], decades[-1]]


def line_plot(
    curves: dict[str, Curve],
    inks: dict[str, Ink],
    labels: tuple[str, str],
    x_text: Callable[[float], str],
    x_position: Callable[[float], float],
    x_ticks: list[float],
    y_text: Callable[[float], str] = short,
    dots: bool = True,
    y_range: Optional[tuple[float, float]] = None,
) -> str:
    """y logarithmic; x through x_position (0..1). y_range: of several plots that are to be compared."""
    width, height, left, right, top, bottom = 520, 310, 80, 24, 12, 46
    values = [y for c in curves.values() for _, y in c if y > 0]
    if not values:
        return ""
    ticks = ticks_log(*(y_range or (min(values), max(values))))
    low, high = math.log10(ticks[0]), math.log10(ticks[-1])
    high = high if high > low else low + 1

    def px(x: float) -> float:
        return left + x_position(x) * (width - left - right)

    def py(y: float) -> float:
        return top + (1 - (math.log10(y) - low) / (high - low)) * (height - top - bottom)

    out = [f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(labels[1])} by {escape(labels[0])}">']
    for t in ticks:
        out.append(
            f'<line class="axis" x1="{left}" x2="{width - right}" y1="{py(t):.1f}" y2="{py(t):.1f}"/>'
            f'<text class="tick" x="{left - 6}" y="{py(t) + 4:.1f}" text-anchor="end">{y_text(t)}</text>'
        )
    for t in x_ticks:
        out.append(
            f'<line class="axis" x1="{px(t):.1f}" x2="{px(t):.1f}" y1="{top}" y2="{height - bottom}"/>'
            f'<text class="tick" x="{px(t):.1f}" y="{height - bottom + 16}" text-anchor="middle">{x_text(t)}</text>'
        )
    middle = (top + height - bottom) / 2
    out.append(
        f'<text class="tick" x="{(left + width - right) / 2}" y="{height - 7}" text-anchor="middle">{escape(labels[0])}</text>'
        f'<text class="tick" x="12" y="{middle}" text-anchor="middle" transform="rotate(-90 12 {middle})">{escape(labels[1])}</text>'
    )
    for name, curve in curves.items():
        ink = inks[name]
        points = [(px(x), py(y), x, y) for x, y in sorted(curve) if y > 0]
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b, _, _ in points)
        dash = ' stroke-dasharray="6 4"' if ink.dashed else ""
        out.append(
            f'<polyline points="{path}" fill="none" stroke="{ink.colour}" stroke-width="2.2" stroke-linejoin="round"{dash}/>'
        )
        if dots:
            out += [
                f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3.4" fill="{ink.colour}"><title>{escape(name)}, {x_text(x)}: '
                f'{y_text(float(f"{y:.3g}"))}</title></circle>'
                for a, b, x, y in points
            ]
    out.append("</svg>")
    return "".join(out)


@dataclass(frozen=True)
class Bar:
    label: str
    ratio: float
    goal: Optional[float] = None
    css: str = ""  # good, bad, or kernel: missed, and the floor misses, too
    note: str = ""


def _rows(ticks: list[tuple[float, str]], rows: list[tuple[str, str]], css: str, what: str) -> str:
    """Rows of (label, what stands on its track), below an axis of (percent, text); the tracks share its grid lines."""
    grid = ",".join(f"linear-gradient(var(--line),var(--line)) {at:.2f}% 0/1px 100% no-repeat" for at, _ in ticks)
    axis = "".join(f'<span style="left:{at:.2f}%">{text}</span>' for at, text in ticks)
    body = "".join(f'<div class="label">{escape(label)}</div><div class="track">{marks}</div>' for label, marks in rows)
    return (
        f'<div class="rows {css}" role="img" aria-label="{escape(what)}" style="--grid:{grid}">'
        f'<div class="label"></div><div class="ticks">{axis}</div>{body}</div>'
    )


def _position(low: float, high: float) -> Callable[[float], float]:
    """Percent of the way on a logarithmic axis."""
    span = math.log10(high) - math.log10(low)
    return lambda v: 100 * (math.log10(v) - math.log10(low)) / span


def ratio_bars(bars: list[Bar], reference: str) -> str:
    """How many times better than the reference; the upright mark is the goal, bars begin at the reference itself."""
    if not bars:
        return ""
    most = max(max(b.ratio for b in bars), max((b.goal or 0) for b in bars))
    low, high = min(0.5, min(b.ratio for b in bars) * 0.9), max(10.0, most * 1.1)
    at = _position(low, high)
    ticks = [(at(t), f"{t:g}×") for t in (0.01, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 1000) if low <= t <= high]
    rows = []
    for b in bars:
        start, end = sorted((at(1), at(b.ratio)))
        marks = (
            f'<i class="bar {b.css}" style="left:{start:.2f}%;width:max(2px,{end - start:.2f}%)" title="{escape(b.note)}"></i>'
        )
        after = end
        if b.goal:
            goal = at(b.goal)
            marks += f'<i class="goal" style="left:{goal:.2f}%" title="goal ≥ {b.goal:g}×"></i>'
            if end - 0.5 <= goal < end + 11:
                after = goal
        marks += f'<span style="left:{after:.2f}%">{ratio_text(b.ratio)}</span>'
        rows.append((b.label, marks))
    return _rows([(a, text) for a, text in ticks], rows, "bars", f"times better than {reference}")


def dot_rows(
    rows: list[tuple[str, dict[str, float]]], inks: dict[str, Ink], x_text: Callable[[float], str], what: str
) -> str:
    """One line a kind of work, one dot a contender, x logarithmic: who needs how much, and how far it is to the floor."""
    values = [v for _, r in rows for v in r.values() if v > 0]
    if not values:
        return ""
    ticks = ticks_log(min(values), max(values))
    at = _position(ticks[0], ticks[-1] if ticks[-1] > ticks[0] else ticks[0] * 10)
    out = []
    for label, cells in rows:
        xs = [at(v) for v in cells.values() if v > 0]
        marks = f'<i class="span" style="left:{min(xs):.2f}%;width:{max(xs) - min(xs):.2f}%"></i>'
        # Ours are drawn last, on top.
        for name, v in sorted(cells.items(), key=lambda c: -list(inks).index(c[0])):
            ink = inks[name]
            fill = "var(--card)" if ink.dashed else ink.colour
            note = f"{name}: {x_text(float(f'{v:.3g}'))}"
            marks += f'<i class="dot" style="left:{at(v):.2f}%;background:{fill};border-color:{ink.colour}" title="{escape(note)}"></i>'
        out.append((label, marks))
    return _rows([(at(t), x_text(t)) for t in ticks], out, "dots", what)
