#!/usr/bin/env python3
"""Get a short-lived crates.io access token in CI, without a stored secret, and revoke it afterwards.

This is crates.io's trusted publishing (https://crates.io/docs/trusted-publishing). The CI system issues
an *identity token* (an OIDC JWT) that says which repository and workflow a job belongs to, for one
*audience*. The *registry* exchanges it for an *access token*, with which cargo can publish for 30
minutes. Each access token is written to the *record*, a file of the job, as soon as it is received, so
that a later process can revoke it, whatever happens in between.

The file needs only Python's standard library, and is installed by copying it. From top to bottom: text
that is safe to print, the registry's URL, requests, the CI systems, the record, the exchange and the
revocation, the commands `main` and `post`, cargo's credential provider, and the command line. The command
`check` comes last; it handles no token.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import functools
import hashlib
import http.client
import json
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

ISSUE_SECONDS = 114  # for all attempts to get an access token: 150 with what may follow below
REVOKE_SECONDS = 150  # for all attempts of `post` to revoke one
CLEANUP_SECONDS = 30  # for revoking what a command got before it fails
CHECK_SECONDS = 150  # for cargo, and again for all that `check` asks an index
REQUEST_SECONDS = 30  # for one request, from looking up the host to the last byte
BACKOFF_SECONDS = (1, 2, 4)  # between four attempts
RETRY_AFTER_SECONDS = 30  # the longest pause that a server can ask for
LATE_SECONDS = 6  # for a late access token; GitHub kills a cancelled step after 10
LIFETIME_SECONDS = 30 * 60  # of crates.io's access tokens, which don't say it themselves
FRESH_SECONDS = 25 * 60  # the age up to which an access token is used for one more upload
CLOCK_SKEW_SECONDS = 60  # that crates.io tolerates in an identity token
RESPONSE_BYTES = 1024 * 1024
INDEX_BYTES = 16 * RESPONSE_BYTES  # web-sys has thousands of features, in each of its versions
INDEX_REQUESTS = 32  # at once

CANCEL_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]

# Text that is safe to print


class SafeText(str):
    """Text that is our own, or has passed `sanitize`."""


def sanitize(text: object, secrets: Iterable[str] = ()) -> SafeText:
    """Return untrusted text as a part of one line, at most 500 characters long.

    It can't start a line, move the cursor, or hold a command of a CI system (`##[`, `##vso[`,
    `##teamcity[`). The given secrets, whatever has the form of a token, and what stands before an `@`,
    which is where a URL has its password, become `***`.
    """
    line = "".join(character if character.isprintable() else "?" for character in " ".join(str(text).split()))
    for secret in filter(None, secrets):
        line = re.sub("[ ?]*".join(map(re.escape, secret)), "***", line)
    line = re.sub(r"(eyJ|cio_tp_)\S*", "***", line)
    line = re.sub(r"^.*@", "***@", line)
    line = re.sub(r"#(?=#)", "# ", line)
    return SafeText(line if len(line) <= 500 else line[:500] + "...")


def render(template: str, **values: object) -> SafeText:
    """Return a message with its placeholders filled in, sanitized; a list becomes indented lines."""
    texts = {}
    for name, value in values.items():
        items = value if isinstance(value, list) else [value]
        texts[name] = "\n  ".join(item if isinstance(item, SafeText) else sanitize(item) for item in items)
    return SafeText(template.format(**texts))


class AuthError(Exception):
    """A failure with a message that tells the user what happened, why, and what to do."""

    level = "error"

    def __init__(self, template: str, **values: object) -> None:
        self.message = render(template, **values)
        super().__init__(self.message)


class AuthWarning(AuthError):
    """A failure that leaves nothing for the user to do at once."""

    level = "warning"


class TransientError(Exception):
    """A failed attempt that can be repeated, after `retry_after` seconds if the server has asked for that."""

    def __init__(self, host: str, reason: SafeText, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.host = host
        self.reason = reason
        self.retry_after = retry_after


def log(text: str) -> None:
    """Print lines on stderr, if it is open: stdout is for the access token."""
    # release-plz and cargo-workspaces take a publish for failed if its stderr contains "error:".
    lines = text.replace("error:", "error").split("\n")
    with contextlib.suppress(OSError):
        print("\n".join(f"crates-io-auth: {line}" for line in lines), file=sys.stderr, flush=True)


# Cancellation


class Cancelled(BaseException):
    """SIGINT, SIGTERM or SIGHUP was received."""


def cancel(*_: object) -> None:
    """Raise Cancelled for the first signal alone, so that no other one interrupts the clean-up."""
    ignore_cancellation()
    raise Cancelled


def ignore_cancellation() -> None:
    """Let nothing but SIGKILL interrupt this process any more."""
    for number in CANCEL_SIGNALS:
        # Not SIG_IGN: Python would print a traceback for a second signal that is already pending.
        signal.signal(number, lambda *_: None)


def leave_signals_to_main_thread() -> None:
    """Block the signals in another thread: one that it got would not wake the main thread."""
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_BLOCK, CANCEL_SIGNALS)


# The registry's URL

INVALID_URL = """\
Invalid URL: {url}
A registry's URL is https://host, optionally with a port and a path. Plain http is allowed only for this
machine (localhost, 127.0.0.1 or [::1]). User names, queries and fragments are not allowed.
Correct the input `url`, the option --url or the variable INPUT_URL. Nothing was sent."""

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

    Raises AuthError if it is not a registry's.
    """
    parts = parse_url(text if "://" in text else f"https://{text}")
    if parts["query"]:
        raise AuthError(INVALID_URL, url=text)
    return parts["origin"].lower() + (parts["path"] or "").rstrip("/")


def default_registry() -> str:
    """Return the registry of the input `url`, as it is written there, or crates.io."""
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
        check_nesting(text)
        value = json.loads(text, parse_int=parse_json_integer)
        for key in path:
            value = value[key]
        return value
    except (ValueError, LookupError, TypeError):
        return None


def check_nesting(text: str) -> None:
    """Raise ValueError for deeply nested JSON, which can exhaust the stack of the interpreter."""
    depth = 0
    for token in re.finditer(r'"[^"\\]*(?:\\.[^"\\]*)*"?|[\[{]|[]}]', text, re.DOTALL):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(token[0], 0)
        if depth > 100:
            raise ValueError("nested too deeply")


def parse_json_integer(digits: str) -> int:
    """Return an integer. Raises ValueError for a long one, which can take seconds to convert."""
    if len(digits) > 20:
        raise ValueError("integer too long")
    return int(digits)


