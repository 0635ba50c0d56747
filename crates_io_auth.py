#!/usr/bin/env python3
"""Get a short-lived crates.io access token in CI, without a stored secret, and revoke it afterwards.

This is crates.io's trusted publishing (https://crates.io/docs/trusted-publishing). The CI system issues
an *identity token* (an OIDC JWT), which says which repository and workflow a job belongs to, and is meant
for one *audience*. The *registry* exchanges it for an *access token*, with which cargo can publish for 30
minutes. Each access token is written to the *record*, a file in the job's temporary folder, as soon as it
is received, so that a later process can revoke it, whatever happens in between.

The file needs only Python's standard library, and is installed by copying it. From top to bottom:

- text that is safe to print, cancellation, and what went wrong
- the registry's URL, and data from outside
- requests, with their deadlines and retries
- identity tokens
- the record
- the CI systems
- the exchange and the revocation
- the commands `main` and `post`
- cargo's credential provider
- the command line
- the command `check`, which handles no token
"""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import http.client
import itertools
import json
import math
import os
import random
import re
import shlex
import signal
import ssl
import stat
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from email.utils import parsedate_to_datetime
from typing import IO, Any, Callable, Iterable, NamedTuple, NoReturn, TypeVar

__version__ = "1.1.0"

T = TypeVar("T")

CRATES_IO = "https://crates.io"
TOKENS_PATH = "/api/v1/trusted_publishing/tokens"

REQUEST_SECONDS = 30  # for one request, from looking up the host to the last byte
BACKOFF_SECONDS = (1, 2, 4)  # between four attempts
RETRY_AFTER_SECONDS = 30  # the longest pause that a server can ask for
LATE_SECONDS = 6  # for a late access token; GitHub kills a cancelled step after 10
CLEANUP_SECONDS = 30  # for revoking what a command got before it failed
ISSUE_SECONDS = 150 - LATE_SECONDS - CLEANUP_SECONDS  # for all attempts to get an access token
REVOKE_SECONDS = 150  # for all attempts to revoke an access token at the end of the job
CHECK_SECONDS = 150  # for each run of cargo, and for all requests to an index together
LIFETIME_SECONDS = 30 * 60  # of crates.io's access tokens, whose responses don't tell it
FRESH_SECONDS = 25 * 60  # the age up to which an access token is used for one more upload
CLOCK_SKEW_SECONDS = 60  # that crates.io tolerates in an identity token
RESPONSE_BYTES = 1024 * 1024
INDEX_BYTES = 16 * RESPONSE_BYTES  # an index has all versions in one file, and web-sys's is larger than 1 MiB
INDEX_VERSIONS = 20_000  # of one crate
INDEX_REQUESTS = 32  # in parallel

CANCEL_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]

# Text that is safe to print


class SafeText(str):
    """Text that is our own, or has passed `sanitize`."""


def sanitize(text: object, secrets: Iterable[str] = ()) -> SafeText:
    """Return untrusted text as a part of one line, cut after 500 characters.

    It can't start a line, move the cursor, or hold a command of a CI system (`##[`, `##vso[`,
    `##teamcity[`). The given secrets, whatever has the form of a token, and everything before the last `@`,
    because a URL can have a password there, become `***`.
    """
    line = "".join(character if character.isprintable() else "?" for character in " ".join(str(text).split()))
    if "@" in line:
        line = "***@" + line.rpartition("@")[2]
    # Cut first: the time that `redact` takes grows with the square of the length.
    line, is_cut = line[:4000], len(line) > 4000
    for secret in filter(None, secrets):
        line = redact(line, secret, is_cut)
    line = re.sub(r"(eyJ|cio_tp_)\S*", "***", line)
    line = re.sub(r"#(?=#)", "# ", line)
    return SafeText(line if len(line) <= 500 else line[:500] + "...")


def redact(line: str, secret: str, is_cut: bool) -> str:
    """Replace a secret by `***`, also if blanks or unprintable characters (now `?`) are inside it.

    If the line is cut, so is the end of it that can be the beginning of the secret.
    """
    places = [place for place, character in enumerate(line) if character not in " ?"]
    packed = "".join(line[place] for place in places)
    for size in range(min(len(secret), len(packed)) if is_cut else 0, 0, -1):
        if packed.endswith(secret[:size]):
            line, packed = line[: places[-size]] + "***", packed[:-size]
            break
    start = packed.rfind(secret)
    while start >= 0:
        line = line[: places[start]] + "***" + line[places[start + len(secret) - 1] + 1 :]
        start = packed.rfind(secret, 0, start)
    return line


def render(template: str, **values: object) -> SafeText:
    """Return a message with its placeholders filled in, sanitized; a list becomes indented lines."""
    texts = {}
    for name, value in values.items():
        items = value if isinstance(value, list) else [value]
        texts[name] = "\n  ".join(item if isinstance(item, SafeText) else sanitize(item) for item in items)
    return SafeText(template.format(**texts))


def first_line(text: SafeText) -> SafeText:
    """Return what happened, without the lines that say what to do about it."""
    return SafeText(text.partition("\n")[0])


class AuthError(Exception):
    """A failure with a message that tells the user what happened, why, and what to do.

    docs/troubleshooting.md explains each message.
    """

    level = "error"

    def __init__(self, template: str, **values: object) -> None:
        self.message = render(template, **values)
        super().__init__(self.message)


class AuthWarning(AuthError):
    """A failure that is shown as a warning, because it resolves itself."""

    level = "warning"


class TransientError(Exception):
    """A failed attempt that can be repeated, after `retry_after` seconds if the server has asked for that."""

    def __init__(self, host: str, reason: SafeText, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.host = host
        self.reason = reason
        self.retry_after = retry_after


def log(template: str, **values: object) -> None:
    """Print a message on stderr, if it is open: stdout is for the access token."""
    # release-plz and cargo-workspaces treat a publish as failed if its stderr contains "error:".
    text = render(template, **values).replace("error:", "error").replace("\n", "\ncrates-io-auth: ")
    with contextlib.suppress(OSError):
        print(f"crates-io-auth: {text}", file=sys.stderr, flush=True)


# Cancellation


class Cancelled(BaseException):
    """SIGINT, SIGTERM or SIGHUP was received."""


def cancel(*_: object) -> None:
    """Raise Cancelled, and ignore further signals, so that they can't interrupt the clean-up."""
    ignore_cancellation()
    raise Cancelled


def ignore_cancellation() -> None:
    """Ignore SIGINT, SIGTERM and SIGHUP from now on."""
    for number in CANCEL_SIGNALS:
        # Not SIG_IGN: Python would print a traceback for a second signal that is already pending.
        signal.signal(number, lambda *_: None)


def leave_signals_to_main_thread() -> None:
    """Block the signals in the calling thread: one delivered there would not wake the main thread."""
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_BLOCK, CANCEL_SIGNALS)


# What went wrong

CANCELLED = """\
Cancelled. Every access token that this step received is revoked, or in the record for the post step."""

BUG = """\
crates_io_auth.py failed unexpectedly: {kind} at {places}
Please report this. `python3 crates_io_auth.py post` revokes the access tokens that are in the record."""

UNUSABLE_ENVIRONMENT = """\
The environment of this step isn't usable: {reason}
Fix this, and run it again."""


def explain(error: BaseException) -> SafeText:
    """Return what to tell the user about any exception. Python's own traceback could show a secret."""
    if isinstance(error, AuthError):
        return error.message
    if isinstance(error, Cancelled):
        return SafeText(CANCELLED)
    if isinstance(error, OSError):
        return render(UNUSABLE_ENVIRONMENT, reason=error)
    places = []
    trace = error.__traceback__
    while trace:
        places.append(f"{os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}")
        trace = trace.tb_next
    return render(BUG, kind=type(error).__name__, places=", ".join(places))


# The registry's URL

INVALID_URL = """\
Invalid URL: {url}
It must be https://host, optionally with a port and a path. Plain http is allowed only for this machine
(localhost, 127.0.0.1 or [::1]). User names, queries and fragments are not allowed. Nothing was sent to it.
Correct it where it comes from, for example the input `url`, --url, INPUT_URL, or cargo's configuration."""

# What is allowed, not what is forbidden: parsers such as urlsplit drop some characters and let others pass.
LABEL = "[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
URL_PATTERN = re.compile(
    rf"(?P<origin>(?P<scheme>https?)://(?P<host>{LABEL}(?:\.{LABEL})*|\[[0-9a-f:]+\])"
    r"(?::(?P<port>[0-9]{1,5}))?)"
    r"(?P<path>/[a-z0-9._~!$&'()*+,;=:@%/-]*)?"
    r"(?P<query>\?[a-z0-9._~!$&'()*+,;=:@%/?-]*)?",
    re.ASCII | re.IGNORECASE,
)
# Octets without leading zeros: 127.08.0.1 is not an address, so it is looked up as a DNS name.
LOOPBACK_PATTERN = r"localhost|127(\.(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])){3}|\[::1\]"


