"""A drawn figure as inline SVG: small, in the page's colours and font, with values to point at."""

from __future__ import annotations

import html
import io
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nlijob.printable import printable

UNITS_PER_INCH = 72
REACH = 9
"""Radius around a point within which its value is shown, in SVG units."""
NUMBER = re.compile(r"-?\d+\.\d+(?:e-?\d+)?")


@dataclass(frozen=True)
class Point:
    """A place in a chart, in the units of its axes, and the text that tells its value."""

    x: float
    y: float
    text: str


def inline_svg(
    figure: Figure,
    axes: Axes,
    name: str,
    title: str,
    caption: str,
    colours: Mapping[str, str],
    points: Sequence[Point],
) -> str:
    """The figure with ids that start with `name`, an accessible name, and `points` on top.

    `colours` maps the colours of the drawing to those of the page. The same figure always gives
    the same text.
    """
    buffer = io.StringIO()
    no_metadata = {"Date": None, "Creator": None, "Format": None, "Type": None}
    figure.savefig(buffer, format="svg", transparent=True, metadata=no_metadata)
    width, height = (UNITS_PER_INCH * inches for inches in figure.get_size_inches())
    body = _body(buffer.getvalue(), name, colours) + _points(axes, points, width, height)
    return (
        f'<svg class="chart" role="img" aria-labelledby="{name}-title {name}-text" '
        f'xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.1f} {height:.1f}">'
        f'<title id="{name}-title">{html.escape(printable(title))}</title>'
        f'<desc id="{name}-text">{html.escape(printable(caption))}</desc>{body}</svg>'
    )


def _body(svg: str, name: str, colours: Mapping[str, str]) -> str:
    """What the root of a drawing holds, without all that a page does not need."""
    svg = svg[svg.index(">", svg.index("<svg")) + 1 :]
    # A style element would apply to the whole page.
    svg = re.sub(r"<(metadata|style)\b.*?</\1>", "", svg, flags=re.DOTALL)
    svg = svg.replace("xlink:href=", "href=")
    root = ElementTree.fromstring("<svg>" + printable(svg))
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg))
    for element in root.iter():
        element.attrib = dict(_attributes(element.attrib, name, used, colours))
        element.tail = None
        if element.text is not None and not element.text.strip():
            element.text = None
    _flatten(root)
    text = "".join(ElementTree.tostring(child, "unicode") for child in root)
    return text.replace(" />", "/>")


def _attributes(
    given: Mapping[str, str], name: str, used: set[str], colours: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """The attributes that matter, with shorter numbers."""
    for key, value in given.items():
        if key == "id":
            if value in used:
                yield key, f"{name}-{value}"
        elif key == "style":
            yield key, _style(value, colours)
        elif key == "d":
            yield key, re.sub(r"\s*([MLQCz])\s*", r"\1", _shorter(value)).strip()
        elif key == "transform" and value.startswith("rotate(-0 "):
            continue
        else:
            yield key, re.sub(r"(^|url\()#", rf"\g<1>#{name}-", _shorter(value))


def _style(style: str, colours: Mapping[str, str]) -> str:
    style = re.sub(r"font: ([\d.]+px) [^;]*", r"font-size: \1", style)
    style = re.sub(r"font-family: [^;]*;?", "", style)
    style = re.sub(
        "(fill|stroke): (#0101[0-9a-f]{2})", lambda found: f"{found[1]}: {colours[found[2]]}", style
    )
    return re.sub(r"\s*([:;])\s*", r"\1", style).strip("; ")


def _shorter(text: str) -> str:
    """A tenth of a unit is less than a pixel shows."""
    return NUMBER.sub(lambda found: f"{round(float(found[0]), 1):g}", text)


def _flatten(parent: ElementTree.Element) -> None:
    """Put the content of groups without attributes in their place; drop what draws nothing."""
    kept: list[ElementTree.Element] = []
    for child in parent:
        _flatten(child)
        if child.tag == "g" and not child.attrib:
            kept += child
        elif (child.tag in ("g", "defs") and not len(child)) or (
            child.attrib.get("style") == "fill:none"
        ):
            continue
        else:
            kept.append(child)
    parent[:] = kept


def _points(axes: Axes, points: Sequence[Point], width: float, height: float) -> str:
    """Invisible circles; a browser shows their titles where one points at them."""
    if not points:
        return ""
    to_axes = axes.transScale + axes.transLimits
    place = axes.get_position()
    circles = []
    for point in points:
        across, up = to_axes.transform((point.x, point.y))
        x = (place.x0 + across * place.width) * width
        y = (1 - place.y0 - up * place.height) * height
        text = html.escape(printable(point.text))
        circles.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{REACH}"><title>{text}</title></circle>'
        )
    return f'<g class="points">{"".join(circles)}</g>'