def is_secret(value: object) -> bool:
    """Tell whether a value is visible ASCII without quotes, which can't start a header, line or command."""
    return isinstance(value, str) and re.fullmatch(r"[!#-[\]-~]+", value) is not None


INVALID_SECRET = """\
{variable} does not hold a token
A token is one line of visible ASCII characters without quotes. Nothing was sent.
Check where the variable is set."""


def secret_in(variable: str) -> str:
    """Return the secret in an environment variable, or "". Raises AuthError if it can't be one."""
    secret = os.environ.get(variable, "")
    if secret and not is_secret(secret):
        raise AuthError(INVALID_SECRET, variable=variable)
    return secret


# Requests

REDIRECTED = """\
{host} redirects to {location}
A secret is never sent to another address. If the registry has moved, use its new URL."""

UNTRUSTED_CERTIFICATE = """\
The certificate of {host} is not trusted: {reason}
No secret was sent. If your network has a proxy with its own certificate authority, set SSL_CERT_FILE to a
file with that authority's certificate. Otherwise somebody may be intercepting the connection."""

INVALID_PROXY = """\
HTTPS_PROXY does not hold the URL of a proxy
It must have the form http://host:port or http://user:password@host:port. Nothing was sent."""

NO_RESPONSE = """\
Couldn't get a valid response from {host} (attempt {number} of {attempts}): {reason}
Check the status page of {host}, and this machine's network and proxy (HTTPS_PROXY, NO_PROXY). Then run
this again."""

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
    def transient(self) -> bool:
        """Whether another attempt can succeed. A success without the expected body isn't the server's own."""
        return self.ok or self.status in (408, 429) or self.status >= 500

    @property
    def problem(self) -> SafeText:
        """What is wrong with the response, in one line: the status, and what the server says."""
        if self.ok:
            text: object = "not the expected body"  # which may hold a part of a token
        elif self.status < 400:
            text = f"redirects to {self.headers['Location']}"
        else:
            text = parse_json(self.body, "errors", 0, "detail") or self.body.decode(errors="replace")
        return render("HTTP {status}: {text}", status=self.status, text=self.request.sanitize(text))

    def error(self) -> AuthError | TransientError:
        """Return the error for a failure that isn't a refusal."""
        if 300 <= self.status < 400:
            location = self.request.sanitize(self.headers["Location"])
            return AuthError(REDIRECTED, host=self.request.host, location=location)
        return self.transient_error()

    def transient_error(self) -> TransientError:
        seconds = parse_retry_after(self.headers.get("Retry-After", ""))
        return TransientError(self.request.host, self.problem, seconds)


def parse_retry_after(value: str) -> float | None:
    """Return the seconds that a Retry-After header asks for, as a number or a date; None if it doesn't."""
    try:
        if re.fullmatch("[0-9]+", value):
            seconds = float(value)
        else:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
    except Exception:  # Python 3.8 raises UnboundLocalError for "1 Jan 2001 00.00.00.00"
        return None
    return min(seconds, RETRY_AFTER_SECONDS) if seconds >= 0 else None


@functools.lru_cache(maxsize=None)
def build_opener() -> urllib.request.OpenerDirector:
    """Return the opener of this process, with its one TLS context. Raises AuthError for a bad proxy.

    Without urllib's handlers for redirects and errors, every response is returned as it is. Only https
    goes through a proxy: plain http is for this machine alone.
    """
    opener = urllib.request.OpenerDirector()
    proxy = urllib.request.getproxies().get("https")
    if proxy:
        if not re.fullmatch(r"(https?://)?([^@/\s]+@)?[A-Za-z0-9._-]+(:[0-9]{1,5})?/?", proxy):
            raise AuthError(INVALID_PROXY)
        opener.add_handler(urllib.request.ProxyHandler({"https": proxy}))
    opener.add_handler(urllib.request.HTTPHandler())
    opener.add_handler(urllib.request.HTTPSHandler(context=ssl.create_default_context()))
    return opener


def transfer(request: Request) -> Response:
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
            return Response(request, response.status, response.headers, response.read(request.max_bytes))
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLCertVerificationError):
            message = reason.verify_message
            raise AuthError(UNTRUSTED_CERTIFICATE, host=request.host, reason=message) from None
        text = request.sanitize(f"{reason} ({type(reason).__name__})")
        raise TransientError(request.host, text) from None


class Transfer(threading.Thread):
    """A request that is sent on a thread of its own.

    Only so can the whole of it be limited: a socket's time-out starts anew with each byte. The outcome
    stays here, so that an access token isn't lost when its response comes late.
    """

    def __init__(self, request: Request) -> None:
        super().__init__(daemon=True)
        parse_url(request.url)
        build_opener()  # loading the certificates takes no time of the request's
        self.request = request
        self.outcome: Response | Exception | None = None
        self.finished = threading.Event()

    def run(self) -> None:
        leave_signals_to_main_thread()
        try:
            self.outcome = transfer(self.request)
        except Exception as error:
            self.outcome = error
        self.finished.set()

    def response(self, deadline: float) -> Response:
        """Wait for the response. Raises AuthError or TransientError."""
        seconds = max(0.0, min(REQUEST_SECONDS, deadline - time.monotonic()))
        self.finished.wait(seconds)
        if isinstance(self.outcome, Response):
            return self.outcome
        late = SafeText(f"no response within {seconds:.0f} s")
        raise self.outcome or TransientError(self.request.host, late)


def send(request: Request, deadline: float) -> Response:
    """Send a request and return the response, within REQUEST_SECONDS and before a deadline.

    The deadline is in seconds of time.monotonic. Raises AuthError or TransientError.
    """
    sending = Transfer(request)
    sending.start()
    return sending.response(deadline)