def parse_url(url: str) -> re.Match[str]:
    """Return the parts of a URL to which a secret may be sent. Raises AuthError for any other."""
    parts = URL_PATTERN.fullmatch(url)
    if (
        not parts
        or not 0 < int(parts["port"] or 443) < 65536
        or (parts["scheme"].lower() == "http" and not re.fullmatch(LOOPBACK_PATTERN, parts["host"].lower()))
    ):
        raise AuthError(INVALID_URL, url=url)
    return parts


def registry_url(text: str) -> str:
    """Return a registry's URL: with a scheme, https by default, and without a slash at its end.

    Raises AuthError for a URL that no registry can have.
    """
    parts = parse_url(text if "://" in text else f"https://{text}")
    if parts["query"]:
        raise AuthError(INVALID_URL, url=text)
    return parts["origin"].lower() + (parts["path"] or "").rstrip("/")


def default_registry() -> str:
    """Return the input `url` as it is written in the workflow, or the URL of crates.io."""
    return os.environ.get("INPUT_URL") or CRATES_IO


def audience_of(registry: str) -> str:
    """Return the audience of identity tokens for a registry: its URL without the scheme."""
    return registry.partition("://")[2]


# Data from outside


def parse_json(text: str | bytes, *path: str | int) -> Any:
    """Return what JSON text holds at `path`; None if it is not JSON, or of another shape."""
    try:
        if isinstance(text, bytes):
            text = text.decode()
        if nesting_depth(text) > 100:
            return None
        value = json.loads(text, parse_int=float)  # int takes seconds for a million digits
        for key in path:
            value = value[key]
        return value
    except (ValueError, LookupError, TypeError):
        return None


def nesting_depth(text: str) -> int:
    """Return how deeply JSON text is nested. Deep nesting can overflow the interpreter's stack."""
    brackets = re.sub(r'"[^"\\]*(?:\\.[^"\\]*)*"?|[^][{}"]+', "", text, flags=re.DOTALL)
    return max(itertools.accumulate(1 if bracket in "[{" else -1 for bracket in brackets), default=0)


def is_secret(value: object) -> bool:
    """Tell whether a value has the form of a bearer token (RFC 6750, section 2.1).

    It can't end a line, a header, a command or a string, wherever it is sent or written.
    """
    return isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9._~+/-]{1,16000}={0,16}", value) is not None


INVALID_SECRET = """\
{variable} does not hold a token
A token is one line of ASCII letters, digits and -._~+/= (RFC 6750). It was not sent.
Check where the variable is set."""


def secret_in(variable: str) -> str:
    """Return the secret in an environment variable, or "". Raises AuthError if it can't be one."""
    secret = os.environ.get(variable, "")
    if secret and not is_secret(secret):
        raise AuthError(INVALID_SECRET, variable=variable)
    return secret


# Requests

REDIRECTED = """\
{host} sent a redirect: {problem}
Redirects are never followed, so that no secret reaches another address. If the registry has moved, use
its new URL."""

UNTRUSTED_CERTIFICATE = """\
The certificate of {host} is not trusted: {reason}
No secret was sent. If your network has a proxy with its own certificate authority, set SSL_CERT_FILE to a
file with that authority's certificate. Otherwise somebody may be intercepting the connection."""

INVALID_PROXY = """\
HTTPS_PROXY does not hold the URL of a proxy
It must have the form http://host:port or http://user:password@host:port. Nothing was sent."""

NO_RESPONSE = """\
Couldn't get a valid response from {host} (attempt {number} of {attempts}): {reason}
Find out whether {host} has an outage, and check this machine's network and proxy (HTTPS_PROXY, NO_PROXY).
Then run this again."""

RETRYING = """\
No valid response from {host}: {reason}. Retrying in {seconds} s (attempt {number} of {attempts})."""


class Request(NamedTuple):
    """A request to a URL that passes `parse_url`, with a bearer token or a JSON body."""

    method: str
    url: str
    bearer: str = ""
    body: dict[str, str] = {}
    max_bytes: int = RESPONSE_BYTES  # of the response; the rest is not read

    @property
    def host(self) -> str:
        return parse_url(self.url)["host"]

    def sanitize(self, text: object) -> SafeText:
        """Return text of the server, which may repeat the secrets that it was sent."""
        return sanitize(text, [self.bearer, *self.body.values()])


class Response(NamedTuple):
    """A response of any status."""

    request: Request
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    @property
    def refused(self) -> bool:
        """Whether the server has refused the request, and would refuse it again."""
        return 400 <= self.status < 500 and self.status not in (408, 429)

    @property
    def problem(self) -> SafeText:
        """What is wrong with the response, in one line: the status, and what the server says."""
        if self.ok:
            text: object = "not the expected body"  # not shown: it may hold a part of a token
        elif self.status < 400:
            text = f"redirects to {self.headers['Location']}"
        else:
            text = parse_json(self.body, "errors", 0, "detail") or self.body.decode(errors="replace")
        return render("HTTP {status}: {text}", status=self.status, text=self.request.sanitize(text))

    def transient_error(self) -> TransientError:
        """Return the error for a response that another attempt can better."""
        seconds = parse_retry_after(self.headers.get("Retry-After", ""))
        return TransientError(self.request.host, self.problem, seconds)

    def unexpected_error(self) -> AuthError | TransientError:
        """Return the error for a response that is neither the expected one nor a refusal."""
        if 300 <= self.status < 400:
            return AuthError(REDIRECTED, host=self.request.host, problem=self.problem)
        return self.transient_error()


def parse_retry_after(value: str) -> float | None:
    """Return the seconds that a Retry-After header asks for, as a number or a date; None if it doesn't."""
    with contextlib.suppress(Exception):  # Python 3.8 raises UnboundLocalError for "1 Jan 2001 00.00.00.00"
        digits = re.fullmatch("[0-9]+", value)
        seconds = float(value) if digits else parsedate_to_datetime(value).timestamp() - time.time()
        if seconds >= 0:
            return min(seconds, RETRY_AFTER_SECONDS)
    return None


@functools.lru_cache(maxsize=None)
def build_opener() -> urllib.request.OpenerDirector:
    """Return the opener of this process, with its one TLS context. Raises AuthError for a bad proxy.

    Without urllib's handlers for redirects and errors, every response is returned as it is. Only https
    goes through a proxy: plain http is for this machine alone.
    """
    opener = urllib.request.OpenerDirector()
    proxy = urllib.request.getproxies().get("https")
    if proxy:
        # No password with https: urllib sends it, but without TLS.
        scheme_and_user = r"(https?://|(http://)?[^@/\s]+@)?"
        if not re.fullmatch(rf"{scheme_and_user}[A-Za-z0-9._-]+(:[0-9]{{1,5}})?/?", proxy):
            raise AuthError(INVALID_PROXY)
        opener.add_handler(urllib.request.ProxyHandler({"https": proxy}))
    opener.add_handler(urllib.request.HTTPHandler())
    opener.add_handler(urllib.request.HTTPSHandler(context=ssl.create_default_context()))
    return opener


def open_url(request: Request) -> Response:
    """Send a request and return the response. Raises AuthError or TransientError."""
    headers = {"User-Agent": f"crates-io-auth/{__version__}"}
    data = None
    if request.bearer:
        headers["Authorization"] = f"Bearer {request.bearer}"
    if request.body:
        headers["Content-Type"] = "application/json"
        data = json.dumps(request.body).encode()
    try:
        outgoing = urllib.request.Request(request.url, data, headers, method=request.method)
        with build_opener().open(outgoing) as response:
            body = bytearray()
            # Not read: a chunk of the size -1 makes that read without a limit (Python 3.10 to 3.13).
            while len(body) < request.max_bytes:
                part = response.read1(request.max_bytes - len(body))
                if not part:
                    break
                body += part
            if response.length or len(body) == request.max_bytes:  # http.client reports neither
                raise TransientError(request.host, SafeText("the response is cut off or too long"))
            return Response(request, response.status, response.headers, bytes(body))
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLCertVerificationError):
            message = reason.verify_message
            raise AuthError(UNTRUSTED_CERTIFICATE, host=request.host, reason=message) from None
        # A proxy's words may repeat its password.
        text = re.sub(r"(Tunnel connection failed: [0-9]+).*", r"\1", str(reason), flags=re.DOTALL)
        text = request.sanitize(f"{text} ({type(reason).__name__})")
        raise TransientError(request.host, text) from None


