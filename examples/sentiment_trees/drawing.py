"""Parses as pictures: a page of trees whose nodes have the colour of their sentiment."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from treebank import NAMES, Sentence

# From red over grey to blue, which most colour-blind people can tell apart; the signs say it too.
COLOURS = ("#b2182b", "#ef8a62", "#e3e3e3", "#67a9cf", "#2166ac")
INKS = ("#ffffff", "#222222", "#222222", "#222222", "#ffffff")
SIGNS = ("−−", "−", "0", "+", "++")  # noqa: RUF001

RADIUS = 11
LEVEL = 40  # from a node's height to the next
LETTER = 7.4  # the width of a letter of the words
BOLD_LETTER = 8.6  # of the title
GAP = 12  # between two words
MARGIN = 20
WORDS = 34  # below the leaves
TITLE = 34
KEY = 140  # the width of a name in the legend


@dataclass(frozen=True)
class Place:
    """Where a node is drawn."""

    x: float
    y: float


def layout(sentence: Sentence) -> tuple[list[Place], float, float]:
    """The place of each node, and the picture's width and height.

    The words stand side by side at the bottom, each as wide as its letters; a node stands above
    the middle of its children, one level above the higher of them.
    """
    count = len(sentence.labels)
    x, height = [0.0] * count, [0] * count
    right = MARGIN
    words = iter(sentence.words)
    for node, below in enumerate(sentence.children):
        if not below:
            width = max(LETTER * len(next(words)), 2 * RADIUS)
            x[node] = right + width / 2
            right += width + GAP
    # Children stand behind their parents, so from the end both are there before it.
    for node in reversed(range(count)):
        if below := sentence.children[node]:
            x[node] = sum(x[child] for child in below) / len(below)
            height[node] = 1 + max(height[child] for child in below)
    bottom = TITLE + MARGIN + RADIUS + height[0] * LEVEL
    places = [Place(x[node], bottom - height[node] * LEVEL) for node in range(count)]
    return places, right - GAP + MARGIN, bottom + WORDS


def parse_svg(sentence: Sentence, probabilities: np.ndarray) -> str:
    """One parse: the left half of a node is how it was labelled, the right half how it is judged.

    Args:
        probabilities: (nodes, 5), what the model says.
    """
    places, width, height = layout(sentence)
    judged = probabilities.argmax(axis=1)
    # Up from the child and then across: these cross no other edge and no node.
    edges = [
        f'<polyline points="{place.x:.1f},{place.y:.1f} {place.x:.1f},{places[parent].y:.1f} '
        f'{places[parent].x:.1f},{places[parent].y:.1f}"/>'
        for place, parent in zip(places, sentence.parents, strict=True)
        if parent >= 0
    ]
    nodes = [
        _node(place, label, int(guess), _told(phrase, label, shares))
        for place, label, guess, phrase, shares in zip(
            places, sentence.labels, judged, phrases(sentence), probabilities, strict=True
        )
    ]
    leaves = (place for place, below in zip(places, sentence.children, strict=True) if not below)
    words = [
        f'<text class="word" x="{place.x:.1f}" y="{place.y + RADIUS + 17:.1f}">'
        f"{escape(word)}</text>"
        for place, word in zip(leaves, sentence.words, strict=True)
    ]
    title = _title(sentence.labels[0], probabilities[0])
    width = max(width, 2 * MARGIN + BOLD_LETTER * len(title))
    return "\n".join(
        [
            _opening(width, height),
            STYLE,
            f'<text class="title" x="{MARGIN}" y="{TITLE - 10}">{escape(title)}</text>',
            *edges, *nodes, *words, "</svg>",
        ]
    )  # fmt: skip


def phrases(sentence: Sentence) -> list[str]:
    """The words below each node."""
    texts = [""] * len(sentence.labels)
    words = iter(sentence.words)
    for node, below in enumerate(sentence.children):
        if not below:
            texts[node] = next(words)
    for node in reversed(range(len(texts))):
        if below := sentence.children[node]:
            texts[node] = " ".join(texts[child] for child in below)
    return texts


def page(parses: Iterable[tuple[Sentence, np.ndarray]], heading: str, note: str) -> str:
    """A page of its own that needs no other file.

    Args:
        parses: sentences and the probabilities of their nodes.
    """
    figures = "\n".join(
        f"<figure>{parse_svg(sentence, shares)}</figure>" for sentence, shares in parses
    )
    return PAGE.format(
        heading=escape(heading), note=escape(note), legend=legend_svg(), figures=figures
    )


def legend_svg() -> str:
    """What the colours and the halves mean."""
    colours = [
        _key(MARGIN + KEY * label, 20, label, label, name) for label, name in enumerate(NAMES)
    ]
    halves = _key(
        MARGIN, 56, 1, 3, "left: how people labelled it (negative), right: as judged (positive)"
    )
    width = MARGIN + KEY * len(NAMES)
    return "\n".join([_opening(width, 76), STYLE, *colours, halves, "</svg>"])


def _key(x: float, y: float, label: int, guess: int, text: str) -> str:
    beside = f'<text x="{x + RADIUS + 6:.1f}" y="{y + 4:.1f}">{text}</text>'
    return _disc(Place(x, y), label, guess) + beside


def _opening(width: float, height: float) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" role="img">'
    )


def _node(place: Place, label: int, guess: int, told: str) -> str:
    return f"<g><title>{escape(told)}</title>{_disc(place, label, guess)}</g>"


def _disc(place: Place, label: int, guess: int) -> str:
    top, bottom = f"{place.x:.1f} {place.y - RADIUS:.1f}", f"{place.x:.1f} {place.y + RADIUS:.1f}"
    circle = f'<circle cx="{place.x:.1f}" cy="{place.y:.1f}" r="{RADIUS}"'
    if label == guess:
        return f'{circle} fill="{COLOURS[guess]}"/>' + _sign(place.x, place.y, guess)
    arc = f"{RADIUS} {RADIUS} 0 0"
    return (
        f'<path d="M {top} A {arc} 0 {bottom} Z" fill="{COLOURS[label]}"/>'
        f'<path d="M {top} A {arc} 1 {bottom} Z" fill="{COLOURS[guess]}"/>'
        f'{circle} class="differs"/>' + _sign(place.x + RADIUS / 2, place.y, guess, "half ")
    )


def _sign(x: float, y: float, guess: int, half: str = "") -> str:
    style = f'class="{half}sign" style="fill: {INKS[guess]}"'
    return f'<text {style} x="{x:.1f}" y="{y + 3.8:.1f}">{SIGNS[guess]}</text>'


def _title(label: int, shares: np.ndarray) -> str:
    guess = int(shares.argmax())
    return f"judged {NAMES[guess]} ({shares[guess]:.0%}), labelled {NAMES[label]}"


def _told(phrase: str, label: int, shares: Sequence[float]) -> str:
    said = ", ".join(f"{name} {share:.0%}" for name, share in zip(NAMES, shares, strict=True))
    return f"{phrase}\nlabelled {NAMES[label]}\njudged {said}"


STYLE = """<style>
text { font-family: system-ui, sans-serif; font-size: 13px; fill: #222222; }
text.title { font-weight: 600; }
text.word, text.sign { text-anchor: middle; }
text.sign { font-size: 10px; font-weight: 700; }
text.half { font-size: 8px; }
polyline { fill: none; stroke: #9a9a9a; stroke-width: 1.2; stroke-linejoin: round; }
circle, path { stroke: #6d6d6d; stroke-width: 0.6; }
circle.differs { fill: none; stroke: #111111; stroke-width: 1.4; }
</style>"""

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{heading}</title>
<style>
body {{ font-family: system-ui, sans-serif; margin: 2rem; color: #222222; background: #ffffff; }}
figure {{ margin: 0 0 1rem; padding: 0.5rem; overflow-x: auto; border: 1px solid #dddddd; }}
</style>
</head>
<body>
<h1>{heading}</h1>
<p>{note}</p>
{legend}
{figures}
</body>
</html>
"""