def with_retries(attempt: Callable[[], T], deadline: float) -> T:
    """Return what one of four attempts returns, the last of which begins before the deadline.

    Raises what is not a TransientError at once, and AuthError after the last attempt.
    """
    attempts = len(BACKOFF_SECONDS) + 1
    number = 1
    while True:
        try:
            return attempt()
        except TransientError as error:
            context = {"host": error.host, "reason": error.reason, "attempts": attempts}
            seconds = error.retry_after
            if seconds is None:
                seconds = BACKOFF_SECONDS[min(number, attempts - 1) - 1] * random.uniform(0.75, 1.25)
            if number == attempts or time.monotonic() + seconds >= deadline:
                raise AuthError(NO_RESPONSE, number=number, **context) from None
            number += 1
            log(render(RETRYING, seconds=round(seconds, 1), number=number, **context))
            time.sleep(seconds)


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
It was valid until {expired} UTC. Start a new job to get a new one. Nothing was sent."""


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
    return [str(audience) for audience in (audiences if isinstance(audiences, list) else [audiences])]


def has_expired(claims: dict[str, Any]) -> bool:
    """Tell whether an identity token has expired for a registry that tolerates CLOCK_SKEW_SECONDS."""
    expires = claims.get("exp")
    return isinstance(expires, (int, float)) and expires + CLOCK_SKEW_SECONDS < time.time()


def format_time(seconds: float) -> str:
    """Return the hour and the minute, in UTC, of a time in seconds since the epoch."""
    try:
        return time.strftime("%H:%M", time.gmtime(seconds))
    except (OverflowError, ValueError, OSError):  # it comes from outside
        return "an unknown time"


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

UNUSABLE_ENVIRONMENT = """\
The environment of this step isn't usable: {reason}
Fix this, and run it again."""

ISSUED_ELSEWHERE = """\
Got an access token from {registry}, valid for 30 minutes (until {expires} UTC).
It is on stdout, and nothing masks it: keep it out of the log.
Revoke it at the end of the job: crates_io_auth.py post"""

ISSUED_ON_GITHUB = """\
Got an access token from {registry}, valid for 30 minutes (until {expires} UTC).
It is masked in this log, set as the output `token`, and revoked when the job ends."""


class CI:
    """Any CI system, or a shell. What differs from system to system is here and in the classes below."""

    single_use = True  # there is one identity token for a job, and the registry accepts it once
    issued_message = ISSUED_ELSEWHERE
    output_name = "stdout"
    always_has_record = False  # nobody knows whether `main` has run before `post`

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
        """Hide a secret in everything that is printed later. Raises OSError if that is impossible."""

    def annotate(self, level: str, message: str) -> None:
        """Show an error or a warning."""
        with contextlib.suppress(OSError):
            print(f"crates-io-auth: {level}: {message}", file=sys.stderr, flush=True)

    def record_path(self) -> str:
        """Return where the record of this job is: in a folder of the user's, a file for each job.

        Raises AuthError if that folder is not the user's alone.
        """
        # Not tempfile.gettempdir, which avoids a full disk: `post` must look where `main` wrote.
        temporary = os.environ.get("TMPDIR") or os.environ.get("TEMP") or "/tmp"
        check_absolute("TMPDIR", temporary)
        user = "" if sys.platform == "win32" else f"-{os.geteuid()}"  # Windows has a folder for each user
        folder = os.path.join(temporary, f"crates-io-auth{user}")
        os.makedirs(folder, 0o700, exist_ok=True)
        status = os.lstat(folder)
        check_owner(folder, status, stat.S_IFDIR)
        if sys.platform != "win32" and status.st_mode & 0o077:
            raise AuthError(UNSAFE_RECORD, path=folder, reason="it is open to others")
        job = os.environ.get("CI_JOB_ID", "")
        name = hashlib.sha256(os.fsencode(job)).hexdigest()[:32] if job else "no-job-id"
        return os.path.join(folder, f"{name}.jsonl")

    def open_output(self) -> IO[bytes]:
        """Return the file that `output_line` is written to. Raises AuthError or OSError."""
        return os.fdopen(os.dup(1), "wb", 0)

    def output_line(self, token: str) -> str:
        """Return the line that hands over an access token."""
        return f"{token}\n"

    def set_output(self, name: str, value: str) -> None:
        """Set an output of the step. Raises AuthError or OSError."""

    def summarize(self, text: str) -> None:
        """Add Markdown to the summary of the step."""


class GitHubActions(CI):
    """A step of GitHub Actions.

    https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands
    """

    single_use = False
    issued_message = ISSUED_ON_GITHUB
    output_name = "GITHUB_OUTPUT"
    always_has_record = True  # `post` runs after `main`

    def endpoint(self) -> tuple[str, str]:
        """Return the URL for identity tokens, and the bearer token for it. Raises AuthError.

        https://docs.github.com/en/actions/reference/security/oidc
        """
        url = os.environ.get("ACTIONS_ID_TOKEN_REQUEST_URL")
        bearer = secret_in("ACTIONS_ID_TOKEN_REQUEST_TOKEN")
        if url and bearer:
            return url, bearer
        with contextlib.suppress(OSError), open(os.environ.get("GITHUB_EVENT_PATH", ""), "rb") as event:
            if parse_json(event.read(), "pull_request", "head", "repo", "fork") is True:
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
        print("::add-mask::" + secret.replace("%", "%25"), file=sys.stderr, flush=True)

    def annotate(self, level: str, message: str) -> None:
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

    def open_output(self) -> IO[bytes]:
        return self.open_runner_file("GITHUB_OUTPUT")

    def output_line(self, token: str) -> str:
        return f"token={token}\n"

    def set_output(self, name: str, value: str) -> None:
        with self.open_output() as output:
            write_line(output, f"{name}={value}\n", self.output_name)

    def summarize(self, text: str) -> None:
        with contextlib.suppress(OSError, AuthError), self.open_runner_file("GITHUB_STEP_SUMMARY") as summary:
            summary.write(text.encode())


def detect_ci() -> CI:
    """Return the CI system that this process runs in."""
    return GitHubActions() if os.environ.get("GITHUB_ACTIONS") == "true" else CI()


def check_absolute(variable: str, path: str) -> None:
    """Raise AuthError for a relative path, which another process would look for elsewhere."""
    if not os.path.isabs(path):
        reason = f"{variable} must be an absolute path, and is {path}"
        raise AuthError(UNUSABLE_ENVIRONMENT, reason=reason)


# The record

UNSAFE_RECORD = """\
Can't use {path} to record access tokens: {reason}
It must belong to you and be open to nobody else: a folder of mode 0700, or a regular file of mode 0600 that
is not a link. If somebody else put it there, find out who. Remove it, and run this again."""

DAMAGED_RECORD = """\
The record {path} is damaged: a line of it can't be read
Every access token that could be read is revoked. crates.io's tokens expire 30 minutes after they were issued.
Wait until then, or revoke by hand what you know of. Then remove the file."""


class IssuedToken(NamedTuple):
    """An access token, as it stands in the record."""

    registry: str  # its URL
    token: str
    issued_at: int  # in seconds since the epoch, and not later than the registry has it
    reusable: bool  # whether an upload may use it; the preflight's may not be used again


def check_owner(path: str, status: os.stat_result, kind: int) -> None:
    """Raise AuthError if a file or folder is of another kind, somebody else's, or a hard link."""
    owned = sys.platform == "win32" or status.st_uid == os.geteuid()
    linked = kind == stat.S_IFREG and status.st_nlink > 1
    if stat.S_IFMT(status.st_mode) != kind or linked or not owned:
        raise AuthError(UNSAFE_RECORD, path=path, reason="it is a link, or somebody else's")


