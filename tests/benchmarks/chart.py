"""A picture of ratios: one row for each piece of work, one mark for each peer, on a log scale.

Writes SVG by hand; decides nothing on what is shown. Used by overlay.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

_COLOURS = ("#4878a8", "#d1603d", "#3f9b5b", "#8e6bbf", "#b8860b", "#666666")
_LABELS, _PLOT, _WIDTH = 500, 560, 1100
_ROW, _TOP = 22, 70
_STYLE = "text{font:13px sans-serif;fill:#222}.tick{stroke:#ddd}.ours{stroke:#222;stroke-width:2}"


def draw(rows: Mapping[str, Mapping[str, float]], peers: Sequence[str]) -> str:
    """Return an SVG of each peer's time as a multiple of ours: to the right, ours is faster."""
    values = [ratio for row in rows.values() for ratio in row.values()]
    low = min(-1, math.floor(math.log2(min(values, default=1))))
    high = max(1, math.ceil(math.log2(max(values, default=1))))
    bottom = _TOP + _ROW * len(rows)

    def x(ratio: float) -> float:
        return _LABELS + _PLOT * (math.log2(ratio) - low) / (high - low)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {bottom + 10}">',
        f'<style>{_STYLE}</style><rect width="100%" height="100%" fill="white"/>',
        f'<text x="{_LABELS}" y="20">time as a multiple of ours; right of 1: ours is faster</text>',
    ]
    for number, peer in enumerate(peers):
        at, colour = _LABELS + 180 * number, _COLOURS[number % len(_COLOURS)]
        parts.append(f'<circle cx="{at + 5}" cy="36" r="5" fill="{colour}"/>')
        parts.append(f'<text x="{at + 15}" y="40">{escape(peer)}</text>')
    for power in range(low, high + 1):
        line, kind = x(2.0**power), "tick" if power else "ours"
        label = f"{2**power}×" if power >= 0 else f"1/{2**-power}"
        parts.append(f'<line class="{kind}" x1="{line}" x2="{line}" y1="{_TOP}" y2="{bottom}"/>')
        parts.append(f'<text x="{line}" y="{_TOP - 6}" text-anchor="middle">{label}</text>')
    for number, (name, ratios) in enumerate(rows.items()):
        y = _TOP + _ROW * (number + 0.5)
        parts.append(
            f'<text x="{_LABELS - 12}" y="{y + 4}" text-anchor="end">{escape(name)}</text>'
        )
        for place, peer in enumerate(peers):
            if peer in ratios:
                # A bar from ours to the peer, thin, so that those of several can be seen.
                bar = f'y="{y - 5 + 4 * place}" height="2"'
                left, right = sorted((x(1), x(ratios[peer])))
                colour = _COLOURS[place % len(_COLOURS)]
                parts.append(
                    f'<rect x="{left:.1f}" width="{right - left:.1f}" {bar} fill="{colour}"/>'
                    f'<circle cx="{x(ratios[peer]):.1f}" cy="{y - 4 + 4 * place}" r="4" '
                    f'fill="{colour}"/>'
                )
    return "\n".join([*parts, "</svg>\n"])
