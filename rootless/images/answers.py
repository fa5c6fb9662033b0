"""What a registry's answer means, or the lack of one, and whether to ask again.

Owns the patience of the client and the plain words for what went wrong. Plain
functions on values: no I/O. Called by the registry client.
"""

from __future__ import annotations

import json
import os
import random
import re
import ssl
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime

import httpx

# Seconds. A registry may need long to find a blob in its own storage.
TIMEOUT = httpx.Timeout(60, connect=20)
# How often one thing is asked for, and the seconds between: doubled each time.
ATTEMPTS = 5
FIRST_WAIT = 0.5
LONGEST_WAIT = 60.0
# A connection that brought this many bytes before it broke was worth it: it costs no attempt.
WORTHWHILE = 1 << 20
# Statuses of a bad moment, worth another attempt.
TRANSIENT = (429, 500, 502, 503, 504)


def wait_before_next(attempt: int, asked: float | None) -> float | None:
    """Return the seconds to wait after failed ``attempt`` (1 is the first), None to give up.

    ``asked`` is what the registry asked us to wait, if it did.
    """
    if attempt >= ATTEMPTS or (asked is not None and asked > LONGEST_WAIT):
        return None
    # Jitter keeps the jobs of a cluster from coming back all at once.
    backoff = min(FIRST_WAIT * 2.0 ** (attempt - 1), LONGEST_WAIT) * random.uniform(0.5, 1)
    return max(backoff, asked or 0)


def retry_after(header: str | None) -> float | None:
    """Return the seconds that a Retry-After header means (RFC 9110, section 10.2.3)."""
    if header is None:
        return None
    if re.fullmatch("[0-9]{1,9}", header):
        return float(header)
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def status(response: httpx.Response) -> str:
    """Return a status as people know it: ``404 Not Found``."""
    return f"{response.status_code} {httpx.codes.get_reason_phrase(response.status_code)}".strip()


def message(body: bytes) -> str:
    """Return the registry's own words (distribution-spec, "Error Codes"), made fit to print."""
    try:
        error = json.loads(body)["errors"][0]
        text = error.get("message") or error.get("code") or ""
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return ""
    return re.sub(r"[^\x20-\x7e]+", " ", str(text))[:200].strip()


def reason(error: httpx.TransportError) -> str:
    """Say in plain words why there was no response."""
    if isinstance(error, httpx.ConnectTimeout):
        return f"no connection in {TIMEOUT.connect:.0f} seconds"
    if isinstance(error, httpx.TimeoutException):
        return f"no answer in {TIMEOUT.read:.0f} seconds"
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted ({cause.verify_message})"
        if isinstance(cause, ssl.SSLError) and cause.reason in (
            "WRONG_VERSION_NUMBER",
            "HTTP_REQUEST",
        ):
            return "it speaks no TLS (if that is right: insecure = true in registries.conf)"
        if isinstance(cause, OSError) and cause.errno:
            # trio repeats the address in strerror; name resolution has numbers of its own.
            return os.strerror(cause.errno) if cause.errno > 0 else cause.strerror or str(cause)
    return str(error) or type(error).__name__


def failed_in_tls(error: httpx.TransportError) -> bool:
    """Tell whether somebody was there, and no TLS came about."""
    return any(isinstance(cause, ssl.SSLError) for cause in _causes(error))


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, BaseExceptionGroup):
            cause = cause.exceptions[0]
        yield cause
        cause = cause.__cause__ or cause.__context__
