"""What a client would rather have: the page, or what is on it as JSON."""

import re

_LONGEST = 2_000  # characters: browsers send a tenth of it
_QUALITY = re.compile(r"[01](?:\.\d{0,3})?")


def prefers_html(accept: str) -> bool:
    """Whether HTML is preferred to JSON by an `Accept` header; JSON where both are as welcome, as in `*/*`.

    https://www.rfc-editor.org/rfc/rfc9110#name-accept: the most specific range counts, and its `q`.

    >>> prefers_html("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8")
    True
    >>> prefers_html("text/html;q=0.5, application/json")
    False
    """
    ranges = dict[str, float]()
    for part in accept[:_LONGEST].split(","):
        media, *parameters = (each.strip().lower() for each in part.split(";"))
        ranges[media] = max(ranges.get(media, 0.0), _quality(parameters))
    html = _wanted(ranges, "text/html")
    return html > max(_wanted(ranges, "application/json"), _wanted(ranges, "application/health+json"))


def _wanted(ranges: dict[str, float], media: str) -> float:
    for each in (media, f"{media.partition('/')[0]}/*", "*/*"):
        if each in ranges:
            return ranges[each]
    return 0.0


def _quality(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            return min(1.0, float(value)) if _QUALITY.fullmatch(value.strip()) else 0.0
    return 1.0