def write_line(file: IO[bytes], line: str, name: str) -> None:
    """Write a line with one system call, so that no other process comes between. Raises AuthError."""
    content = os.fsencode(line)
    try:
        written = file.write(content)
    except OSError as error:
        raise AuthError(UNUSABLE_ENVIRONMENT, reason=f"{name}: {error.strerror}") from None
    if written != len(content):
        raise AuthError(UNUSABLE_ENVIRONMENT, reason=f"{name} takes only a part of a line")


class Record:
    """The file with a line of JSON for each access token of this job that is to be revoked.

    Several processes can use it at once without a lock: they only append lines, and overwrite lines with
    blanks. All methods raise AuthError if the file can't be used.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def open(self, flags: int = 0) -> IO[bytes]:
        """Open the file, which must be the user's own, and close it to others.

        Raises FileNotFoundError if it is missing and O_CREAT isn't among the flags.
        """
        for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"):  # each is missing on some systems
            flags |= getattr(os, name, 0)
        try:
            file = os.fdopen(os.open(self.path, flags | os.O_RDWR, 0o600), "r+b", 0)
        except OSError as error:
            if isinstance(error, FileNotFoundError) and not flags & os.O_CREAT:
                raise
            raise AuthError(UNSAFE_RECORD, path=self.path, reason=error.strerror) from None
        try:
            check_owner(self.path, os.fstat(file.fileno()), stat.S_IFREG)
        except AuthError:
            file.close()
            raise
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

    def lines(self) -> list[tuple[int, bytes]]:
        """Return the lines that are not blank, with their offsets. A missing record has none."""
        try:
            with self.open() as file:
                content = file.read()
        except FileNotFoundError:
            return []
        return [(line.start(), line[0]) for line in re.finditer(rb"[^\n]+", content) if line[0].strip()]

    def tokens(self) -> list[IssuedToken]:
        """Return the access tokens in the file, without the lines that are damaged."""
        return [token for token in (parse_record_line(line) for _, line in self.lines()) if token]

    def damaged(self) -> bool:
        """Tell whether a line of the file can't be read."""
        return any(parse_record_line(line) is None for _, line in self.lines())

    def fresh_token(self, registry: str) -> IssuedToken | None:
        """Return an access token of a registry that can be used for one more upload, if there is one."""
        now = time.time()
        for issued in self.tokens():
            fresh = issued.issued_at <= now < issued.issued_at + FRESH_SECONDS
            if issued.registry == registry and issued.reusable and fresh:
                return issued
        return None

    def remove(self, issued: IssuedToken) -> None:
        """Overwrite the lines of an access token with blanks."""
        for offset, line in self.lines():
            found = parse_record_line(line)
            if found and (found.registry, found.token) == (issued.registry, issued.token):
                with self.open() as file:
                    file.seek(offset)
                    write_line(file, " " * len(line), self.path)


def parse_record_line(line: bytes) -> IssuedToken | None:
    """Return the access token of a line of the record; None if the line is damaged."""
    values = parse_json(line)
    if not isinstance(values, dict) or set(values) != set(IssuedToken._fields):
        return None
    issued = IssuedToken(**values)
    valid = is_secret(issued.registry) and is_secret(issued.token)
    return issued if valid and type(issued.issued_at) is int and type(issued.reusable) is bool else None


# The exchange, and the revocation

REFUSED = """\
{host} refused the identity token: {problem}
  {explanation}"""

STILL_UNANSWERED = """\
{host} hasn't responded to a request for an access token, and may still issue one. Nobody holds that token, \
and it expires by itself after 30 minutes."""

NOT_REVOKED = """\
Couldn't revoke an access token. It expires by itself, on crates.io 30 minutes after it was issued.
  {problems}
To revoke it now, run `crates_io_auth.py post`."""

GITHUB_ISSUER = "https://token.actions.githubusercontent.com"
GITLAB_ISSUER = "https://gitlab.com"

# The claims that a trusted publisher is compared with, in the words of its form on crates.io.
CLAIMS = {
    "repository": "repository",
    "repository_owner_id": "repository owner ID",
    "workflow_ref": "workflow file",
    "project_path": "project",
    "ci_config_ref_uri": "CI file",
    "environment": "environment",
    "event_name": "event",
}


def describe_claims(claims: dict[str, Any], audience: str, names: Iterable[str]) -> list[str]:
    """Return a line for each claim, and for an unusual issuer or audience, as crates.io compares it."""
    lines = []
    for name in names:
        value = claims.get(name)
        if isinstance(value, str) and name == "workflow_ref":
            value = value.partition("@")[0].rpartition("/")[2]
        elif isinstance(value, str) and name == "ci_config_ref_uri":
            value = value.partition("@")[0].partition("//")[2]
        if value is not None or name == "environment":
            lines.append(f"- {CLAIMS[name]}: {value or '(none)'}")
    if claims.get("iss", GITHUB_ISSUER) not in (GITHUB_ISSUER, GITLAB_ISSUER):
        lines.append(f"- issuer: {claims['iss']}")
    if audience not in audiences_of(claims):
        lines.append(f"- audience: {', '.join(audiences_of(claims))}")
    return lines


def explain_refusal(problem: str, claims: dict[str, Any], registry: str) -> list[str]:
    """Return what to say beside the registry's own words: no more than they leave open.

    https://github.com/rust-lang/crates.io/tree/main/src/controllers/trustpub
    """
    audience = audience_of(registry)
    if "already been used" in problem:
        return ["An identity token can be exchanged only once. Start a new job to get a new one."]
    if "decode JWT" in problem and has_expired(claims):
        return [f"It expired at {format_time(claims['exp'])} UTC. Start a new job to get a new one."]
    if "decode JWT" in problem and audience not in audiences_of(claims):
        return [f"It is for the audience {', '.join(audiences_of(claims))}, not for {audience}."]
    if "decode JWT" in problem:
        return ["It hasn't expired and has the right audience, so its signature must be wrong."]
    if "JWT issuer" in problem:
        supported = f"GitHub Actions ({GITHUB_ISSUER}) and GitLab ({GITLAB_ISSUER})"
        return [f"It is from the issuer {claims.get('iss')}. crates.io supports {supported}."]
    if "event trigger" in problem:
        return describe_claims(claims, audience, ["event_name"])
    lines = ["A trusted publisher of the crate must match what the identity token claims:"]
    lines += describe_claims(claims, audience, CLAIMS)
    if claims.get("job_workflow_ref") not in (None, claims.get("workflow_ref")):
        lines.append("The job is in a reusable workflow: the file of the workflow that calls it counts.")
    lines.append(f"Compare this with the crate's settings, {registry}/crates/<crate>/settings.")
    if "No Trusted Publishing config" in problem:
        lines.append("The first version of a crate must be published with an ordinary API token.")
    lines.append("A refused identity token isn't used up: you can correct the settings and run this again.")
    return lines