class RequestThread(threading.Thread):
    """A thread that sends one request, so that the whole of it can be limited.

    A socket's timeout isn't enough: it starts again with each byte. The outcome stays here, so that an access
    token isn't lost if it comes late.
    """

    def __init__(self, request: Request) -> None:
        super().__init__(daemon=True)
        parse_url(request.url)
        build_opener()  # load the certificates before the clock starts
        self.request = request
        self.outcome: Response | Exception | None = None
        self.finished = threading.Event()  # not join, which a signal can spoil (python/cpython#90882)

    def run(self) -> None:
        leave_signals_to_main_thread()
        try:
            self.outcome = open_url(self.request)
        except Exception as error:
            self.outcome = error
        self.finished.set()

    def response(self, deadline: float) -> Response:
        """Wait for the response. Raises AuthError or TransientError."""
        seconds = max(0.0, min(REQUEST_SECONDS, deadline - time.monotonic()))
        self.finished.wait(seconds)
        outcome = self.outcome  # read once: it can still come
        if isinstance(outcome, Response):
            return outcome
        late = SafeText(f"no response within {seconds:.0f} s")
        raise outcome or TransientError(self.request.host, late)


def send(request: Request, deadline: float) -> Response:
    """Send a request and return the response, within REQUEST_SECONDS and before a deadline.

    The deadline is in seconds of time.monotonic. Raises AuthError or TransientError.
    """
    thread = RequestThread(request)
    thread.start()
    return thread.response(deadline)


def with_retries(attempt: Callable[[], T], deadline: float) -> T:
    """Return what one of four attempts returns. No retry starts after the deadline.

    Raises AuthError after the last attempt, and anything but a TransientError at once.
    """
    attempts = len(BACKOFF_SECONDS) + 1
    for number, backoff in enumerate([*BACKOFF_SECONDS, math.inf], start=1):
        try:
            return attempt()
        except TransientError as error:
            failure = error
        seconds = failure.retry_after
        if seconds is None:
            seconds = backoff * random.uniform(0.75, 1.25)
        if number == attempts or time.monotonic() + seconds >= deadline:
            break
        values = {"host": failure.host, "reason": failure.reason, "attempts": attempts}
        log(RETRYING, seconds=round(seconds, 1), number=number + 1, **values)
        time.sleep(seconds)
    raise AuthError(NO_RESPONSE, host=failure.host, reason=failure.reason, number=number, attempts=attempts)


def fetch(request: Request, deadline: float) -> Response:
    """Return a success or a refusal. Raises AuthError."""

    def attempt() -> Response:
        response = send(request, deadline)
        if not (response.ok or response.refused):
            raise response.unexpected_error()
        return response

    return with_retries(attempt, deadline)


# Identity tokens

NOT_A_JWT = """\
{variable} does not hold an identity token
An identity token is a JWT, three parts of base64 with a dot between each. Nothing was sent.
Check where the variable is set."""

WRONG_AUDIENCE = """\
The identity token in {variable} is for the audience {found}, not for {audience}
Request it for the audience {audience}, or correct the registry's URL (--url, INPUT_URL). Nothing was sent."""

EXPIRED = """\
The identity token in {variable} has expired
It was valid until {expired}. Start a new job to get a new one. Nothing was sent."""


def claims_of(identity_token: str) -> dict[str, Any]:
    """Return what an identity token claims, not verified; nothing if it is not a JWT."""
    with contextlib.suppress(ValueError, IndexError):
        claims = parse_json(base64.urlsafe_b64decode(identity_token.split(".")[1] + "=="))
        if isinstance(claims, dict):
            return claims
    return {}


def audiences_of(claims: dict[str, Any]) -> list[str]:
    """Return the audiences of an identity token: there can be several (RFC 7519, section 4.1.3)."""
    audiences = claims.get("aud", [])
    audiences = audiences if isinstance(audiences, list) else [audiences]
    return [str(audience) for audience in audiences] or ["(none)"]


def has_expired(claims: dict[str, Any]) -> bool:
    """Tell whether an identity token has expired, allowing for CLOCK_SKEW_SECONDS."""
    expires = claims.get("exp")
    return isinstance(expires, float) and expires + CLOCK_SKEW_SECONDS < time.time()


def format_time(seconds: float) -> str:
    """Return the date and the time, in UTC, of a time in seconds since the epoch."""
    try:
        return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))
    except (OverflowError, ValueError, OSError):  # it comes from outside
        return "an unknown time"


# The record

UNSAFE_RECORD = """\
Can't use {path} to record access tokens: {reason}
It must belong to you and be open to nobody else: a folder of mode 0700, or a regular file of mode 0600 that
is not a link. If somebody else put it there, find out who. Remove it, and run this again."""

DAMAGED_RECORD = """\
The record {path} is damaged: one of its lines can't be read
The access tokens in its other lines are revoked as usual. One in the damaged line expires by itself, on
crates.io 30 minutes after it was issued. Wait until then, and remove the file."""


class IssuedToken(NamedTuple):
    """An access token, as it stands in the record."""

    registry: str  # its URL
    token: str
    issued_at: float  # in seconds since the epoch, before the request was sent: no token is older than this
    reusable: bool  # whether an upload may use it; a test token is revoked at once


def check_absolute(variable: str, path: str) -> None:
    """Raise AuthError for a relative path: a process in another folder would resolve it differently."""
    if not os.path.isabs(path):
        reason = f"{variable} must be an absolute path, and is {path}"
        raise AuthError(UNUSABLE_ENVIRONMENT, reason=reason)


def check_owner(path: str, status: os.stat_result, kind: int) -> None:
    """Raise AuthError if a file or folder is of another kind, somebody else's, or a hard link."""
    owned = sys.platform == "win32" or status.st_uid == os.geteuid()
    linked = kind == stat.S_IFREG and status.st_nlink > 1
    if stat.S_IFMT(status.st_mode) != kind or linked or not owned:
        raise AuthError(UNSAFE_RECORD, path=path, reason="it is a link, a special file, or somebody else's")


def write_line(file: IO[bytes], line: str, name: str) -> None:
    """Write a line with one system call, so that lines of several processes don't mix. Raises AuthError."""
    content = os.fsencode(line)
    try:
        if file.write(content) == len(content):
            return
        reason: object = "only a part of a line could be written"
    except OSError as error:
        reason = error.strerror
    raise AuthError(UNUSABLE_ENVIRONMENT, reason=f"{name}: {reason}")


class Record:
    """The file with a line of JSON for each access token of this job that is to be revoked.

    Several processes can use it at once without a lock: they only append lines, and overwrite lines with
    blanks. All methods raise AuthError, or OSError, if the file can't be used.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def open(self, flags: int = 0) -> IO[bytes]:
        """Open the file, which must be the user's own, and remove all permissions of others.

        Raises FileNotFoundError if it is missing, unless O_CREAT is among the flags and its folder exists.
        """
        for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"):  # each is missing on some systems
            flags |= getattr(os, name, 0)
        try:
            file = os.fdopen(os.open(self.path, flags | os.O_RDWR, 0o600), "r+b", 0)
        except OSError as error:
            if not os.path.lexists(self.path):
                raise
            raise AuthError(UNSAFE_RECORD, path=self.path, reason=error.strerror) from None
        check_owner(self.path, os.fstat(file.fileno()), stat.S_IFREG)
        if sys.platform != "win32":
            os.fchmod(file.fileno(), 0o600)
        return file

    def create(self) -> None:
        """Make the file, if it is missing."""
        self.open(os.O_CREAT).close()

    def add(self, issued: IssuedToken) -> None:
        """Append an access token."""
        line = json.dumps(issued._asdict())
        with self.open(os.O_CREAT | os.O_APPEND) as file:
            # It begins with a line break, too: a full disk may have cut off the line before.
            write_line(file, f"\n{line}\n", self.path)

    def lines(self) -> list[tuple[IssuedToken | None, int, int]]:
        """Return, for each line that is not blank, what it holds, where it starts, and its length in bytes.

        A damaged line holds None. A missing file has no lines.
        """
        try:
            with self.open() as file:
                content = file.read()
        except FileNotFoundError:
            return []
        lines = re.finditer(rb"\S[^\n]*", content)
        return [(parse_record_line(line[0]), line.start(), len(line[0])) for line in lines]

    def tokens(self) -> list[IssuedToken]:
        """Return the access tokens in the file."""
        return [issued for issued, _, _ in self.lines() if issued]

    def fresh_token(self, registry: str) -> IssuedToken | None:
        """Return an access token for a registry that can be used for one more upload, if there is one."""
        now = time.time()
        for issued in self.tokens():
            fresh = issued.issued_at <= now < issued.issued_at + FRESH_SECONDS
            if issued.registry == registry and issued.reusable and fresh:
                return issued
        return None

    def remove(self, issued: IssuedToken) -> None:
        """Overwrite the lines of an access token with blanks."""
        for found, start, length in self.lines():
            if found and (found.registry, found.token) == (issued.registry, issued.token):
                with self.open() as file:
                    file.seek(start)
                    write_line(file, " " * length, self.path)


def parse_record_line(line: bytes) -> IssuedToken | None:
    """Return the access token of a line of the record; None if the line is damaged."""
    values = parse_json(line)
    if not isinstance(values, dict) or set(values) != set(IssuedToken._fields):
        return None
    issued = IssuedToken(**values)
    valid = [type(value) for value in issued] == [str, str, float, bool] and is_secret(issued.token)
    return issued if valid else None


# The CI systems

NO_VARIABLE = """\
There is no identity token in {variable}
On GitLab, add this to the job:
  id_tokens:
    {variable}:
      aud: {audience}
