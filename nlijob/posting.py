"""Posts a document to a URL, once."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from typing import Any

TIMEOUT_S = 10.0


class NotDeliveredError(Exception):
    """An attempt failed, for a reason that may be printed."""

    def __init__(self, reason: str, is_final: bool) -> None:
        super().__init__(reason)
        self.is_final = is_final
        """Whether another attempt would fail in the same way."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Treats redirects as errors: following one turns a POST into a GET without the document."""

    def redirect_request(self, *_: Any) -> None:
        """Follow no redirect."""


def post_once(url: str, body: bytes) -> None:
    """Post `body`, a JSON document, once. Raises NotDeliveredError."""
    headers = {"Content-Type": "application/json", "User-Agent": "nlijob"}
    try:
        request = urllib.request.Request(url, body, headers)
        urllib.request.build_opener(_NoRedirect).open(request, timeout=TIMEOUT_S).close()
    except urllib.error.HTTPError as error:
        error.close()
        is_final = error.code < 500 and error.code not in (408, 429)
        raise NotDeliveredError(f"HTTP status {error.code}", is_final) from None
    except urllib.error.URLError as error:
        raise NotDeliveredError(str(error.reason), is_final=False) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        # the error's text may hold the URL
        raise NotDeliveredError(type(error).__name__, is_final=False) from None