class Exchange(NamedTuple):
    """A request for an access token."""

    transfer: Transfer
    registry: str
    reusable: bool
    started_at: int  # in seconds since the epoch

    def issued_token(self) -> IssuedToken | None:
        """Return the access token in the response, if it has come and holds one."""
        response = self.transfer.outcome
        token = parse_json(response.body, "token") if isinstance(response, Response) and response.ok else None
        return (
            IssuedToken(self.registry, str(token), self.started_at, self.reusable)
            if is_secret(token)
            else None
        )


class AccessTokens:
    """The access tokens that this process gets. They are revoked if the `with` block fails.

    `mask` hides a secret from the log before anything else can print it.
    """

    def __init__(self, ci: CI, record: Record, mask: Callable[[str], None]) -> None:
        self.ci = ci
        self.record = record
        self.mask = mask
        self.exchanges: list[Exchange] = []
        self.issued: list[IssuedToken] = []

    def __enter__(self) -> AccessTokens:
        return self

    def __exit__(self, failure: type[BaseException] | None, *_: object) -> None:
        ignore_cancellation()  # a token that isn't in the record can be recorded or revoked only here and now
        unrecorded = self.receive_late_tokens()
        tokens = self.issued if failure else unrecorded
        problems = self.revoke(tokens)
        log_revoked(len(tokens) - len(problems))
        if problems:
            log(render(NOT_REVOKED, problems=problems))

    def get(self, registry: str, reusable: bool = True) -> IssuedToken:
        """Return a new access token, which is in the record. Raises AuthError or OSError."""
        self.record.create()  # before a token is issued that could not be recorded
        deadline = time.monotonic() + ISSUE_SECONDS
        return with_retries(lambda: self.exchange(registry, reusable, deadline), deadline)

    def exchange(self, registry: str, reusable: bool, deadline: float) -> IssuedToken:
        """Exchange an identity token. Raises AuthError if it is refused, or TransientError.

        Each attempt needs another identity token: the one whose response was lost may be used up.
        """
        identity_token = self.ci.identity_token(audience_of(registry), deadline)
        self.mask(identity_token)
        transfer = Transfer(Request("POST", registry + TOKENS_PATH, body={"jwt": identity_token}))
        exchange = Exchange(transfer, registry, reusable, int(time.time()))
        # Before it is sent: wherever a signal interrupts what follows, `receive_late_tokens` finds it.
        self.exchanges.append(exchange)
        transfer.start()
        response = transfer.response(deadline)
        issued = exchange.issued_token()
        if issued:
            self.keep(issued)
            return issued
        if response.transient or response.status < 400:
            raise response.error()
        claims = claims_of(identity_token)
        explanation = explain_refusal(response.problem, claims, registry)
        host = transfer.request.host
        raise AuthError(REFUSED, host=host, problem=response.problem, explanation=explanation)

    def keep(self, issued: IssuedToken) -> None:
        """Mask and record an access token."""
        self.issued.append(issued)
        self.mask(issued.token)
        self.record.add(issued)

    def receive_late_tokens(self) -> list[IssuedToken]:
        """Wait LATE_SECONDS for missing responses, and keep the access tokens in them.

        Returns those that can't be recorded.
        """
        deadline = time.monotonic() + LATE_SECONDS
        unrecorded = []
        for exchange in self.exchanges:
            if not exchange.transfer.finished.wait(max(0.0, deadline - time.monotonic())):
                log(render(STILL_UNANSWERED, host=exchange.transfer.request.host))
            issued = exchange.issued_token()
            if issued and issued not in self.issued:
                try:
                    self.keep(issued)
                except (AuthError, OSError) as error:
                    unrecorded.append(issued)
                    log(explain(error))
        self.exchanges = []
        return unrecorded

    def revoke(self, tokens: list[IssuedToken]) -> list[SafeText]:
        """Revoke access tokens, all within CLEANUP_SECONDS. Returns a line for each that is left."""
        return revoke_all(tokens, self.record, CLEANUP_SECONDS / max(1, len(tokens)))


REVOCATION_REFUSED = "{host} refused to revoke an access token: {problem}"


def revoke(issued: IssuedToken, seconds: float) -> None:
    """Revoke an access token within some seconds. Raises AuthError.

    Only the registry's own responses count, not those of a proxy: 204, and errors in JSON with a 401 or 404,
    for a token that it doesn't know.
    """
    deadline = time.monotonic() + seconds
    url = registry_url(issued.registry) + TOKENS_PATH

    def attempt() -> None:
        response = send(Request("DELETE", url, bearer=issued.token), deadline)
        from_registry = parse_json(response.body, "errors", 0) is not None
        if response.status == 204 or (response.status in (401, 404) and from_registry):
            return
        if response.transient or response.status < 400 or not from_registry:
            raise response.error()
        raise AuthError(REVOCATION_REFUSED, host=response.request.host, problem=response.problem)

    with_retries(attempt, deadline)


def revoke_all(tokens: list[IssuedToken], record: Record, seconds: float) -> list[SafeText]:
    """Revoke access tokens, each within some seconds, and take them out of the record.

    One that fails does not stop the others. Returns a line for each that is left.
    """
    problems = []
    for issued in tokens:
        try:
            revoke(issued, seconds)
            record.remove(issued)
        except Exception as error:
            problems.append(SafeText(explain(error).partition("\n")[0]))
    return problems


def log_revoked(count: int) -> None:
    """Tell how many access tokens were revoked, if any."""
    if count:
        log(f"Revoked {count} access token{'s' if count > 1 else ''}.")


# The commands main and post

INVALID_INPUT = """\
The input {name} must be true or false, and is {value}
Correct it in the workflow."""

IGNORED_INPUT = "The input {name} has no effect {condition}. Remove it from the workflow."

NO_RECORD = """\
The record of this job, {path}, is gone
An earlier step must have removed it, perhaps by emptying RUNNER_TEMP. If this job got an access token, it
can't be revoked: it expires by itself, on crates.io 30 minutes after it was issued."""


class Inputs(NamedTuple):
    """The inputs of the action, checked."""

    registry: str  # the URL of the registry
    credential_provider: bool
    cargo_registry: str  # cargo's name for the registry


