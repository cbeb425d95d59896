"""Plots as inline SVG: nothing is loaded from anywhere, and a browser's dark mode is followed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from typing import Callable, Optional

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
            return f"{value / size:g} {name}"
    return f"{value:g}"


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


def legend(names: list[str], inks: dict[str, Ink]) -> str:
    def swatch(ink: Ink) -> str:
        if ink.dashed:
            return f"background:repeating-linear-gradient(90deg,{ink.colour} 0 5px,transparent 5px 8px)"
        return f"background:{ink.colour}"

    items = "".join(f'<span><i style="{swatch(inks[n])}"></i>{escape(n)}</span>' for n in names)
    return f'<div class="legend">{items}</div>'


def figure(title: str, note: str, body: str, below: str = "", wide: bool = False) -> str:
    if not body:
        return ""
    css = ' class="wide"' if wide else ""
    return f"<figure{css}><figcaption>{escape(title)} <span>{escape(note)}</span></figcaption>{body}{below}</figure>"


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
) -> str:
    """y logarithmic; x through x_position (0..1)."""
    width, height, left, right, top, bottom = 520, 310, 80, 24, 12, 46
    values = [y for c in curves.values() for _, y in c if y > 0]
    if not values:
        return ""
    ticks = ticks_log(min(values), max(values))
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
    missed: bool = False
    note: str = ""


def ratio_bars(bars: list[Bar], reference: str) -> str:
    """How many times better than the reference; the upright mark is the goal, the dashed line is the reference."""
    if not bars:
        return ""
    left, width, line = 350, 1100, 22
    height = 30 + line * len(bars) + 8
    most = max(max(b.ratio for b in bars), max((b.goal or 0) for b in bars))
    top_ratio = max(10.0, most * 1.25)
    low_ratio = min(0.5, min(b.ratio for b in bars) * 0.9)

    def px(r: float) -> float:
        return left + (math.log10(r) - math.log10(low_ratio)) / (math.log10(top_ratio) - math.log10(low_ratio)) * (
            width - left - 60
        )

    out = [f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="times better than {escape(reference)}">']
    for t in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200):
        if low_ratio <= t <= top_ratio:
            dash = ' stroke-dasharray="4 3" style="stroke:var(--soft)"' if t == 1 else ""
            out.append(
                f'<line class="axis" x1="{px(t):.1f}" x2="{px(t):.1f}" y1="22" y2="{height - 6}"{dash}/>'
                f'<text class="tick" x="{px(t):.1f}" y="15" text-anchor="middle">{t:g}×</text>'
            )
    for i, b in enumerate(bars):
        y = 28 + i * line
        colour = "var(--bad)" if b.missed else OURS[0] if b.goal is None else "var(--good)"
        start, end = sorted((px(1), px(b.ratio)))
        after = end
        if b.goal:
            goal = px(b.goal)
            out.append(
                f'<line x1="{goal:.1f}" x2="{goal:.1f}" y1="{y}" y2="{y + line - 5}" style="stroke:var(--ink)" stroke-width="2.5">'
                f"<title>goal ≥ {b.goal:g}×</title></line>"
            )
            if end <= goal + 3 < end + 44:
                after = goal
        out.append(
            f'<text x="{left - 10}" y="{y + 13}" text-anchor="end">{escape(b.label)}</text>'
            f'<rect x="{start:.1f}" y="{y + 3}" width="{max(1.5, end - start):.1f}" height="{line - 11}" rx="2" '
            f'style="fill:{colour}"><title>{escape(b.note)}</title></rect>'
            f'<text x="{after + 6:.1f}" y="{y + 13}">{b.ratio:.1f}×</text>'
        )
    out.append("</svg>")
    return "".join(out)


def dot_rows(
    rows: list[tuple[str, dict[str, float]]], inks: dict[str, Ink], x_text: Callable[[float], str], what: str
) -> str:
    """One line a kind of work, one dot a contender, x logarithmic: who needs how much, and how far it is to the floor."""
    values = [v for _, r in rows for v in r.values() if v > 0]
    if not values:
        return ""
    left, width, line = 350, 1100, 24
    height = 30 + line * len(rows) + 8
    ticks = ticks_log(min(values), max(values))
    low, high = math.log10(ticks[0]), math.log10(ticks[-1])

    def px(v: float) -> float:
        return left + (math.log10(v) - low) / (high - low) * (width - left - 40)

    out = [f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(what)}">']
    for t in ticks:
        out.append(
            f'<line class="axis" x1="{px(t):.1f}" x2="{px(t):.1f}" y1="22" y2="{height - 6}"/>'
            f'<text class="tick" x="{px(t):.1f}" y="15" text-anchor="middle">{x_text(t)}</text>'
        )
    for i, (label, cells) in enumerate(rows):
        y = 28 + i * line + 9
        xs = [px(v) for v in cells.values() if v > 0]
        out.append(f'<text x="{left - 10}" y="{y + 4}" text-anchor="end">{escape(label)}</text>')
        out.append(
            f'<line x1="{min(xs):.1f}" x2="{max(xs):.1f}" y1="{y}" y2="{y}" style="stroke:var(--line)" stroke-width="3"/>'
        )
        # Ours are drawn last, on top.
        for name, v in sorted(cells.items(), key=lambda c: -list(inks).index(c[0])):
            ink = inks[name]
            fill = "var(--card)" if ink.dashed else ink.colour
            out.append(
                f'<circle cx="{px(v):.1f}" cy="{y}" r="5" fill="{fill}" style="fill:{fill}" stroke="{ink.colour}" stroke-width="2">'
                f"<title>{escape(name)}: {x_text(float(f'{v:.3g}'))}</title></circle>"
            )
    out.append("</svg>")
    return "".join(out)
