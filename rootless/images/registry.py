"""A client of the OCI distribution specification, for pulls.

Owns HTTP towards one registry: authentication, redirects, retries, resuming
and the size of what is read. Never writes to disk. Runs under trio; called by
the repository, which knows the other registries.

Rules: distribution-spec 1.1, "Pull"; RFC 9110 for ranges and Retry-After.
"""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import cached_property
from types import TracebackType
from urllib.request import getproxies, proxy_bypass

import httpx
import trio

from rootless import __version__
from rootless.errors import RlError
from rootless.images import answers, auth
from rootless.images.auth import TokenRequest, TokenResponse
from rootless.images.credentials import Credentials
from rootless.images.document import MAX_DOCUMENT
from rootless.images.manifest import INDEX_TYPES, MANIFEST_TYPES, Descriptor
from rootless.images.reference import DEFAULT_REGISTRY
from rootless.images.registries import Endpoint, is_loopback

MAX_REDIRECTS = 5
MAX_ERROR_BODY = 16 << 10

_NOT_REACHED = (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError)

Receive = Callable[[bytes], Awaitable[None]]
Tell = Callable[[str], None]


class RegistryError(RlError):
    """Why one endpoint does not serve what we asked for; whoever collects them adds its name."""


class NotReached(RegistryError):
    """There was no connection to the endpoint at all."""