In any other CI system, set {variable} to an OIDC token for the audience {audience}."""

NO_PERMISSION = """\
Missing permission: id-token: write
Add it to the job and run the job again. Permissions that you don't list are set to none:
  permissions:
    contents: read
    id-token: write"""

FORK = """\
A pull request from a fork can't get an identity token
GitHub issues none for it, whatever its `permissions` say, so that strangers can't publish in your name.
Publish from a push, a tag or a release in the repository itself."""

ISSUED_ELSEWHERE = """\
Got an access token from {registry}, valid for 30 minutes (until {expires}).
It is on stdout, and nothing masks it: keep it out of the log.
Revoke it at the end of the job: python3 crates_io_auth.py post"""

ISSUED_ON_GITHUB = """\
Got an access token from {registry}, valid for 30 minutes (until {expires}).
It is masked in this log, set as the output `token`, and revoked when the job ends."""


class CI:
    """Any CI system, or a shell. A subclass overrides what its system does differently."""

    single_use = True  # a job has one identity token, which the registry accepts once: none for a test
    issued_message = ISSUED_ELSEWHERE
    always_has_record = False  # `post` can be run without `main`, so a missing record is no warning

    def identity_token(self, audience: str, deadline: float) -> str:
        """Return an identity token from the variable that is named after the audience.

        The name follows the convention of PyPA's `id` library (https://github.com/di/id). Raises AuthError.
        """
        variable = re.sub(r"[^A-Z0-9_]|^[0-9]", "_", audience.upper()) + "_ID_TOKEN"
        token = secret_in(variable)
        if not token:
            raise AuthError(NO_VARIABLE, variable=variable, audience=audience)
        claims = claims_of(token)
        if not claims:
            raise AuthError(NOT_A_JWT, variable=variable)
        if audience not in audiences_of(claims):
            raise AuthError(
                WRONG_AUDIENCE, variable=variable, found=", ".join(audiences_of(claims)), audience=audience
            )
        if has_expired(claims):
            raise AuthError(EXPIRED, variable=variable, expired=format_time(claims["exp"]))
        return token

    def mask(self, secret: str) -> None:
        """Hide a secret in everything that is printed later, where the log can do that. Raises OSError."""

    def annotate(self, level: str, message: SafeText) -> None:
        """Show an error or a warning."""
        with contextlib.suppress(OSError):
            print(f"crates-io-auth: {level}: {message}", file=sys.stderr, flush=True)

    def record_path(self) -> str:
        """Return where the record of this job is: in a folder of the user's, a file for each job.

        Raises AuthError if that folder is not the user's alone.
        """
        # Not tempfile.gettempdir, which avoids a full disk: `post` must look where `main` wrote.
        temporary = os.environ.get("TMPDIR") or os.environ.get("TEMP") or "/tmp"
        check_absolute("TMPDIR (or TEMP)", temporary)
        folder = os.path.join(temporary, "crates-io-auth")
        if sys.platform != "win32":  # Windows has a temporary folder for each user
            folder += f"-{os.geteuid()}"
        os.makedirs(folder, 0o700, exist_ok=True)
        status = os.lstat(folder)
        check_owner(folder, status, stat.S_IFDIR)
        if sys.platform != "win32" and status.st_mode & 0o077:
            raise AuthError(UNSAFE_RECORD, path=folder, reason="it is open to others")
        job = os.environ.get("CI_JOB_ID", "")  # GitLab sets it
        name = hashlib.sha256(os.fsencode(job)).hexdigest()[:32] if job else "no-job-id"
        return os.path.join(folder, f"{name}.jsonl")

    def check_output(self) -> None:
        """Raise AuthError or OSError if an access token could not be handed over."""
        os.fstat(1)

    def hand_over(self, token: str) -> None:
        """Give an access token to the later commands of the job. Raises AuthError or OSError."""
        with open(1, "wb", buffering=0, closefd=False) as stdout:
            write_line(stdout, f"{token}\n", "stdout")

    def set_output(self, name: str, value: str) -> None:
        """Set an output of the step, where there is such a thing. Raises AuthError or OSError."""

    def summarize(self, markdown: str) -> None:
        """Add to the summary of the step, where there is such a thing."""


class GitHubActions(CI):
    """A step of GitHub Actions.

    https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands
    """

    single_use = False
    issued_message = ISSUED_ON_GITHUB
    always_has_record = True  # the post step runs after `main`

    def endpoint(self) -> tuple[str, str]:
        """Return the URL for identity tokens, and the bearer token for it. Raises AuthError.

        https://docs.github.com/en/actions/reference/security/oidc
        """
        url = os.environ.get("ACTIONS_ID_TOKEN_REQUEST_URL")
        bearer = secret_in("ACTIONS_ID_TOKEN_REQUEST_TOKEN")
        if url and bearer:
            return url, bearer
        with contextlib.suppress(OSError), open(os.environ.get("GITHUB_EVENT_PATH", ""), "rb") as file:
            event = file.read()
            head = parse_json(event, "pull_request", "head", "repo", "id") or "unknown"
            from_elsewhere = head != parse_json(event, "pull_request", "base", "repo", "id")
            is_fork = parse_json(event, "pull_request", "head", "repo", "fork") is True
            # A repository that is a fork has pull requests of its own. pull_request_target can get a token.
            if is_fork and from_elsewhere and os.environ.get("GITHUB_EVENT_NAME") != "pull_request_target":
                raise AuthError(FORK)
        raise AuthError(NO_PERMISSION)

    def identity_token(self, audience: str, deadline: float) -> str:
        """Return a new identity token. Raises AuthError or TransientError.

        Any failure can be transient, even a 403 (https://github.com/hashicorp/vault-action/issues/525).
        """
        url, bearer = self.endpoint()
        url += "&audience=" + urllib.parse.quote(audience, safe="")
        response = send(Request("GET", url, bearer=bearer), deadline)
        token = parse_json(response.body, "value") if response.ok else None
        if not is_secret(token):
            raise response.transient_error()
        return str(token)

    def mask(self, secret: str) -> None:
        print(f"::add-mask::{secret}", file=sys.stderr, flush=True)

    def annotate(self, level: str, message: SafeText) -> None:
        # The log shows the message without its title; the title is for the page of the run.
        text = message.replace("%", "%25").replace("\n", "%0A")
        with contextlib.suppress(OSError):
            print(f"::{level} title=crates-io-auth::{text}", file=sys.stderr, flush=True)

    def path(self, variable: str) -> str:
        """Return a path that the runner sets in every step. Raises AuthError."""
        path = os.environ.get(variable, "")
        if not path:
            reason = f"{variable} is not set, which GitHub's runner sets in every step"
            raise AuthError(UNUSABLE_ENVIRONMENT, reason=reason)
        check_absolute(variable, path)
        return path

    def open_runner_file(self, variable: str) -> IO[bytes]:
        """Open a file that the runner made for this step, to append to. Raises AuthError or OSError.

        A missing file is not made: the runner would never read it.
        """
        return os.fdopen(os.open(self.path(variable), os.O_WRONLY | os.O_APPEND), "ab", 0)

    def record_path(self) -> str:
        return os.path.join(self.path("RUNNER_TEMP"), "crates-io-auth.jsonl")

    def check_output(self) -> None:
        self.open_runner_file("GITHUB_OUTPUT").close()

    def hand_over(self, token: str) -> None:
        self.set_output("token", token)

    def set_output(self, name: str, value: str) -> None:
        with self.open_runner_file("GITHUB_OUTPUT") as output:
            write_line(output, f"{name}={value}\n", "GITHUB_OUTPUT")

    def summarize(self, markdown: str) -> None:
        with contextlib.suppress(OSError, AuthError), self.open_runner_file("GITHUB_STEP_SUMMARY") as summary:
            summary.write(markdown.encode())


def detect_ci() -> CI:
    """Return the CI system that this process runs in."""
    return GitHubActions() if os.environ.get("GITHUB_ACTIONS") == "true" else CI()


# The exchange, and the revocation

REFUSED = """\
{host} refused the identity token: {problem}
  {explanation}"""

STILL_UNANSWERED = """\
{host} hasn't responded to a request for an access token, and may still issue one. Nobody holds that token, \
and it expires by itself after 30 minutes."""

REVOCATION_REFUSED = "{host} refused to revoke an access token: {problem}"

NOT_REVOKED = """\
Couldn't revoke an access token
  {problems}
You can leave it: it expires by itself, on crates.io 30 minutes after it was issued."""

GITHUB_ISSUER = "https://token.actions.githubusercontent.com"
GITLAB_ISSUER = "https://gitlab.com"

# The claims that crates.io compares with a trusted publisher, in the words of its form.
CLAIMS = {
    "repository": "repository",
    "repository_owner_id": "repository owner ID",
    "workflow_ref": "workflow file",
    "project_path": "project",
    "namespace_id": "namespace ID",
    "ci_config_ref_uri": "CI file",
    "environment": "environment",
}


def describe_claims(claims: dict[str, Any], audience: str) -> list[str]:
    """Return a line for each claim as crates.io compares it, and for an unusual issuer or audience."""
    lines = []
    for name, words in CLAIMS.items():
        value = claims.get(name)
        if value and name in ("workflow_ref", "ci_config_ref_uri"):
            # octo/crate/.github/workflows/release.yml@main, or gitlab.com/octo/crate//.gitlab-ci.yml@main
            value = re.sub(r"^.*(//|/\.github/workflows/)|@.*$", "", str(value))
        if value or name == "environment":
            lines.append(f"- {words}: {value or '(none)'}")
    if claims.get("iss", GITHUB_ISSUER) not in (GITHUB_ISSUER, GITLAB_ISSUER):
        lines.append(f"- issuer: {claims['iss']}")
    if audience not in audiences_of(claims):
        lines.append(f"- audience: {', '.join(audiences_of(claims))}")
    return lines


def explain_refusal(problem: str, claims: dict[str, Any], registry: str) -> list[str]:
    """Return advice that the registry's own message doesn't give.

    https://github.com/rust-lang/crates.io/tree/main/src/controllers/trustpub
    """
    audience = audience_of(registry)
    if "already been used" in problem:
        return ["An identity token can be exchanged only once. Start a new job to get a new one."]
    if "decode JWT" in problem:  # for three causes that it doesn't tell apart
        if has_expired(claims):
            return [f"It expired at {format_time(claims['exp'])}. Start a new job to get a new one."]
        if audience not in audiences_of(claims):
            return [f"It is for the audience {', '.join(audiences_of(claims))}, not for {audience}."]
        return [
            "It hasn't expired and has the right audience: its signature, or another claim, must be wrong."
        ]
    if "JWT issuer" in problem:
        supported = f"GitHub Actions ({GITHUB_ISSUER}) and GitLab ({GITLAB_ISSUER})"
        return [f"It is from the issuer {claims.get('iss')}. crates.io supports {supported}."]
    if "event trigger" in problem:
        return [f"- event: {claims.get('event_name')}"]
    lines = ["A trusted publisher of the crate must match what the identity token claims:"]
    lines += describe_claims(claims, audience)
    if claims.get("job_workflow_ref") not in (None, claims.get("workflow_ref")):
        lines.append("The job is in a reusable workflow: the file of the workflow that calls it counts.")
    lines.append(f"Compare this with the crate's settings, {registry}/crates/<crate>/settings.")
    if "No Trusted Publishing config" in problem:
        lines.append("The first version of a crate must be published with an ordinary API token.")
    lines.append("A refused identity token isn't used up: you can correct the settings and run this again.")
    return lines


class Exchange(RequestThread):
    """A request that exchanges an identity token for an access token."""

    def __init__(self, registry: str, identity_token: str, reusable: bool) -> None:
        super().__init__(Request("POST", registry + TOKENS_PATH, body={"jwt": identity_token}))
        self.registry = registry
        self.reusable = reusable
        self.started_at = int(time.time())

    def issued_token(self) -> IssuedToken | None:
        """Return the access token in the response, if it has come and holds one."""
        response = self.outcome
        token = parse_json(response.body, "token") if isinstance(response, Response) and response.ok else None
        if not is_secret(token):
            return None
        return IssuedToken(self.registry, str(token), self.started_at, self.reusable)


class AccessTokens:
    """The access tokens that this process gets. They are recorded, and revoked if the `with` block fails.

    `mask` hides a secret in the log before anything else can print it.
    """

    def __init__(self, ci: CI, record: Record, mask: Callable[[str], None]) -> None:
        self.ci = ci
        self.record = record
        self.mask = mask
        self.exchanges: list[Exchange] = []  # also those whose responses may come late
        self.issued: list[IssuedToken] = []

    def __enter__(self) -> AccessTokens:
        return self

    def __exit__(self, failure: type[BaseException] | None, *_: object) -> None:
        with contextlib.suppress(Cancelled):  # by a signal that comes right now
            ignore_cancellation()  # no later process knows of an access token that isn't in the record yet
        unrecorded = self.receive_late_tokens()
        tokens = self.issued if failure else unrecorded  # what is recorded is for `post`
        problems = revoke_all(tokens, self.record, CLEANUP_SECONDS)
        log_revoked(len(tokens) - len(problems))
        if problems:
            log(NOT_REVOKED, problems=problems)

    def get(self, registry: str, reusable: bool = True) -> IssuedToken:
        """Exchange an identity token for an access token. Raises AuthError or OSError.

        Each attempt uses a new identity token, if the CI system issues one: if the response to an attempt was
        lost, the registry may have accepted its identity token, and accepts none twice.
        """
        self.record.create()  # before a token is issued that could not be recorded
        deadline = time.monotonic() + ISSUE_SECONDS

        def attempt() -> IssuedToken:
            identity_token = self.ci.identity_token(audience_of(registry), deadline)
            self.mask(identity_token)
            exchange = Exchange(registry, identity_token, reusable)
            self.exchanges.append(exchange)  # before it is sent, so that no signal can come between
            exchange.start()
            response = exchange.response(deadline)
            issued = exchange.issued_token()
            if issued:
                self.keep(issued)
                return issued
            if not response.refused:
                raise response.unexpected_error()
            explanation = explain_refusal(response.problem, claims_of(identity_token), registry)
            host = exchange.request.host
            raise AuthError(REFUSED, host=host, problem=response.problem, explanation=explanation)

        return with_retries(attempt, deadline)

    def keep(self, issued: IssuedToken) -> None:
        """Record and mask an access token, if that isn't done yet. Raises AuthError or OSError."""
        is_new = issued not in self.issued
        if is_new:
            self.issued.append(issued)
        if issued not in self.record.tokens():  # a signal may have come before it was written
            self.record.add(issued)
        if is_new:
            self.mask(issued.token)

    def receive_late_tokens(self) -> list[IssuedToken]:
        """Wait up to LATE_SECONDS for missing responses, and keep the access tokens in them.

        Returns those that can't be recorded.
        """
        deadline = time.monotonic() + LATE_SECONDS
        unrecorded = []
        for exchange in self.exchanges:
            if not exchange.finished.wait(max(0.0, deadline - time.monotonic())):
                log(STILL_UNANSWERED, host=exchange.request.host)
            issued = exchange.issued_token()
            if issued:
                try:
                    self.keep(issued)
                except (AuthError, OSError) as error:
                    unrecorded.append(issued)
                    log("{error}", error=explain(error))
        self.exchanges = []
        return unrecorded


def revoke(issued: IssuedToken, seconds: float) -> None:
    """Revoke an access token within some seconds. Raises AuthError.

    Only the registry's own response counts, not that of a proxy: a 204, or a 401 or 404 with its JSON errors,
    which it sends for a token that it doesn't know.
    """
    deadline = time.monotonic() + seconds
    url = registry_url(issued.registry) + TOKENS_PATH

    def attempt() -> None:
        response = send(Request("DELETE", url, bearer=issued.token), deadline)
        detail = parse_json(response.body, "errors", 0, "detail")
        # A registry that misses the header hasn't seen the token: a proxy has taken it away.
        from_registry = isinstance(detail, str) and "Missing" not in detail
        if response.status == 204 or (response.status in (401, 404) and from_registry):
            return
        if not (response.refused and from_registry):
            raise response.unexpected_error()
        raise AuthError(REVOCATION_REFUSED, host=response.request.host, problem=response.problem)

    with_retries(attempt, deadline)


def revoke_all(tokens: list[IssuedToken], record: Record, seconds: float) -> list[SafeText]:
    """Revoke access tokens, all within some seconds, and take them out of the record.

    One that fails doesn't stop the others. Returns the reason for each that is left.
    """
    problems = []
    for issued in tokens:
        try:
            revoke(issued, seconds / len(tokens))
            record.remove(issued)
        except Exception as error:
            problems.append(first_line(explain(error)))
    return problems


def log_revoked(count: int) -> None:
    """Tell how many access tokens were revoked, if any."""
    if count:
        log("Revoked {count} access token{plural}.", count=count, plural="s" if count > 1 else "")


# The commands main and post

INVALID_INPUT = """\
The input {name} must be true or false, and is {value}
Correct it in the workflow."""

IGNORED_INPUT = "The input {name} has no effect {mode}. Remove it from the workflow."

NO_RECORD = """\
The record of this job, {path}, is missing
Either no access token was requested, or a step has removed the record, perhaps by emptying RUNNER_TEMP. If
this job got an access token, it expires by itself, on crates.io 30 minutes after it was issued."""


class Inputs(NamedTuple):
    """The inputs of the action."""

    registry: str  # the URL of the registry, checked
    credential_provider: bool
    cargo_registry: str  # cargo's name for the registry, as it is written


def read_inputs(ci: CI, url: str | None) -> Inputs:
    """Return the inputs in the environment; a URL from the command line takes precedence.

    Booleans are those of YAML 1.2, as GitHub's own toolkit has them. Raises AuthError.
    """
    value = os.environ.get("INPUT_CREDENTIAL_PROVIDER") or "false"
    if value not in ("true", "True", "TRUE", "false", "False", "FALSE"):
        raise AuthError(INVALID_INPUT, name="credential-provider", value=value)
    registry = registry_url(default_registry() if url is None else url)
    inputs = Inputs(registry, value.lower() == "true", os.environ.get("INPUT_REGISTRY") or "crates-io")
    if inputs.credential_provider and inputs.registry != CRATES_IO:
        ci.annotate("warning", render(IGNORED_INPUT, name="url", mode="with credential-provider"))
    if not inputs.credential_provider and inputs.cargo_registry != "crates-io":
        ci.annotate("warning", render(IGNORED_INPUT, name="registry", mode="without credential-provider"))
    return inputs


def main(url: str | None = None) -> None:
    """Get an access token from the registry at `url` and hand it over, or set up cargo to ask for tokens.

    Without a `url`, the registry is that of the input `url`, or crates.io. Raises AuthError or OSError.
    """
    ci = detect_ci()
    record = Record(ci.record_path())
    record.create()  # so that `post` can tell a record that was removed from one that never existed
    inputs = read_inputs(ci, url)
    if inputs.credential_provider:
        set_up_cargo(ci, inputs.cargo_registry)
        return
    ci.check_output()
    with AccessTokens(ci, record, ci.mask) as tokens:
        issued = tokens.get(inputs.registry)
        ci.hand_over(issued.token)
        expires = format_time(issued.issued_at + LIFETIME_SECONDS)
        log(ci.issued_message, registry=inputs.registry, expires=expires)


def post() -> None:
    """Revoke every access token in the record, and a temporary one in CARGO_REGISTRY_TOKEN.

    Raises AuthError when one is left, or when the record can't be read; the others are revoked.
    """
    ci = detect_ci()
    record = Record("")  # without a file, for the case that its path isn't safe
    missing = False
    tokens: list[IssuedToken] = []
    failures: list[AuthError] = []
    try:
        record = Record(ci.record_path())
        missing = ci.always_has_record and not os.path.lexists(record.path)
        lines = record.lines()
        tokens += [issued for issued, _, _ in lines if issued]
        if len(tokens) < len(lines):
            failures.append(AuthError(DAMAGED_RECORD, path=record.path))
    except (AuthError, OSError) as error:
        failures.append(AuthError("{message}", message=explain(error)))
    try:
        token = os.environ.get("CARGO_REGISTRY_TOKEN", "")
        if token.startswith("cio_tp_") and token not in [issued.token for issued in tokens]:
            registry = registry_url(default_registry())
            tokens.append(IssuedToken(registry, secret_in("CARGO_REGISTRY_TOKEN"), 0, reusable=False))
    except AuthError as error:
        failures.append(error)
    problems = revoke_all(tokens, record, REVOKE_SECONDS * len(tokens))
    log_revoked(len(tokens) - len(problems))
    if problems:
        failures.append(AuthWarning(NOT_REVOKED, problems=problems))
    if missing:
        ci.annotate("warning", render(NO_RECORD, path=record.path))
    elif not (tokens or failures):
        log("Nothing to revoke.")
    for failure in failures[1:]:  # `run` shows the one that is raised
        ci.annotate(failure.level, failure.message)
    if failures:
        raise failures[0]


# cargo's credential provider

NO_PROVIDER = """\
credential-provider doesn't work here: {reason}
cargo can start the provider on Linux and macOS, from an absolute path of printable characters without
blanks. Remove `credential-provider` from the workflow, and use the output `token`."""

TOKEN_IGNORED = """\
{variable} is set, but cargo ignores it: it gets its tokens from the credential provider
Remove the variable: every build script can read it."""

PROVIDER_SET_UP = """\
cargo gets its access tokens from crates-io-auth in the next steps ({variable} is set).
They are revoked when the job ends."""

NOT_A_REQUEST = """\
This is not a request of version 1 of cargo's credential provider protocol
`--cargo-plugin` is for cargo, which uses it if CARGO_REGISTRY_CREDENTIAL_PROVIDER names this file."""

UNSUPPORTED_OPERATION = """\
A token of trusted publishing can't be used for `cargo {operation}`
Use an ordinary API token: `cargo {operation} --token …`."""

LOGIN = """\
`cargo login` isn't needed: cargo gets its tokens from crates-io-auth, its credential provider
To log in with an ordinary API token all the same, unset the variable that names the provider."""

UNREADABLE_INDEX = """\
Couldn't read the configuration of the index at {host}: {problem}
Check its URL. Its config.json must be readable without a token."""

FOREIGN_REGISTRY = """\
The index at {host} belongs to a registry elsewhere, {registry}
An access token for one registry must not be sent to another. Get it with `crates_io_auth.py --url` and give
it to cargo in a variable instead."""

TEST_TOKEN_NOT_REVOKED = """\
Stopped before anything was built: the test token could not be revoked. Nothing was published by this command.
  {problems}
The test token expires by itself, on crates.io 30 minutes after it was issued. Run the job again."""

# What cargo gets before it builds, if reading the index needs no token: cargo then sends it nowhere
# (https://doc.rust-lang.org/cargo/reference/registry-index.html#index-authentication).
PLACEHOLDER_TOKEN = "the-upload-gets-a-real-token"

CRATES_IO_INDEXES = ("sparse+https://index.crates.io/", "https://github.com/rust-lang/crates.io-index")


def set_up_cargo(ci: CI, cargo_registry: str) -> None:
    """Have cargo get its tokens for a registry from this file, in the steps that follow.

    Writes a launcher, since cargo can't pass options to Python. Raises AuthError or OSError.
    """
    if not isinstance(ci, GitHubActions):
        raise AuthError(NO_PROVIDER, reason="this is not GitHub Actions")
    ci.endpoint()  # fail now if the permission is missing
    folder = ci.path("RUNNER_TEMP")
    if sys.platform == "win32":
        raise AuthError(NO_PROVIDER, reason="this is Windows")
    # cargo splits the variable at blanks, and the runner ends it at a line break.
    if not folder.isprintable() or " " in folder:
        raise AuthError(NO_PROVIDER, reason=f"RUNNER_TEMP is {folder}")
    prefix = variable_prefix(cargo_registry)
    if os.environ.get(f"{prefix}_TOKEN"):
        ci.annotate("warning", render(TOKEN_IGNORED, variable=f"{prefix}_TOKEN"))
    descriptor, launcher = tempfile.mkstemp(prefix="crates-io-auth-for-cargo-", dir=folder)
    with open(descriptor, "wb", buffering=0) as file:
        command = f"{shlex.quote(sys.executable)} -I -S {shlex.quote(os.path.abspath(__file__))}"
        write_line(file, f'#!/bin/sh\nexec {command} "$@"\n', launcher)
    os.chmod(launcher, 0o700)
    variable = f"{prefix}_CREDENTIAL_PROVIDER"
    with ci.open_runner_file("GITHUB_ENV") as variables:
        write_line(variables, f"{variable}={launcher}\n", "GITHUB_ENV")
    log(PROVIDER_SET_UP, variable=variable)


def variable_prefix(cargo_registry: str) -> str:
    """Return what the names of cargo's variables for a registry begin with."""
    if cargo_registry == "crates-io":
        return "CARGO_REGISTRY"
    return "CARGO_REGISTRIES_" + re.sub(r"[^A-Z0-9]", "_", cargo_registry.upper())


def cargo_plugin() -> None:
    """Respond to one request of cargo.

    https://doc.rust-lang.org/cargo/reference/credential-provider-protocol.html
    """
    ci = detect_ci()
    with open(0, "rb") as requests, open(1, "wb", buffering=0) as responses:
        write_line(responses, '{"v":[1]}\n', "stdout")
        line = requests.readline(RESPONSE_BYTES)
        try:
            # Nothing prints a token here, and cargo's output may go through a pipe that puts something in
            # front of each line: a mask command would then show the token instead of hiding it.
            with AccessTokens(ci, Record(ci.record_path()), mask=lambda secret: None) as tokens:
                write_line(responses, json.dumps(respond_to_cargo(line, tokens)) + "\n", "stdout")
        except Exception as error:
            refusal = {"Err": {"kind": "other", "message": explain(error)}}
            write_line(responses, json.dumps(refusal) + "\n", "stdout")


def respond_to_cargo(line: bytes, tokens: AccessTokens) -> dict[str, object]:
    """Return the response to a request of cargo. Raises AuthError or OSError for cargo to show."""
    kind, operation = parse_json(line, "kind"), parse_json(line, "operation")
    index = parse_json(line, "registry", "index-url")
    if parse_json(line, "v") != 1 or not kind or not isinstance(index, str):
        raise AuthError(NOT_A_REQUEST)
    wanted = operation if kind == "get" else kind
    if wanted == "login":
        raise AuthError(LOGIN)
    if wanted in ("owners", "yank", "unyank"):
        raise AuthError(UNSUPPORTED_OPERATION, operation=str(wanted).replace("owners", "owner"))
    if wanted not in ("read", "publish", "logout"):
        return {"Err": {"kind": "operation-not-supported"}}
    found = registry_of_index(index)
    if found is None:
        return {"Err": {"kind": "url-not-supported"}}  # cargo then asks its next provider
    registry, auth_required = found
    if wanted == "logout":
        issued_here = [issued for issued in tokens.record.tokens() if issued.registry == registry]
        problems = revoke_all(issued_here, tokens.record, REVOKE_SECONDS)
        if problems:
            raise AuthError(NOT_REVOKED, problems=problems)
        return {"Ok": {"kind": "logout"}}
    # Not independent of the operation: what cargo got for reading must not serve for an upload.
    response: dict[str, object] = {"kind": "get", "operation_independent": False, "cache": "never"}
    if wanted == "read" and not auth_required:
        preflight(registry, tokens)
        response["token"] = PLACEHOLDER_TOKEN
    else:
        issued = tokens.record.fresh_token(registry)
        age = f"reused, {(time.time() - issued.issued_at) / 60:.0f} min old" if issued else "new"
        issued = issued or tokens.get(registry)
        purpose = "reading the index"
        if wanted == "publish":
            purpose = f"{parse_json(line, 'name')} {parse_json(line, 'vers')}"
        log("Access token for {purpose}: {age}", purpose=purpose, age=age)
        expiration = int(issued.issued_at + FRESH_SECONDS)
        response.update(token=issued.token, cache="expires", expiration=expiration)
    return {"Ok": response}


def registry_of_index(index: str) -> tuple[str, bool] | None:
    """Return the registry of an index, and whether reading needs a token; None if it names no registry.

    https://doc.rust-lang.org/cargo/reference/registry-index.html. Raises AuthError.
    """
    if index in CRATES_IO_INDEXES:
        return CRATES_IO, False
    if not index.startswith("sparse+"):
        return None
    url = index[len("sparse+") :].rstrip("/") + "/config.json"
    response = fetch(Request("GET", url), time.monotonic() + REQUEST_SECONDS)
    if response.status != 404 and not response.ok:
        raise AuthError(UNREADABLE_INDEX, host=response.request.host, problem=response.problem)
    api = parse_json(response.body, "api")
    if not response.ok or not isinstance(api, str):
        return None
    registry = registry_url(api)
    # Without this check a malicious index could name crates.io as its registry, and cargo would send the
    # token for crates.io to a server that the index chooses.
    named, asked = parse_url(registry), parse_url(url.lower())
    same_port = int(named["port"] or 443) == int(asked["port"] or 443)
    subdomain = f".{asked['host']}".endswith(f".{named['host']}")
    if named["host"][-1].isdigit():  # an IP address has no subdomains
        subdomain = asked["host"] == named["host"]
    if not (subdomain and same_port and named["scheme"] == asked["scheme"]):
        raise AuthError(FOREIGN_REGISTRY, host=asked["host"], registry=registry)
    return registry, parse_json(response.body, "auth-required") is True


def preflight(registry: str, tokens: AccessTokens) -> None:
    """Find out whether an upload would get an access token, as far as that can be tried. Raises AuthError.

    cargo asks before it builds, so a test token must be revoked before build scripts run
    (https://github.com/rust-lang/cargo/issues/15743).
    """
    if tokens.record.fresh_token(registry):
        log("Preflight: the access token of an earlier upload can be used again.")
    elif tokens.ci.single_use:
        tokens.ci.identity_token(audience_of(registry), time.monotonic())
        log("Preflight: there is an identity token, to be exchanged at the first upload.")
    else:
        tokens.get(registry, reusable=False)
        tokens.receive_late_tokens()
        test_tokens, tokens.issued = tokens.issued, []
        problems = revoke_all(test_tokens, tokens.record, CLEANUP_SECONDS)
        if problems:
            raise AuthError(TEST_TOKEN_NOT_REVOKED, problems=problems)
        log("Preflight: got a test token from {registry} and revoked it.", registry=registry)


# The command line

DESCRIPTION = "Get a short-lived crates.io access token in CI, and revoke it afterwards."

EPILOG = """\
In cargo's configuration, this file is also a credential provider: `crates_io_auth.py --cargo-plugin`.

environment:
  CRATES_IO_ID_TOKEN    the identity token, outside GitHub Actions. For another registry the name follows from
                        its URL: STAGING_CRATES_IO_ID_TOKEN
  INPUT_URL             the registry's URL, if --url is not given
  INPUT_CREDENTIAL_PROVIDER, INPUT_REGISTRY
                        the other inputs of the action
  CI_JOB_ID             keeps the records of several jobs on one machine apart
  CARGO_REGISTRY_TOKEN  `post` revokes it if it is a temporary token (cio_tp_…)
  HTTPS_PROXY, NO_PROXY, SSL_CERT_FILE

exit status: 0 for success, 1 for a failure, 2 for a wrong command line
"""


def parse_arguments(arguments: list[str]) -> Callable[[], None]:
    """Return the command to run. Exits for --help and for a wrong command line."""
    if not arguments:
        return main
    if arguments == ["--cargo-plugin"]:
        return cargo_plugin
    import argparse  # here: 3 ms and 0.3 MiB that the action and cargo don't need

    class ArgumentParser(argparse.ArgumentParser):
        def error(self, message: str) -> NoReturn:
            super().error(sanitize(message))  # it repeats the arguments

    formatter = argparse.RawDescriptionHelpFormatter
    parser = ArgumentParser(
        prog="crates_io_auth.py", description=DESCRIPTION, epilog=EPILOG, formatter_class=formatter
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", metavar="command", required=True)
    main_parser = commands.add_parser("main", help="get an access token and hand it over (the default)")
    main_parser.add_argument("--url", help="the URL of the registry (default: https://crates.io)")
    commands.add_parser("post", help="revoke the access tokens of this job")
    check_parser = commands.add_parser("check", help="show which crates of a workspace can be published")
    check_parser.add_argument("--manifest-path", help="a Cargo.toml that cargo wouldn't find by itself")
    check_parser.add_argument("--registry", default="crates-io", help="cargo's name for the registry")
    if arguments[0].partition("=")[0] == "--url":
        arguments = ["main", *arguments]
    options = parser.parse_args(arguments)
    if options.command == "check":
        return lambda: check(options.manifest_path, options.registry or "crates-io")
    if options.command == "post":
        return post
    return lambda: main(options.url)


def run(arguments: list[str]) -> int:
    """Do what the command line says, and return the exit status."""
    if sys.stderr is None:  # it was closed before Python started; print would write to stdout instead
        # Read-only on purpose: writing fails, so a token that can't be masked is never requested.
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_RDONLY))
    command = parse_arguments(arguments)
    ci = CI() if command is cargo_plugin else detect_ci()  # cargo shows what is printed as it is
    try:
        for number in CANCEL_SIGNALS:
            signal.signal(number, cancel)
        command()
        ignore_cancellation()
        return 0
    except BaseException as error:
        ignore_cancellation()
        message = explain(error)
        level = error.level if isinstance(error, AuthError) else "error"
        ci.annotate(level, message)
        if level == "error":
            # In an indented block of code nothing is a link or HTML, and no indented line can end it.
            code = message.replace("\n", "\n    ")
            ci.summarize(f"### crates-io-auth failed\n\n    {code}\n\n")
        return 1


