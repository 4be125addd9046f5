"""Whether a form was sent from one of our own pages, by what browsers say and no page can change."""

from urllib.parse import urlsplit

from fastapi import Request

_PORTS = {"https": 443, "http": 80}


def is_from_here(request: Request) -> bool:
    """Return whether `Origin` is this site; of a browser that sends none, whether `Sec-Fetch-Site`, or else `Referer`, says so.

    This site is what `Host` names. Over which scheme, only the proxy in front knows where TLS ends there: http is refused when this
    service itself was asked over https, and that the session's cookie never leaves https is the browser's to see to.
    """
    headers = request.headers
    if (origin := headers.get("origin")) is not None:
        return _is_here(request, origin)
    if (site := headers.get("sec-fetch-site")) is not None:
        return site == "same-origin"
    return _is_here(request, headers.get("referer", ""))


def _is_here(request: Request, url: str) -> bool:
    try:
        there = urlsplit(url)
        default = _PORTS[there.scheme]
        here = urlsplit(f"//{request.headers.get('host', '')}")
        same = (there.hostname, there.port or default) == (here.hostname, here.port or default)
    except (ValueError, KeyError):  # no port, no address; `null`, or a scheme that is not ours
        return False
    return same and there.hostname is not None and (there.scheme == "https" or request.url.scheme == "http")