def read_inputs(ci: CI, url: str | None) -> Inputs:
    """Return the inputs in the environment; a URL from the command line takes precedence.

    Booleans are those of YAML 1.2, as GitHub's own toolkit has them. Raises AuthError.
    """
    value = os.environ.get("INPUT_CREDENTIAL_PROVIDER") or "false"
    cargo_registry = os.environ.get("INPUT_REGISTRY") or "crates-io"
    if value not in ("true", "True", "TRUE", "false", "False", "FALSE"):
        raise AuthError(INVALID_INPUT, name="credential-provider", value=value)
    inputs = Inputs(
        registry_url(default_registry() if url is None else url), value.lower() == "true", cargo_registry
    )
    if inputs.credential_provider and inputs.registry != CRATES_IO:
        ci.annotate("warning", render(IGNORED_INPUT, name="url", condition="with credential-provider"))
    if not inputs.credential_provider and cargo_registry != "crates-io":
        ci.annotate(
            "warning", render(IGNORED_INPUT, name="registry", condition="without credential-provider")
        )
    return inputs


def main(url: str | None = None) -> None:
    """Get an access token from the registry at `url` and hand it over, or set up cargo to ask for tokens.

    Without a `url`, the registry is that of the input `url`, or crates.io. Raises AuthError or OSError.
    """
    ci = detect_ci()
    record = Record(ci.record_path())
    record.create()  # so that `post` knows that a missing one was removed
    inputs = read_inputs(ci, url)
    if inputs.credential_provider:
        set_up_cargo(ci, inputs.cargo_registry)
        return
    with ci.open_output() as output, AccessTokens(ci, record, ci.mask) as tokens:
        issued = tokens.get(inputs.registry)
        write_line(output, ci.output_line(issued.token), ci.output_name)
        expires = format_time(issued.issued_at + LIFETIME_SECONDS)
        log(render(ci.issued_message, registry=inputs.registry, expires=expires))


def post() -> None:
    """Revoke every access token in the record, and a temporary one in CARGO_REGISTRY_TOKEN.

    Raises AuthError when one is left over, or when the record can't be read; the others are revoked.
    """
    ci = detect_ci()
    record = Record(ci.record_path())
    failures: list[AuthError] = []
    tokens: list[IssuedToken] = []
    if ci.always_has_record and not os.path.lexists(record.path):
        ci.annotate("warning", render(NO_RECORD, path=record.path))
    try:
        tokens = record.tokens()
        if record.damaged():
            failures.append(AuthError(DAMAGED_RECORD, path=record.path))
    except AuthError as error:
        failures.append(error)
    token = os.environ.get("CARGO_REGISTRY_TOKEN", "")
    try:
        if token.startswith("cio_tp_") and token not in [issued.token for issued in tokens]:
            token = secret_in("CARGO_REGISTRY_TOKEN")
            tokens.append(IssuedToken(registry_url(default_registry()), token, 0, reusable=False))
    except AuthError as error:
        failures.append(error)
    problems = revoke_all(tokens, record, REVOKE_SECONDS)
    log_revoked(len(tokens) - len(problems))
    if problems:
        failures.append(AuthWarning(NOT_REVOKED, problems=problems))
    if not tokens and not failures:
        log("Nothing to revoke.")
    for failure in failures[1:]:
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
An access token of trusted publishing can't be used for `cargo {operation}`
Use an ordinary API token for that: `cargo {operation} --token …`."""

NO_REGISTRY = "Couldn't read the configuration of the index at {host}: {problem}"

FOREIGN_REGISTRY = """\
The index at {host} belongs to a registry elsewhere, {registry}
An access token for one registry must not be sent to another. Get it with `crates_io_auth.py --url` and give
it to cargo in a variable instead."""

TEST_TOKEN_NOT_REVOKED = """\
Stopped before anything was built: the test token could not be revoked. Nothing was published.
  {problems}
The test token expires by itself, on crates.io 30 minutes after it was issued. Run the job again."""

# What cargo gets before it builds. It is sent nowhere, unless reading the index needs a token
# (https://doc.rust-lang.org/cargo/reference/registry-index.html#index-authentication).
PLACEHOLDER_TOKEN = "the-upload-gets-a-real-token"

CRATES_IO_INDEXES = ("sparse+https://index.crates.io/", "https://github.com/rust-lang/crates.io-index")


def set_up_cargo(ci: CI, cargo_registry: str) -> None:
    """Have cargo get its tokens for a registry from this file, in the steps that follow.

    Writes a launcher, since cargo can't start a file with the options of Python. Raises AuthError or OSError.
    """
    if not isinstance(ci, GitHubActions):
        raise AuthError(NO_PROVIDER, reason="this is not GitHub Actions")
    ci.endpoint()  # the permission is missing now, or not at all
    folder = ci.path("RUNNER_TEMP")
    if sys.platform == "win32":
        raise AuthError(NO_PROVIDER, reason="this is Windows")
    # cargo splits the variable at blanks, and the runner ends it at a line break.
    if not folder.isprintable() or len(folder.split()) != 1 or folder.strip() != folder:
        raise AuthError(NO_PROVIDER, reason=f"RUNNER_TEMP is {folder}")
    prefix = "CARGO_REGISTRY" if cargo_registry == "crates-io" else variable_prefix(cargo_registry)
    if os.environ.get(f"{prefix}_TOKEN"):
        ci.annotate("warning", render(TOKEN_IGNORED, variable=f"{prefix}_TOKEN"))
    descriptor, launcher = tempfile.mkstemp(prefix="crates-io-auth-for-cargo-", dir=folder)
    with os.fdopen(descriptor, "wb", 0) as file:
        command = f"{shlex.quote(sys.executable)} -I -S {shlex.quote(os.path.abspath(__file__))}"
        write_line(file, f'#!/bin/sh\nexec {command} "$@"\n', launcher)
    os.chmod(launcher, 0o700)
    variable = f"{prefix}_CREDENTIAL_PROVIDER"
    with ci.open_runner_file("GITHUB_ENV") as variables:
        write_line(variables, f"{variable}={launcher}\n", "GITHUB_ENV")
    log(render(PROVIDER_SET_UP, variable=variable))


def variable_prefix(cargo_registry: str) -> str:
    """Return what the names of cargo's variables for a registry other than crates.io begin with."""
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
    operation = operation if kind == "get" else kind
    if operation in ("login", "owners", "yank", "unyank"):
        raise AuthError(UNSUPPORTED_OPERATION, operation="owner" if operation == "owners" else operation)
    if operation not in ("read", "publish", "logout"):
        return {"Err": {"kind": "operation-not-supported"}}
    found = registry_of_index(index)
    if found is None:
        return {"Err": {"kind": "url-not-supported"}}  # cargo then asks its next provider
    registry, auth_required = found
    if operation == "logout":
        revoke_registry(registry, tokens.record)
        return {"Ok": {"kind": "logout"}}
    # Not independent of the operation: what cargo got for reading must not serve for an upload.
    response: dict[str, object] = {"kind": "get", "operation_independent": False, "cache": "never"}
    if operation == "read" and not auth_required:
        preflight(registry, tokens)
        response["token"] = PLACEHOLDER_TOKEN
    else:
        issued = tokens.record.fresh_token(registry)
        minutes = int(time.time() - issued.issued_at) // 60 if issued else 0
        age = f"reused, {minutes} min old" if issued else "new"
        issued = issued or tokens.get(registry)
        crate = (
            f"{parse_json(line, 'name')} {parse_json(line, 'vers')}" if operation == "publish" else "reading"
        )
        log(render("Access token for {crate}: {age}", crate=crate, age=age))
        response.update(token=issued.token, cache="expires", expiration=issued.issued_at + FRESH_SECONDS)
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
        raise AuthError(NO_REGISTRY, host=response.request.host, problem=response.problem)
    api = parse_json(response.body, "api")
    if not response.ok or not isinstance(api, str):
        return None
    registry = registry_url(api)
    # Otherwise an index could have a token issued by another registry, and cargo would send it to its own.
    index_host, index_port = authority_of(url)
    host, port = authority_of(registry)
    if index_port != port or not f".{index_host}".endswith(f".{host}"):
        raise AuthError(FOREIGN_REGISTRY, host=index_host, registry=registry)
    return registry, parse_json(response.body, "auth-required") is True