# The command check

NO_CARGO = """\
Couldn't run cargo: {reason}
`check` asks it for the crates of the workspace. Make sure that cargo is in PATH and works. Then run this
again."""

OLD_CARGO = """\
`check` needs cargo 1.74 or later, and this is {version}
Update it (`rustup update`), or correct the toolchain in rust-toolchain.toml."""

CARGO_FAILED = """\
`cargo {arguments}` failed
  {output}
Fix what cargo reports, and run this again."""

NO_INDEX = """\
{variable} does not hold the URL of a sparse index
`check` doesn't read cargo's configuration. Set the variable to the index of the registry {registry}, in the
form sparse+https://host/path/."""

INVALID_CRATE = """\
No registry accepts the crate {name} {version}
A crate's name consists of ASCII letters, digits, - and _. Its version must be a semantic version."""

INDEX_NEEDS_TOKEN = """\
The index at {host} needs a token for reading, and `check` sends none
Publish without `check`."""

NEW_CRATE = """\
{name} is new, and a trusted publisher can't create a crate
Publish what is left once with an ordinary API token, from this commit on your own machine:
  {command}
Then add a trusted publisher in the settings of {name}, and run this again."""

NOT_READY = """\
Stopped before any upload: not every crate is ready
  {problems}
Run this again when that has changed."""