class _Transient(Exception):
    """A status that is worth another attempt, and when the registry would like it."""

    def __init__(self, reason: str, retry_after: str | None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class EndpointClient:
    """One repository of one registry. An async context manager: closes its connections."""

    def __init__(self, endpoint: Endpoint, credentials: Credentials | None, tell: Tell) -> None:
        self.host = endpoint.reference.registry
        self._reference = endpoint.reference
        self._insecure = endpoint.insecure
        self._credentials = credentials
        self._tell = tell
        # Docker Hub's API does not live at its own name.
        host = "registry-1.docker.io" if self.host == DEFAULT_REGISTRY else self.host
        schemes = ("https", "http") if endpoint.insecure else ("https",)
        # Settled on one when it has answered (`insecure`: TLS unverified, or none at all).
        self._bases = [f"{scheme}://{host}/v2/{self._reference.repository}" for scheme in schemes]
        self._reached = False
        self._authorization: str | None = None

    async def __aenter__(self) -> EndpointClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if "_client" in self.__dict__:
            await self._client.aclose()

    @cached_property
    def _client(self) -> httpx.AsyncClient:
        # Made when the endpoint is first asked: loading the system's authorities takes 20 ms.
        return _http_client(verify=not self._insecure)

    async def manifest(self, digest: str | None = None) -> bytes:
        """Return a manifest or index, at most 4 MiB; one asked for by digest is verified."""
        digest = digest or self._reference.digest
        data = bytearray()

        async def collect(response: httpx.Response) -> None:
            data.clear()
            async for chunk in response.aiter_raw():
                data.extend(chunk)
                if len(data) > MAX_DOCUMENT:
                    raise RegistryError(f"its manifest is larger than {MAX_DOCUMENT >> 20} MiB")

        accept = ", ".join((*MANIFEST_TYPES, *INDEX_TYPES))
        path = f"manifests/{digest or self._reference.tag}"
        await self._fetch(path, lambda: {"Accept": accept}, collect, lambda: 0)
        # Docker-Content-Digest is the registry's word only: what counts is what we have.
        if digest and f"sha256:{hashlib.sha256(data).hexdigest()}" != digest:
            raise RegistryError(f"its manifest {digest} does not have that digest")
        return bytes(data)

    async def blob(self, descriptor: Descriptor, start: int, receive: Receive) -> None:
        """Hand the bytes of a blob from ``start`` to ``receive``, resuming after a break."""
        at = start

        async def take(response: httpx.Response) -> None:
            nonlocal at
            skip = _skipped(response, at)
            try:
                async for chunk in response.aiter_raw():
                    fresh = chunk[skip:]
                    skip -= len(chunk) - len(fresh)
                    if at + len(fresh) > descriptor.size:
                        raise RegistryError(f"it sends more than a blob's {descriptor.size} bytes")
                    if fresh:
                        await receive(fresh)
                        at += len(fresh)
            except httpx.TransportError:
                if at < descriptor.size:
                    raise
            if at < descriptor.size:
                raise _Transient("it ended the transfer too early", None)

        await self._fetch(
            f"blobs/{descriptor.digest}",
            lambda: {"Range": f"bytes={at}-"} if at else {},
            take,
            lambda: at,
        )

    async def _fetch(
        self,
        path: str,
        headers: Callable[[], dict[str, str]],
        consume: Callable[[httpx.Response], Awaitable[None]],
        position: Callable[[], int],
    ) -> None:
        """GET ``path`` until ``consume`` has taken all of the response."""
        attempt, from_position = 1, position()
        while True:
            try:
                async with self._open(path, headers()) as response:
                    await consume(response)
                    return
            except (httpx.TransportError, _Transient) as error:
                reason = str(error) if isinstance(error, _Transient) else answers.reason(error)
                if not self._reached and isinstance(error, _NOT_REACHED):
                    # More likely a wrong name than a bad moment, and there may be a mirror.
                    if answers.failed_in_tls(error):
                        raise RegistryError(reason) from None
                    through = _proxy(error.request.url)
                    raise NotReached(f"{reason}{through and f' (proxy {through})'}") from None
                if position() - from_position >= answers.WORTHWHILE:
                    attempt, from_position = 1, position()
                asked = getattr(error, "retry_after", None)
                wait = answers.wait_before_next(attempt, answers.retry_after(asked))
                if wait is None:
                    raise RegistryError(reason) from None
                if wait >= 1:
                    self._tell(f"{self.host}: {reason}; next attempt in {wait:.0f} s")
                await trio.sleep(wait)
                attempt += 1
            except (httpx.InvalidURL, httpx.StreamError) as error:
                raise RegistryError(f"it gave an odd answer ({error})") from None

    @asynccontextmanager
    async def _open(self, path: str, headers: dict[str, str]) -> AsyncIterator[httpx.Response]:
        """Yield the successful response to a GET, authorized if the registry wants that."""
        async with AsyncExitStack() as stack:
            response = await self._send(path, headers)
            stack.push_async_callback(response.aclose)
            # Only the registry itself may ask who we are, not where it redirects to.
            if response.status_code == 401 and self._is_ours(response.url):
                challenges = response.headers.get_list("www-authenticate")
                await response.aclose()
                self._authorization = await self._authorize(challenges)
                response = await self._send(path, headers)
                stack.push_async_callback(response.aclose)
            if response.status_code not in (200, 206):
                await self._refused(response, path)
            yield response

    async def _send(self, path: str, headers: dict[str, str]) -> httpx.Response:
        """GET from the registry, first over TLS, then without if that is allowed."""
        for base in self._bases[:-1]:
            try:
                response = await self._follow(f"{base}/{path}", headers)
            except httpx.TransportError:
                continue
            self._settle(base)
            return response
        response = await self._follow(f"{self._bases[-1]}/{path}", headers)
        self._settle(self._bases[-1])
        return response

    def _settle(self, base: str) -> None:
        self._bases = [base]
        self._reached = True

    def _is_ours(self, url: httpx.URL) -> bool:
        base = httpx.URL(self._bases[0])
        return (url.scheme, url.host, url.port) == (base.scheme, base.host, base.port)

    async def _follow(self, url: str, headers: dict[str, str]) -> httpx.Response:
        """GET through redirects; our Authorization stays with the registry that asked for it."""
        target = httpx.URL(url)
        for redirects in range(MAX_REDIRECTS + 1):
            extra = {}
            if self._authorization and self._is_ours(target):
                extra["Authorization"] = self._authorization
            request = self._client.build_request("GET", target, headers=headers | extra)
            try:
                response = await self._client.send(request, stream=True)
            except httpx.TransportError as error:
                if not redirects:
                    raise
                where = f"it redirects to {target.host}"
                raise _Transient(f"{where}: {answers.reason(error)}", None) from None
            location = response.headers.get("location")
            if not response.has_redirect_location or location is None:
                return response
            await response.aclose()
            target = target.join(location)
            if target.scheme != "https" and not (self._insecure and target.scheme == "http"):
                raise RegistryError(f"it redirects to {str(target)[:100]!r}, without TLS")
        raise RegistryError("it redirects in a circle")

    async def _authorize(self, challenges: list[str]) -> str:
        """Carry out the token protocol and return the value of Authorization."""
        flow = auth.authorize(
            challenges, self._reference.repository, self._credentials, secure=not self._insecure
        )
        try:
            request = next(flow)
            while True:
                request = flow.send(await self._ask_token(request))
        except StopIteration as finished:
            return str(finished.value)
        except RlError as error:
            raise RegistryError(f"{error}{self._login_hint()}") from None

    async def _ask_token(self, ask: TokenRequest) -> TokenResponse:
        headers = {"Accept": "application/json"}
        if ask.authorization:
            headers["Authorization"] = ask.authorization
        if ask.form is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        method = "GET" if ask.form is None else "POST"
        request = self._client.build_request(method, ask.url, headers=headers, content=ask.form)
        try:
            response = await self._client.send(request, stream=True)
        except httpx.TransportError as error:
            where = f"token server {request.url.host}"
            raise _Transient(f"{where}: {answers.reason(error)}", None) from None
        try:
            if response.status_code in answers.TRANSIENT:
                reason = f"the token server answers {answers.status(response)}"
                raise _Transient(reason, response.headers.get("retry-after"))
            body = await _read_some(response, auth.MAX_TOKEN_ANSWER)
            return TokenResponse(response.status_code, body)
        finally:
            await response.aclose()

    async def _refused(self, response: httpx.Response, path: str) -> None:
        """Raise what an unsuccessful status means, in plain words."""
        status = response.status_code
        said = answers.message(await _read_some(response, MAX_ERROR_BODY))
        detail = f" ({said})" if said else ""
        if status in answers.TRANSIENT:
            wait = response.headers.get("retry-after")
            raise _Transient(f"it answers {answers.status(response)}{detail}", wait)
        if status in (401, 403):
            raise RegistryError(f"access denied{detail}{self._login_hint()}")
        kind, _, name = path.partition("/")
        if status == 404 and kind == "manifests":
            separator = "@" if ":" in name else ":"
            raise RegistryError(f"it has no {self._reference.repository}{separator}{name}")
        if status == 404:
            raise RegistryError(f"{name}, a part of the image, is missing")
        raise RegistryError(f"it answers {answers.status(response)}{detail}")

    def _login_hint(self) -> str:
        if self._credentials:
            return f" (the saved login for {self.host} may not be allowed to read it)"
        return (
            f": {self._reference.repository} does not exist there, or needs a login "
            f"(podman login {self.host}, or docker login)"
        )


def _http_client(verify: bool) -> httpx.AsyncClient:
    """Proxies come from the environment, as do SSL_CERT_FILE and SSL_CERT_DIR."""
    # The system's authorities, not certifi's: a site adds its own to the former.
    context = ssl.create_default_context() if verify else _unverified()
    try:
        return httpx.AsyncClient(
            verify=context,
            timeout=answers.TIMEOUT,
            # A blob's bytes are its digest: nothing on the way may compress them.
            headers={"User-Agent": f"rl/{__version__}", "Accept-Encoding": "identity"},
            # As Docker: loopback is never behind a proxy.
            mounts={f"all://{host}": None for host in ("localhost", "127.0.0.1", "[::1]")},
        )
    except (ImportError, ValueError, httpx.InvalidURL) as error:
        raise RlError(f"cannot use the proxy that the environment names: {error}") from None


def _proxy(url: httpx.URL) -> str:
    """Return the proxy that the environment names for ``url``, without login; or nothing."""
    proxies = getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all", "")
    if not proxy or is_loopback(url.netloc.decode()) or proxy_bypass(url.host):
        return ""
    return str(httpx.URL(proxy if "://" in proxy else f"http://{proxy}").copy_with(userinfo=b""))


def _unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _skipped(response: httpx.Response, at: int) -> int:
    """Return how many bytes of the body we have already, or refuse the range it gives."""
    if response.status_code == 200:
        return at
    if not response.headers.get("content-range", "").startswith(f"bytes {at}-"):
        raise RegistryError("it answers with another range than the one asked for")
    return 0


async def _read_some(response: httpx.Response, limit: int) -> bytes:
    data = bytearray()
    async for chunk in response.aiter_raw():
        data += chunk
        if len(data) >= limit:
            break
    return bytes(data[:limit])