def fetch(request: Request, deadline: float) -> Response:
    """Return a response that is not transient. Raises AuthError."""

    def attempt() -> Response:
        response = send(request, deadline)
        if response.transient and not response.ok:
            raise response.transient_error()
        return response

    return with_retries(attempt, deadline)


def authority_of(url: str) -> tuple[str, int]:
    """Return the host and the port of a URL."""
    parts = parse_url(url)
    default = 443 if parts["scheme"].lower() == "https" else 80
    return parts["host"].lower(), int(parts["port"] or default)


def preflight(registry: str, tokens: AccessTokens) -> None:
    """Make sure that an upload will get an access token. Raises AuthError if it won't.

    cargo asks before it builds, and runs build scripts then: no access token must be alive
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
        issued, tokens.issued = tokens.issued, []
        problems = tokens.revoke(issued)
        if problems:
            raise AuthError(TEST_TOKEN_NOT_REVOKED, problems=problems)
        log(render("Preflight: got a test token from {registry} and revoked it.", registry=registry))


def revoke_registry(registry: str, record: Record) -> None:
    """Revoke the access tokens of one registry. Raises AuthError."""
    tokens = [issued for issued in record.tokens() if issued.registry == registry]
    problems = revoke_all(tokens, record, REVOKE_SECONDS)
    if problems:
        raise AuthError(NOT_REVOKED, problems=problems)


# The command line

CANCELLED = """\
Cancelled. Every access token that this step received is revoked, or in the record for the post step."""

BUG = """\
crates_io_auth.py failed unexpectedly: {kind} at {places}
Please report this. Access tokens are in the record, and `crates_io_auth.py post` revokes them."""

DESCRIPTION = "Get a short-lived crates.io access token in CI, and revoke it afterwards."

EPILOG = """\
In cargo's configuration, this file is also a credential provider: `crates_io_auth.py --cargo-plugin`.

environment:
  CRATES_IO_ID_TOKEN    the identity token, outside GitHub Actions. For another registry the name follows from
                        its URL: STAGING_CRATES_IO_ID_TOKEN
  INPUT_URL             the registry's URL, if --url is not given
  CI_JOB_ID             keeps the records of several jobs on one machine apart
  CARGO_REGISTRY_TOKEN  `post` revokes it if it is a temporary token (cio_tp_…)
  HTTPS_PROXY, NO_PROXY, SSL_CERT_FILE

exit status: 0 for success, 1 for a failure, 2 for a wrong command line
"""


class ArgumentParser(argparse.ArgumentParser):
    """A parser without abbreviations, whose errors hold nothing but printable text."""

    def __init__(self, **options: Any) -> None:
        formatter = argparse.RawDescriptionHelpFormatter
        super().__init__(allow_abbrev=False, formatter_class=formatter, **options)

    def error(self, message: str) -> NoReturn:
        super().error(sanitize(message))


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    """Return the options, with the function to call as `command`. Exits for --help and for errors."""
    parser = ArgumentParser(prog="crates_io_auth.py", description=DESCRIPTION, epilog=EPILOG)
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(metavar="command", required=True)
    main_parser = commands.add_parser("main", help="get an access token and hand it over (the default)")
    main_parser.add_argument("--url", help="the URL of the registry (default: https://crates.io)")
    main_parser.set_defaults(command=lambda options: main(options.url))
    post_parser = commands.add_parser("post", help="revoke the access tokens of this job")
    post_parser.set_defaults(command=lambda options: post())
    check_parser = commands.add_parser("check", help="tell what of a workspace can be published")
    check_parser.add_argument("--manifest-path", help="a Cargo.toml that cargo wouldn't find by itself")
    check_parser.add_argument("--registry", default="crates-io", help="cargo's name for the registry")
    check_parser.set_defaults(command=lambda options: check(options.manifest_path, options.registry))
    if not arguments or arguments[0].partition("=")[0] == "--url":
        arguments = ["main", *arguments]
    return parser.parse_args(arguments)


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


def run(arguments: list[str]) -> int:
    """Do what the command line says, and return the exit status."""
    if sys.stderr is None:  # it was closed before Python started
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_RDONLY))  # which can't be written to, either
    if arguments == ["--cargo-plugin"]:
        command, ci = cargo_plugin, CI()  # cargo shows what is printed: no workflow commands
    else:
        options = parse_arguments(arguments)
        command, ci = functools.partial(options.command, options), detect_ci()
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
            # In a fence nothing from outside is a link or HTML, and no line of it can end the fence.
            ci.summarize(f"### crates-io-auth failed\n\n```text\n{message}\n```\n")
        return 1


# The command check

NO_CARGO = """\
Couldn't run cargo: {reason}
`check` asks it for the crates of the workspace. Install Rust, or add cargo to PATH, and run this again."""

OLD_CARGO = """\
This is {version}, and publishing with trusted publishing needs cargo 1.74 or later
Update it (`rustup update`), or correct the toolchain in rust-toolchain.toml."""

CARGO_FAILED = """\
`cargo {arguments}` failed
  {output}"""

NO_INDEX = """\
{variable} does not hold the URL of a sparse index
`check` reads no configuration file: set the variable, in the form sparse+https://host/path/, to the index of
the registry {registry}."""

INVALID_CRATE = """\
A registry can't have this crate: {name} {version}
The name of a crate is ASCII letters, digits, - and _, and its version is a semantic one."""

NEW_CRATE = """\
{name} is new, and a trusted publisher can't create a crate
Publish its first version with an ordinary API token: `cargo publish -p {name}`. Then add a trusted publisher
in the settings of the crate, and run this again."""

NOT_READY = """\
Not all of this workspace can be published by a trusted publisher. Nothing was uploaded.
  {problems}