ABOUT_READY = """
`check` can't see whether a trusted publisher matches: the upload of a crate without one fails. On GitHub, the
credential provider finds out before anything is built if no crate has one.
"""

WITHOUT_WORKSPACE = SafeText("cargo publish -p <crate>, dependencies first (--workspace needs cargo 1.90)")

READY = SafeText("ready")
PUBLISHED = SafeText("already published")
NEW = SafeText("new")


class Crate(NamedTuple):
    """A crate of the workspace that may be published to the registry."""

    name: str
    version: str

    @property
    def index_path(self) -> str:
        """Return where an index has the crate.

        https://doc.rust-lang.org/cargo/reference/registry-index.html#index-files
        """
        name = self.name.lower()
        folder = {1: "1", 2: "2", 3: f"3/{name[0]}"}.get(len(name), f"{name[:2]}/{name[2:4]}")
        return f"{folder}/{name}"

    def versions(self, lines: list[bytes]) -> list[str | None]:
        """Return the version on each line of the index, without build metadata; None if it isn't ours."""
        versions: list[str | None] = []
        for line in lines:
            entry = parse_json(line)
            name, version = (entry.get("name"), entry.get("vers")) if isinstance(entry, dict) else ("", "")
            found = re.match(r"[0-9]+\.[0-9]+\.[0-9]+[^+]*", str(version))
            versions.append(found[0] if found and str(name).lower() == self.name.lower() else None)
        return versions


def check(manifest_path: str | None = None, registry: str = "crates-io") -> None:
    """Print which crates of a workspace can be published to a registry, and the command for it.

    Raises AuthError if a crate is new, or if something can't be found out.
    """
    ci = detect_ci()
    version = run_cargo("--version").strip()
    release = tuple(int(number) for number in re.findall("[0-9]{1,9}", version)[:2])
    if release < (1, 74):
        raise AuthError(OLD_CARGO, version=version)
    crates, elsewhere = workspace_crates(manifest_path, registry)
    states = states_in_index(crates, index_url(registry))

    left = [crate for crate in crates if states[crate] != PUBLISHED]
    problems = [f"{crate.name} {crate.version}: {states[crate]}" for crate in left if states[crate] != READY]
    excluded = [*elsewhere, *(crate.name for crate in crates if crate not in left)]
    exclude = " ".join(f"--exclude {name}" for name in excluded)
    ci.set_output("exclude", exclude)
    ci.set_output("publish", "true" if left else "false")
    ci.summarize(markdown_table(states, registry))

    command = WITHOUT_WORKSPACE if release < (1, 90) else publish_command(exclude, registry, manifest_path)
    width = max((len(crate.name) for crate in crates), default=0)
    lines = [f"{crate.name:{width}}  {crate.version:12}  {state}" for crate, state in states.items()]
    if not crates:
        lines.append("No crate of this workspace may be published to this registry.")
    elif not left:
        lines.append("Nothing is left to publish.")
    elif not problems:
        lines += [ABOUT_READY, "To publish what is left:", f"  {command}"]
    # In ASCII, whatever stdout's encoding is: a reason can hold any character.
    print("\n".join(lines).encode("ascii", "backslashreplace").decode(), flush=True)
    for crate in left:
        if states[crate] == NEW:
            ci.annotate("error", render(NEW_CRATE, name=crate.name, command=command))
    if problems:
        raise AuthError(NOT_READY, problems=problems)