Correct what is listed, and run this again."""

ABOUT_READY = """
Whether a trusted publisher matches can't be seen from outside: "ready" doesn't promise it. The credential
provider finds out before anything is built if none matches.
"""

WITHOUT_WORKSPACE = """\
{version} can't publish a workspace at once, which needs cargo 1.90: publish the crates that are ready one by
one (`cargo publish -p`), each after those that it depends on."""

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


def check(manifest_path: str | None = None, registry: str = "crates-io") -> None:
    """Print what of a cargo workspace can be published to a registry, and with which command.

    Raises AuthError if a crate is new, or if something can't be found out.
    """
    from concurrent.futures import ThreadPoolExecutor  # here: 5 ms that no other command needs

    ci = detect_ci()
    version = run_cargo("--version").strip()
    if release_of(version) < (1, 74):
        raise AuthError(OLD_CARGO, version=version)
    crates, excluded = workspace_crates(manifest_path, registry)
    index = index_url(registry)
    build_opener()  # now, so that not each thread builds one
    deadline = time.monotonic() + CHECK_SECONDS
    # Not in a `with` block, which would wait for the requests when the job is cancelled.
    pool = ThreadPoolExecutor(INDEX_REQUESTS, initializer=leave_signals_to_main_thread)
    states = dict(zip(crates, pool.map(lambda crate: state_of(crate, index, deadline), crates)))

    left = [crate for crate in crates if states[crate] != PUBLISHED]
    excluded += [crate.name for crate in crates if states[crate] == PUBLISHED]
    exclude = " ".join(f"--exclude {name}" for name in excluded)
    ci.set_output("exclude", exclude)
    ci.set_output("publish", "true" if left else "false")
    ci.summarize(markdown_table(states, registry))
    lines = table(states)
    if READY in states.values():
        lines.append(ABOUT_READY)
    problems = [f"{crate.name} {crate.version}: {states[crate]}" for crate in left if states[crate] != READY]
    if not left:
        lines.append("Nothing is left to publish.")
    elif release_of(version) < (1, 90):
        lines.append(render(WITHOUT_WORKSPACE, version=version))
    elif not problems:
        lines += ["To publish what is left:", "  " + publish_command(exclude, registry, manifest_path)]
    # Whatever stdout's encoding is: a server's words can hold any character.
    print("\n".join(lines).encode("ascii", "backslashreplace").decode(), flush=True)
    for crate in left:
        if states[crate] == NEW:
            ci.annotate("error", render(NEW_CRATE, name=crate.name))
    if problems:
        raise AuthError(NOT_READY, problems=problems)


def publish_command(exclude: str, registry: str, manifest_path: str | None) -> SafeText:
    """Return the command that publishes what is left."""
    command = ["cargo publish --workspace", exclude]
    if registry != "crates-io":
        command.append(f"--registry {shlex.quote(registry)}")
    if manifest_path:
        command.append(f"--manifest-path {shlex.quote(manifest_path)}")
    return sanitize(" ".join(filter(None, command)))


def run_cargo(*arguments: str) -> str:
    """Return what cargo prints. Raises AuthError."""
    import subprocess  # here: 10 ms that no other command needs

    try:
        cargo = subprocess.run(
            ["cargo", *arguments], stdin=subprocess.DEVNULL, capture_output=True, timeout=CHECK_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise AuthError(NO_CARGO, reason=error) from None
    if cargo.returncode:
        output = cargo.stderr.decode(errors="replace").split("\n")
        raise AuthError(CARGO_FAILED, arguments=" ".join(arguments), output=list(filter(None, output))[:20])
    return cargo.stdout.decode(errors="replace")


def release_of(version: str) -> tuple[int, int]:
    """Return the first two numbers of a version that cargo prints."""
    match = re.match(r"cargo ([0-9]{1,9})\.([0-9]{1,9})", version)
    return (int(match[1]), int(match[2])) if match else (0, 0)


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
        raise AuthError(CARGO_FAILED, arguments=" ".join(arguments), output="it prints no list of packages")
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
    variable = variable_prefix(registry) + "_INDEX"
    index = CRATES_IO_INDEXES[0] if registry == "crates-io" else os.environ.get(variable, "")
    try:
        return registry_url(index[len("sparse+") :] if index.startswith("sparse+") else "")
    except AuthError:
        raise AuthError(NO_INDEX, variable=variable, registry=registry) from None


def state_of(crate: Crate, index: str, deadline: float) -> SafeText:
    """Return what an index says of a crate: READY, PUBLISHED or NEW, or why that is unknown."""
    request = Request("GET", f"{index}/{crate.index_path}", max_bytes=INDEX_BYTES)
    try:
        response = fetch(request, deadline)
    except AuthError as error:
        return SafeText("unknown: " + error.message.partition("\n")[0])
    if response.status in (404, 410, 451):
        return NEW
    if response.status in (401, 403):
        return render("unknown: the index needs a token, and check sends none: {text}", text=response.problem)
    # http.client reads a body up to `max_bytes`, or up to where the connection ends, without a word.
    size = len(response.body)
    whole = size < INDEX_BYTES and response.headers.get("Content-Length", str(size)) == str(size)
    versions = [parse_json(line, "vers") for line in response.body.split(b"\n") if line.strip()]
    readable = versions and all(isinstance(version, str) for version in versions)
    if not (response.ok and whole and readable):
        return render("unknown: {text}", text=response.problem)
    # The registry has no two versions that differ in build metadata only. A yanked one is there, too.
    found = crate.version.partition("+")[0] in [version.partition("+")[0] for version in versions]
    return PUBLISHED if found else READY


def table(states: dict[Crate, SafeText]) -> list[str]:
    """Return a line for each crate, in columns."""
    width = max((len(crate.name) for crate in states), default=0)
    return [f"{crate.name:{width}}  {crate.version:12}  {state}" for crate, state in states.items()]


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