def run_cargo(*arguments: str) -> str:
    """Return what cargo prints. Raises AuthError."""
    import subprocess  # here: 10 ms that no other command needs

    command = ["cargo", *arguments]
    nothing = subprocess.DEVNULL
    try:
        cargo = subprocess.run(command, stdin=nothing, capture_output=True, timeout=CHECK_SECONDS, check=True)
    except subprocess.CalledProcessError as error:
        output = [line for line in error.stderr.decode(errors="replace").split("\n") if line]
        raise AuthError(CARGO_FAILED, arguments=" ".join(arguments), output=output[:20]) from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise AuthError(NO_CARGO, reason=error) from None
    return cargo.stdout.decode(errors="replace")


def workspace_crates(manifest_path: str | None, registry: str) -> tuple[list[Crate], list[str]]:
    """Return the crates that may be published to a registry, and the names of those for others alone.

    `cargo publish --workspace` skips a crate with `publish = false`, but refuses one for another registry.
    Raises AuthError.
    """
    arguments = ["metadata", "--no-deps", "--format-version=1"]
    if manifest_path:
        arguments.append(f"--manifest-path={manifest_path}")
    crates, elsewhere = [], []
    packages = parse_json(run_cargo(*arguments), "packages")
    if not isinstance(packages, list):
        raise AuthError(CARGO_FAILED, arguments="metadata", output="It printed no list of packages.")
    for package in packages:
        name, version, registries = package["name"], package["version"], package["publish"]
        if registries == []:
            continue
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name) or not re.fullmatch(r"[A-Za-z0-9.+-]+", version):
            raise AuthError(INVALID_CRATE, name=name, version=version)
        if registries is None or registry in registries:
            crates.append(Crate(name, version))
        else:
            elsewhere.append(name)
    return crates, elsewhere


def index_url(registry: str) -> str:
    """Return the URL of a registry's sparse index. Raises AuthError if it isn't known."""
    variable = f"{variable_prefix(registry)}_INDEX"
    index = CRATES_IO_INDEXES[0] if registry == "crates-io" else os.environ.get(variable, "")
    try:
        return registry_url(index[len("sparse+") :] if index.startswith("sparse+") else "")
    except AuthError:
        raise AuthError(NO_INDEX, variable=variable, registry=registry) from None


def states_in_index(crates: list[Crate], index: str) -> dict[Crate, SafeText]:
    """Return READY, PUBLISHED or NEW for each crate, or why its state is unknown.

    Raises AuthError if the index can't be read at all.
    """
    from concurrent.futures import ThreadPoolExecutor  # here: 5 ms that no other command needs

    deadline = time.monotonic() + CHECK_SECONDS
    # First alone, so that an index that can't be reached is one error, not one for each crate.
    config = fetch(Request("GET", f"{index}/config.json"), deadline)
    if config.status in (401, 403) or parse_json(config.body, "auth-required") is True:
        raise AuthError(INDEX_NEEDS_TOKEN, host=config.request.host)
    if not config.ok:
        raise AuthError(UNREADABLE_INDEX, host=config.request.host, problem=config.problem)
    # Not in a `with` block, which would wait for the requests when the job is cancelled.
    pool = ThreadPoolExecutor(INDEX_REQUESTS, initializer=leave_signals_to_main_thread)
    return dict(zip(crates, pool.map(lambda crate: state_in_index(crate, index, deadline), crates)))


def state_in_index(crate: Crate, index: str, deadline: float) -> SafeText:
    """Return the state of one crate."""
    request = Request("GET", f"{index}/{crate.index_path}", max_bytes=INDEX_BYTES)
    try:
        response = fetch(request, deadline)
    except AuthError as error:
        return SafeText(f"unknown: {first_line(error.message)}")
    if response.status in (404, 410, 451):
        return NEW
    body = response.body.rstrip()
    versions = crate.versions(body.split(b"\n")) if body.count(b"\n") < INDEX_VERSIONS else []
    # A response that names neither its length nor chunks may be cut off between two lines.
    length = response.headers["Content-Length"] or response.headers["Transfer-Encoding"]
    is_whole = str(length).lower() in (str(len(response.body)), "chunked")
    if response.status != 200 or not is_whole or not versions or None in versions:
        return render("unknown: {problem}", problem=response.problem)
    # The registry has no two versions that differ in build metadata only. A yanked one is there, too.
    return PUBLISHED if crate.version.partition("+")[0] in versions else READY


def publish_command(exclude: str, registry: str, manifest_path: str | None) -> SafeText:
    """Return the command that publishes what is left."""
    command = ["cargo publish --workspace", exclude]
    if registry != "crates-io":
        command.append(f"--registry {shlex.quote(registry)}")
    if manifest_path:
        command.append(f"--manifest-path {shlex.quote(manifest_path)}")
    text = " ".join(filter(None, command))
    # Not always `sanitize`: it cuts a long command, and hides what stands before an @ in a path.
    return SafeText(text) if text.isprintable() and "##" not in text else sanitize(text)


def markdown_table(states: dict[Crate, SafeText], registry: str) -> str:
    """Return a row for each crate. The reasons are left out: a server's words could be Markdown."""
    rows = ["| Crate | Version | State |", "| --- | --- | --- |"]
    for crate, state in states.items():
        name = f"`{crate.name}`"
        if registry == "crates-io":
            name = f"[{name}]({CRATES_IO}/crates/{crate.name})"
        rows.append(f"| {name} | {crate.version} | {state.partition(':')[0]} |")
    return "\n".join([*rows, "", ""])


if __name__ == "__main__":
    # Everything is flushed. On its own way out, Python would try again to write what a full stderr did not
    # take, and fail with exit status 120.
    os._exit(run(sys.argv[1:]))
