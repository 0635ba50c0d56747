#!/usr/bin/env python3
"""Get a short-lived crates.io access token in CI, without a stored secret, and revoke it afterwards.

This is crates.io's trusted publishing (https://crates.io/docs/trusted-publishing). The CI system issues an
*identity token* (an OIDC JWT), which says which repository and workflow a job belongs to, and is meant for
one *audience*. The *registry* exchanges it for an *access token*, with which cargo can publish for 30
minutes. Either the job hands it to cargo, or this file is cargo's *credential provider*, which cargo asks for
a token before it builds and before each upload. What this file does with access tokens follows from three
rules:

1. Every access token that is handed over is first written to the *record*, a folder that belongs to the job.
   `post` revokes what the record holds, whatever happened in between.
2. An access token that is in no record dies with its process: nobody can use it, and it expires after 30
   minutes. So after a step that failed or was cancelled, `post` has to revoke only what is in the record.
3. Only the status 204 counts as revoked. After any other response the token stays in the record, and `post`
   can be run again.

The file needs only Python 3.8 or newer, and is installed by copying it. It reads from top to bottom; the
commands `check` and `publishers`, which get no access token and run cargo or git, come last. Callers may
rely on the command line, its exit statuses, the access token on stdout, `main` and `post`.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import http.client
import io
import json
import os
import re
import signal
import ssl
import stat
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from email.utils import parsedate_to_datetime

TYPE_CHECKING = False  # True for type checkers; at run time, importing typing would cost 3 ms and 0.4 MiB
if TYPE_CHECKING:
    import argparse
    import subprocess
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any, TypeVar

    T = TypeVar("T")

__version__ = "2.0.0"

CRATES_IO = "https://crates.io"
CRATES_IO_INDEXES = ("sparse+https://index.crates.io/", "https://github.com/rust-lang/crates.io-index")
TOKENS_PATH = "/api/v1/trusted_publishing/tokens"

COMMAND_SECONDS = 150  # for a whole command: see `end_on_signals`
REQUESTS_SECONDS = 140  # for its requests, with their retries
WAIT_SECONDS = 30  # for a server: to connect, and for each part of its response
BACKOFF_SECONDS = (1, 2, 4)  # between attempts
ATTEMPTS = len(BACKOFF_SECONDS) + 1
RETRY_AFTER_SECONDS = 30  # the longest pause that a server can ask for
LIFETIME_SECONDS = 30 * 60  # of crates.io's access tokens; the response doesn't include it
FRESH_SECONDS = 25 * 60  # the age up to which an access token is used for one more upload
API_PAUSE_SECONDS = 1  # between requests to crates.io's API: https://crates.io/data-access
RESPONSE_BYTES = 1024 * 1024

# What may be shown, and what went wrong

SECRETS: set[str] = set()  # those that this process has received: `as_secret` adds them


def printable(text: str) -> str:
    """Return text without secrets, control characters and ##commands.

    Each message with text from outside passes through here, except argparse's. Secrets are what this process
    has received as such, what looks like a token, and the user and password of a URL.
    """
    for secret in sorted(SECRETS, key=len, reverse=True):  # one may be the beginning of another
        text = text.replace(secret, "***")
    text = re.sub(r"\b(eyJ|cio_tp_)\S+", "***", text)
    text = re.sub(r"//[^\s/]*@", "//***@", text)
    text = re.sub("#(?=#)", "# ", text)  # ##[error] of GitHub, ##vso[…] of Azure, ##teamcity[…]
    return "".join(character if character.isprintable() or character == "\n" else "?" for character in text)


def one_line(text: object) -> str:
    """Return text from outside as a part of one line, cut after 500 characters."""
    line = printable(" ".join(str(text).split()))
    return line if len(line) <= 500 else line[:500] + "..."


def say(message: str) -> None:
    """Print a message on stderr: stdout is for the access token."""
    # release-plz and cargo-workspaces treat `cargo publish` as failed if its stderr contains "error:".
    text = re.sub("error:+", "error", printable(message)).replace("\n", "\ncrates-io-auth: ")
    with contextlib.suppress(OSError):
        print(f"crates-io-auth: {text}", file=sys.stderr)


class AuthError(Exception):
    """A failure that the user can do something about: what happened, details, and what to do now."""

    def __init__(self, message: str, hint: str = "", details: Iterable[str] = ()) -> None:
        self.message = printable(message)
        super().__init__(printable("\n  ".join([message, *details]) + ("\n" + hint if hint else "")))


class TransientError(AuthError):
    """A failure that another attempt may cure, after `retry_after` seconds if the server asks for that."""

    def __init__(self, host: str, reason: str, retry_after: float = 0) -> None:
        super().__init__(
            f"Couldn't get a valid response from {host}: {reason}",
            "Run this again later (on GitHub: Re-run failed jobs).\n"
            "If it fails again: is the host spelled right? Does this network need a proxy (HTTPS_PROXY)?",
        )
        self.retry_after = retry_after


def explain(error: Exception) -> str:
    """Return what to tell the user about any exception. Python's own traceback could show a secret."""
    if isinstance(error, AuthError):
        return str(error)
    if isinstance(error, OSError):
        return f"The environment of this step isn't usable: {one_line(error)}\nFix it and run this again."
    import traceback  # here, since only an unexpected failure needs it

    frames = traceback.extract_tb(error.__traceback__)
    places = ", ".join(f"{os.path.basename(frame.filename)}:{frame.lineno}" for frame in frames)
    return (
        f"crates_io_auth.py failed unexpectedly: {type(error).__name__} at {places}\n"
        "Please report this. `python3 crates_io_auth.py post` revokes the access tokens of this job, if any."
    )


# Text from outside: JSON, secrets, URLs


def find(text: str | bytes, *path: str | int) -> Any:
    """Return what JSON text holds at `path`; None if it is not JSON, or of another shape."""
    try:
        value = json.loads(text)
        for key in path:
            value = value[key]
        return value
    except (ValueError, LookupError, TypeError, RecursionError):
        return None


def as_secret(value: object) -> str:
    """Return the value if it has the form of a bearer token, and never show it from now on; else return "".

    With that form (RFC 6750, section 2.1) it can't end a line, a header or a string, wherever it is sent or
    written.
    """
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9._~+/-]{8,16000}={0,16}", value):
        SECRETS.add(value)
        return value
    return ""


def secret_in(variable: str) -> str:
    """Return the secret in an environment variable, or "". Raises AuthError if it can't be one."""
    secret = as_secret(os.environ.get(variable))
    if os.environ.get(variable) and not secret:
        raise AuthError(
            f"{variable} does not hold a token",
            "A token consists of at least 8 of the characters A-Z, a-z, 0-9 and -._~+/= (RFC 6750).\n"
            "Nothing was sent. Correct it.",
        )
    return secret


# What is allowed, not what is forbidden: urlsplit drops some characters and lets others pass.
URL_PATTERN = re.compile(
    r"(?P<origin>(https://[a-z0-9_-]+(\.[a-z0-9_-]+)*|http://(localhost|127\.0\.0\.1|\[::1\]))"
    r"(:(?P<port>[0-9]{1,5}))?)"
    r"(?P<path>/[a-z0-9._~%/+-]*)?",
    re.ASCII | re.IGNORECASE,
)


def parse_url(url: str) -> re.Match[str]:
    """Return the parts of a URL to which a secret may be sent. Raises AuthError for any other."""
    parts = URL_PATTERN.fullmatch(url)
    if not parts or int(parts["port"] or 0) > 65535:
        raise AuthError(
            f"Invalid URL: {one_line(url.rpartition('@')[2])}",  # a password may stand before an @
            "It must be https://host, perhaps with a port and a path but without a user, or http for this\n"
            "machine (localhost, 127.0.0.1, [::1]). Nothing was sent to it. Correct it where it comes from,\n"
            "such as the input `url`, INPUT_URL, --url, or CARGO_REGISTRIES_<NAME>_INDEX.",
        )
    return parts


def registry_url(text: str | None) -> str:
    """Return a registry's URL: with a scheme, https by default, and without a slash at its end.

    If the text is None, it is the input `url`, or else crates.io's. Raises AuthError if it can't be used.
    """
    if text is None:
        text = os.environ.get("INPUT_URL") or CRATES_IO
    parts = parse_url(text if "://" in text else f"https://{text}")
    return parts["origin"].lower() + (parts["path"] or "").rstrip("/")


def audience_of(registry: str) -> str:
    """Return the audience of identity tokens for a registry: its URL without the scheme."""
    return registry.partition("://")[2]


# Requests


class Response:
    """A response of any status."""

    def __init__(self, host: str, status: int, headers: http.client.HTTPMessage, body: bytes) -> None:
        self.host = host
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    @property
    def refused(self) -> bool:
        """Whether the server has refused the request, and would do so again. Redirects are not followed."""
        return 300 <= self.status < 500 and self.status not in (408, 429)

    @property
    def detail(self) -> str:
        """What a registry says in an error of its own form; "" for anything else."""
        detail = find(self.body, "errors", 0, "detail")
        return one_line(detail) if isinstance(detail, str) else ""

    @property
    def problem(self) -> str:
        """What is wrong with the response, in one line: the status, and what the server says."""
        if self.ok:
            text = "not the expected response"  # its body is not shown: it may hold a part of a token
        elif self.headers["Location"]:
            text = f"redirects to {one_line(self.headers['Location'])}"
        else:
            text = self.detail or one_line(self.body.decode(errors="replace"))
        return f"HTTP {self.status}: {text}" if text else f"HTTP {self.status}"

    def error(self) -> TransientError:
        """Return the error for a response after which another attempt may succeed."""
        return TransientError(self.host, self.problem, parse_retry_after(self.headers.get("Retry-After", "")))


def parse_retry_after(value: str) -> float:
    """Return the seconds that a Retry-After header asks for, as a number or a date; 0 if it is invalid."""
    with contextlib.suppress(Exception):  # Python 3.8 raises UnboundLocalError for "1 Jan 2001 00.00.00.00"
        digits = re.fullmatch("[0-9]+", value)
        seconds = float(value) if digits else parsedate_to_datetime(value).timestamp() - time.time()
        return max(0, min(seconds, RETRY_AFTER_SECONDS))
    return 0


@functools.lru_cache(maxsize=None)
def url_opener() -> urllib.request.OpenerDirector:
    """Return the opener of this process, with its one TLS context.

    It lacks urllib's handlers for redirects and errors, so every response is returned as it is, and no secret
    follows a redirect. Only https goes through a proxy: plain http is only for this machine.
    """
    opener = urllib.request.OpenerDirector()
    proxy = urllib.request.getproxies().get("https")
    opener.add_handler(urllib.request.ProxyHandler({"https": proxy} if proxy else {}))
    opener.add_handler(urllib.request.HTTPHandler())
    opener.add_handler(urllib.request.HTTPSHandler(context=ssl.create_default_context()))
    return opener


def send(
    method: str,
    url: str,
    deadline: float,
    bearer: str = "",
    body: dict[str, Any] | None = None,
    max_bytes: int = RESPONSE_BYTES,
) -> Response:
    """Send a request, perhaps with a bearer token or a JSON body, and return the response.

    The deadline, in seconds of time.monotonic, limits each wait for the server, and `max_bytes` the response.
    Raises AuthError; a TransientError if another attempt may succeed.
    """
    parse_url(url.partition("?")[0])
    host = urllib.parse.urlsplit(url).hostname or ""
    headers = {"User-Agent": f"crates-io-auth/{__version__}"}
    data = None
    if bearer:
        headers["Authorization"] = f"Bearer {bearer}"
    if body is not None:
        headers["Content-Type"] = "application/json"
        data = json.dumps(body).encode()
    seconds = min(WAIT_SECONDS, deadline - time.monotonic())
    if seconds <= 0:
        raise TransientError(host, "no time is left")
    try:
        request = urllib.request.Request(url, data, headers, method=method)
        with url_opener().open(request, timeout=seconds) as response:
            content = bytearray()
            while piece := response.read(64 * 1024):
                content += piece
                if len(content) > max_bytes:
                    raise TransientError(host, "the response is too long")
            if response.length:  # the part of Content-Length that did not come
                raise TransientError(host, "the response is cut off")
            return Response(host, response.status, response.headers, bytes(content))
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise AuthError(
                f"The certificate of {host} is not trusted: {one_line(reason.verify_message)}",
                "No secret was sent over this connection. If your network has a certificate authority of\n"
                "its own, name it in SSL_CERT_FILE. Otherwise somebody may be intercepting the connection.",
            ) from None
        text = one_line(reason)
        if isinstance(error, (ValueError, http.client.InvalidURL)):
            text = "is the URL, or HTTPS_PROXY, valid?"  # the error itself may repeat a password
        raise TransientError(host, f"{text} ({type(reason).__name__})") from None


def with_retries(attempt: Callable[[], T], deadline: float) -> T:
    """Return the result of the first attempt that succeeds, of at most ATTEMPTS.

    Raises the TransientError of the last attempt, and any other error at once. No attempt is repeated if the
    pause before it would last until the deadline.
    """
    for next_attempt, backoff in enumerate(BACKOFF_SECONDS, start=2):
        try:
            return attempt()
        except TransientError as error:
            pause = max(backoff, error.retry_after)
            if time.monotonic() + pause >= deadline:
                raise
            say(f"{error.message}. Retrying in {pause:.0f} s (attempt {next_attempt} of {ATTEMPTS}).")
        time.sleep(pause)
    return attempt()


def fetch(
    method: str, url: str, deadline: float, bearer: str = "", max_bytes: int = RESPONSE_BYTES
) -> Response:
    """Send a request until the response is a success or a refusal, and return that. Raises AuthError."""

    def attempt() -> Response:
        response = send(method, url, deadline, bearer, max_bytes=max_bytes)
        if not (response.ok or response.refused):
            raise response.error()
        return response

    return with_retries(attempt, deadline)


# Identity tokens, and what they claim


def claims_of(identity_token: str) -> dict[str, Any]:
    """Return what an identity token claims, not verified; nothing if it is not a JWT."""
    with contextlib.suppress(ValueError, IndexError):
        claims = find(base64.urlsafe_b64decode(identity_token.split(".")[1] + "=="))  # a JWT has no padding
        if isinstance(claims, dict):
            return claims
    return {}


def audiences_of(claims: dict[str, Any]) -> list[str]:
    """Return the audiences of an identity token: there can be several (RFC 7519, section 4.1.3)."""
    audience = claims.get("aud") or []
    return [str(one) for one in audience] if isinstance(audience, list) else [str(audience)]


def has_expired(claims: dict[str, Any]) -> bool:
    """Tell whether an identity token has expired, with the 60 seconds of clock skew that crates.io allows."""
    expires = claims.get("exp")
    return isinstance(expires, (int, float)) and expires + 60 < time.time()


class Publisher:
    """A trusted publisher: what crates.io compares with the claims of an identity token."""

    def __init__(self, repository: str, workflow: str, environment: str) -> None:
        self.repository = repository  # on GitLab, the project
        self.workflow = workflow  # the name of the workflow file; on GitLab, the path of the CI file
        self.environment = environment  # "" for none

    def __str__(self) -> str:
        return f"{self.repository}, {self.workflow}, environment {self.environment or '(none)'}"


def publisher_of(claims: dict[str, Any]) -> Publisher:
    """Return the trusted publisher that a job needs."""
    environment = one_line(claims.get("environment") or "")
    if "ci_config_ref_uri" in claims:  # gitlab.com/octo/crate//.gitlab-ci.yml@refs/tags/v1
        path = str(claims["ci_config_ref_uri"]).partition("@refs/")[0].partition("//")[2]
        return Publisher(one_line(claims.get("project_path", "(none)")), one_line(path), environment)
    # octo/crate/.github/workflows/release.yml@refs/tags/v1
    name = str(claims.get("workflow_ref", "(none)")).partition("@refs/")[0].rpartition("/")[2]
    return Publisher(one_line(claims.get("repository", "(none)")), one_line(name), environment)


# The record


class IssuedToken:
    """An access token, and when it was issued."""

    def __init__(self, registry: str, token: str, issued_at: float, path: str = "") -> None:
        self.registry = registry  # its URL
        self.token = token
        self.issued_at = issued_at  # in seconds since the epoch, taken before the request
        self.path = path  # of its file in the record, if it has one


class Record:
    """The folder with a file for each access token that is to be revoked.

    Several processes can use it at once without a lock, since files are only added and removed.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def create(self) -> None:
        """Make the folder if it is missing, and make sure that nobody else can read what is written to it.

        Revoking needs no such check: whoever plants a token there holds it already. Raises AuthError or
        OSError.
        """
        with contextlib.suppress(FileExistsError):
            os.mkdir(self.path, 0o700)
        status = os.lstat(self.path)
        is_private = sys.platform == "win32" or (status.st_uid == os.geteuid() and not status.st_mode & 0o077)
        if not (stat.S_ISDIR(status.st_mode) and is_private):
            raise AuthError(
                f"Can't use {one_line(self.path)} to record access tokens: it isn't a folder of yours alone",
                "It must not be a link, and its mode must be 0700. Find out who made it, and remove it.",
            )

    def add(self, issued: IssuedToken) -> None:
        """Write the file for an access token, which only its owner can read. Raises OSError."""
        descriptor, _ = tempfile.mkstemp(suffix=".json", dir=self.path)
        with open(descriptor, "w", encoding="ascii") as file:
            json.dump(
                {"registry": issued.registry, "token": issued.token, "issued_at": issued.issued_at}, file
            )

    def tokens(self) -> list[IssuedToken]:
        """Return the access tokens in the record. A file that can't be read is reported, and skipped.

        Raises OSError if the folder can't be read.
        """
        tokens = []
        for name in os.listdir(self.path):
            path = os.path.join(self.path, name)
            try:
                with open(path, "rb") as file:
                    content = file.read()
            except FileNotFoundError:  # another process has just revoked it
                continue
            except OSError:
                content = b"unreadable"  # and so no JSON
            registry, token, issued_at = (find(content, key) for key in ("registry", "token", "issued_at"))
            if isinstance(registry, str) and as_secret(token) and isinstance(issued_at, (int, float)):
                tokens.append(IssuedToken(registry, token, issued_at, path))
            elif content:  # an empty file is one that another process is just writing
                say(f"Skipped {one_line(path)}, which can't be read. A token in it expires by itself.")
        return tokens

    def fresh_token(self, registry: str) -> IssuedToken | None:
        """Return an access token for a registry that can be used for one more upload, if there is one."""
        now = time.time()
        for issued in self.tokens():
            if issued.registry == registry and issued.issued_at <= now < issued.issued_at + FRESH_SECONDS:
                return issued
        return None

    def remove(self, issued: IssuedToken) -> None:
        """Remove the file of an access token, if it has one.

        If that fails, the next `post` revokes the token once more.
        """
        with contextlib.suppress(OSError):
            os.unlink(issued.path)


# The CI systems


def absolute_path(variable: str, path: str) -> str:
    """Return a path if it is absolute. Raises AuthError for any other."""
    if not os.path.isabs(path):
        reason = f"{one_line(path)} is a relative path" if path else "it is not set"
        raise AuthError(f"Can't use the variable {variable}: {reason}", "Set it to an absolute path.")
    return path


class CI:
    """Any CI system, or a shell. A subclass overrides what its system does differently."""

    single_use = True  # the job has one identity token, and the registry accepts it once: see `preflight`
    masks = True  # whether `mask` may print: not in cargo's output, see `respond_to_cargo`

    def identity_token(self, audience: str, deadline: float) -> str:
        """Return an identity token from the variable that is named after the audience.

        The name follows the convention of PyPA's `id` library (https://github.com/di/id). Raises AuthError.
        """
        variable = re.sub(r"[^A-Z0-9_]|^[0-9]", "_", audience.upper()) + "_ID_TOKEN"
        token = secret_in(variable)
        if not token:
            raise AuthError(
                f"There is no identity token in {variable}",
                "On GitLab, add this to the job, commit, and push:\n"
                f"  id_tokens:\n    {variable}:\n      aud: {audience}\n"
                "crates.io accepts jobs on GitHub and gitlab.com. On your own machine, use `cargo login`.",
            )
        claims = claims_of(token)
        if audience not in audiences_of(claims):
            raise AuthError(
                f"The identity token in {variable} is for "
                f"{one_line(', '.join(audiences_of(claims)) or 'no audience')}, not for {audience}",
                f"Request one for {audience}, or correct the registry's URL. Nothing was sent.",
            )
        if has_expired(claims):
            raise AuthError(
                f"The identity token in {variable} has expired",
                "Retry the job to get a new one.",
            )
        return token

    def mask(self, secret: str) -> None:
        """Hide a secret in everything that is printed later, where the log can do that. Raises OSError."""

    def annotate(self, level: str, message: str) -> None:
        """Show an error or a warning."""
        with contextlib.suppress(OSError):
            print(f"crates-io-auth: {level}: {printable(message)}", file=sys.stderr)

    def record_path(self) -> str:
        """Return where the record of this job is. Raises AuthError."""
        # Not tempfile.gettempdir: it skips a full disk, so `post` could look elsewhere than `main`.
        temporary = os.environ.get("TMPDIR") or os.environ.get("TEMP") or "/tmp"
        job = os.environ.get("CI_JOB_ID", "")  # GitLab sets it
        name = hashlib.sha256(os.fsencode(job)).hexdigest() if job else "no-job-id"
        if sys.platform != "win32":  # there, each user has a temporary folder
            name = f"{os.geteuid()}-{name}"
        return os.path.join(absolute_path("TMPDIR (or TEMP)", temporary), f"crates-io-auth-{name}")

    def hand_over(self, token: str) -> None:
        """Give an access token to the later commands of the job. Raises AuthError or OSError."""
        if sys.stdout is None:  # print would do nothing
            raise AuthError(
                "stdout is closed, and the access token would go there",
                "Run `post` to revoke it, then run this again with stdout open.",
            )
        print(token)
        say("The token is on stdout, and nothing masks it: keep it out of the log.")
        say("Revoke it at the end of the job: python3 crates_io_auth.py post")

    def set_output(self, name: str, value: str) -> None:
        """Set an output of the step, where there is such a thing. Raises AuthError or OSError."""

    def summarize(self, markdown: str) -> None:
        """Add to the summary of the step, where there is such a thing."""


class GitHubActions(CI):
    """A step of GitHub Actions.

    https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands
    """

    single_use = False

    def has_credential_provider(self) -> bool:
        """Whether the input credential-provider is true. Raises AuthError if it is no boolean."""
        value = (os.environ.get("INPUT_CREDENTIAL_PROVIDER") or "false").lower()
        if value not in ("true", "false"):
            raise AuthError(
                f"The input credential-provider must be true or false, but is {one_line(value)}",
                "Correct it in the workflow file, commit, and push a new tag.",
            )
        return value == "true"

    def endpoint(self) -> tuple[str, str]:
        """Return the URL for identity tokens, and the bearer token for it. Raises AuthError if there is none.

        https://docs.github.com/en/actions/reference/security/oidc
        """
        url = os.environ.get("ACTIONS_ID_TOKEN_REQUEST_URL")
        bearer = secret_in("ACTIONS_ID_TOKEN_REQUEST_TOKEN")
        if url and bearer:
            return url, bearer
        event = b""
        with contextlib.suppress(OSError), open(os.environ.get("GITHUB_EVENT_PATH", ""), "rb") as file:
            event = file.read()
        head, base = (find(event, "pull_request", side, "repo", "id") for side in ("head", "base"))
        if head != base and os.environ.get("GITHUB_EVENT_NAME") == "pull_request":
            raise AuthError(
                "A pull request from a fork can't get an identity token",
                "GitHub issues none, so that strangers can't publish in your name.\n"
                "Publish from a push, a tag or a release in the repository itself.",
            )
        raise AuthError(
            "Missing permission: id-token: write",
            "Add it to this job, commit, and push a new tag: *Re-run* uses the old workflow file.\n"
            "  permissions:\n    contents: read # unlisted permissions become none\n    id-token: write\n"
            "If this job is in a reusable workflow, the job that calls it needs this as well.",
        )

    def identity_token(self, audience: str, deadline: float) -> str:
        """Return a new identity token. Raises AuthError, or TransientError.

        Any failure can be transient, even a 403 (https://github.com/hashicorp/vault-action/issues/525).
        """
        url, bearer = self.endpoint()  # the URL has a query already
        url += "&audience=" + urllib.parse.quote(audience, safe="")
        response = send("GET", url, deadline, bearer)
        token = as_secret(find(response.body, "value")) if response.ok else ""
        if not token:
            raise response.error()
        return token

    def mask(self, secret: str) -> None:
        if self.masks:
            # flush: a mask must come before its secret, and Python 3.8 doesn't line-buffer stderr by itself.
            print(f"::add-mask::{secret}", file=sys.stderr, flush=True)

    def annotate(self, level: str, message: str) -> None:
        # The log shows the message without its title; the title is for the page of the run.
        text = printable(message).replace("%", "%25").replace("\n", "%0A")
        with contextlib.suppress(OSError):
            print(f"::{level} title=crates-io-auth::{text}", file=sys.stderr)

    def record_path(self) -> str:
        return os.path.join(absolute_path("RUNNER_TEMP", os.environ.get("RUNNER_TEMP", "")), "crates-io-auth")

    def append(self, variable: str, text: str) -> None:
        """Append to a file that the runner made for this step. Raises AuthError or OSError."""
        path = absolute_path(variable, os.environ.get(variable, ""))
        # Without O_CREAT: the runner would never read a file that it did not make.
        with open(os.open(path, os.O_WRONLY | os.O_APPEND), "w", encoding="utf-8", newline="\n") as file:
            file.write(text)

    def hand_over(self, token: str) -> None:
        self.set_output("token", token)
        say("The token is masked in this log, set as the output `token`, and revoked when the job ends.")

    def set_output(self, name: str, value: str) -> None:
        self.append("GITHUB_OUTPUT", f"{name}={value}\n")

    def summarize(self, markdown: str) -> None:
        with contextlib.suppress(OSError, AuthError):
            self.append("GITHUB_STEP_SUMMARY", markdown)


def detect_ci() -> CI:
    """Return the CI system that this process runs in."""
    return GitHubActions() if os.environ.get("GITHUB_ACTIONS") == "true" else CI()


# The exchange and the revocation


def exchange(ci: CI, registry: str, deadline: float) -> tuple[IssuedToken, Publisher]:
    """Exchange an identity token for an access token, and return that with the publisher that it is for.

    Each attempt uses a new identity token, if the CI system issues one: if the response to an attempt was
    lost, the registry may have accepted its identity token, and accepts none twice. Raises AuthError or
    OSError.
    """

    def attempt() -> tuple[IssuedToken, Publisher]:
        identity_token = ci.identity_token(audience_of(registry), deadline)
        ci.mask(identity_token)
        claims = claims_of(identity_token)
        started_at = time.time()
        response = send("POST", registry + TOKENS_PATH, deadline, body={"jwt": identity_token})
        token = as_secret(find(response.body, "token")) if response.ok else ""
        if token:
            return IssuedToken(registry, token, started_at), publisher_of(claims)
        if response.refused:
            raise refusal(response, claims, registry)
        raise response.error()

    return with_retries(attempt, deadline)


def refusal(response: Response, claims: dict[str, Any], registry: str) -> AuthError:
    """Return the error for a refused identity token, with the advice that the registry itself doesn't give.

    What crates.io says: https://github.com/rust-lang/crates.io/tree/main/src/controllers/trustpub
    """
    host, detail, hint = response.host, response.detail, ""
    if response.status == 404 or not detail:
        return AuthError(
            f"{host} has no trusted publishing at {registry + TOKENS_PATH} ({response.problem})",
            "Is the input `url` right? (For crates.io, leave it out.) Or does a firewall or a proxy respond?",
        )
    if "already been used" in detail:
        hint = "An identity token can be exchanged only once. Retry the job to get a new one."
    elif "decode JWT" in detail and has_expired(claims):
        hint = "It has expired. Retry the job to get a new one."
    elif "decode JWT" in detail:  # all that crates.io says about another audience
        audiences = one_line(", ".join(audiences_of(claims)) or "(none)")
        hint = f"It is for the audience {audiences}. If the registry's is another, correct the input `url`."
    elif "JWT issuer" in detail:
        hint = "crates.io accepts jobs on github.com and gitlab.com only."
    elif "Trusted Publishing config" in detail:
        hint = (
            f"This job needs the trusted publisher {publisher_of(claims)}.\n"
            f"Add it at {registry}/crates/<crate>/settings, and run the job again.\n"
            "Or correct the workflow, commit, and push a new tag. A first version needs an API token."
        )
        if claims.get("job_workflow_ref") not in (None, claims.get("workflow_ref")):
            hint += "\nThe job is in a reusable workflow: register the file name of the calling workflow."
    return AuthError(f"{host} refused the identity token: {response.problem}", hint)


def revoke(issued: IssuedToken, deadline: float) -> None:
    """Revoke an access token. Raises AuthError unless the registry says that it is revoked.

    crates.io responds with 204 to every token of the right form, known or not, and with 401 to all else:
    https://github.com/rust-lang/crates.io/tree/main/src/controllers/trustpub/tokens
    """
    url = registry_url(issued.registry) + TOKENS_PATH
    response = fetch("DELETE", url, deadline, issued.token)
    if response.status != 204:
        raise AuthError(f"{response.host} didn't revoke an access token: {response.problem}")


def revoke_all(record: Record, tokens: list[IssuedToken], deadline: float) -> list[str]:
    """Revoke access tokens, and take them out of the record. Return what went wrong with those left."""
    problems = []
    for number, issued in enumerate(tokens):
        now = time.monotonic()
        share = (deadline - now) / (len(tokens) - number)  # a silent registry leaves time for the others
        try:
            revoke(issued, now + share)
            record.remove(issued)
        except AuthError as error:
            problems.append(error.message)
    count = len(tokens) - len(problems)
    if count:
        say(f"Revoked {count} access token{'s' if count > 1 else ''}.")
    return problems


# The commands main and post


def main(url: str | None = None) -> None:
    """Get an access token from the registry at `url` and hand it over, or set up cargo to ask for tokens.

    Without a `url`, the registry is that of the input `url`, or crates.io. Raises AuthError or OSError.
    """
    deadline = time.monotonic() + REQUESTS_SECONDS
    ci = detect_ci()
    record = Record(ci.record_path())
    record.create()  # before the inputs are read, so that `post` finds it even if one of them is wrong
    registry = registry_url(url)
    if isinstance(ci, GitHubActions) and ci.has_credential_provider():
        set_up_cargo(ci, registry, os.environ.get("INPUT_REGISTRY") or "crates-io")
        return
    issued, publisher = exchange(ci, registry, deadline)
    record.add(issued)
    ci.mask(issued.token)
    expires = time.strftime("%H:%M UTC", time.gmtime(issued.issued_at + LIFETIME_SECONDS))
    say(f"Got an access token from {registry} for {publisher}, valid for 30 minutes (until {expires}).")
    ci.hand_over(issued.token)


def post() -> None:
    """Revoke each access token that can be read in the record, and a temporary one in CARGO_REGISTRY_TOKEN.

    Raises AuthError if one is left, after trying the others, or if the record is missing on GitHub. Raises
    OSError if the record can't be read.
    """
    deadline = time.monotonic() + REQUESTS_SECONDS
    ci = detect_ci()
    record = Record(ci.record_path())
    is_missing = not os.path.isdir(record.path)
    tokens = [] if is_missing else record.tokens()
    token = os.environ.get("CARGO_REGISTRY_TOKEN", "").strip()
    if token.startswith("cio_tp_") and token not in [issued.token for issued in tokens] and as_secret(token):
        # Its age is unknown. Taken for new, it causes no message about expired tokens.
        tokens.append(IssuedToken(os.environ.get("INPUT_URL") or CRATES_IO, token, time.time()))
    problems = revoke_all(record, tokens, deadline)
    if problems:
        raise AuthError(
            "Couldn't revoke an access token",
            "It expires by itself, on crates.io after 30 minutes. `crates_io_auth.py post` can be run again.",
            problems,
        )
    if is_missing and isinstance(ci, GitHubActions):
        raise AuthError(
            f"The record of this job, {one_line(record.path)}, is missing",
            "Either no access token was requested, or a step has emptied RUNNER_TEMP.\n"
            "If this job got one, it expires by itself, on crates.io after 30 minutes.",
        )
    if not tokens:
        say("Nothing to revoke.")
        return
    overdue = time.time() - LIFETIME_SECONDS - max(issued.issued_at for issued in tokens)
    if overdue > 0:
        say(
            f"The last access token expired {overdue / 60:.0f} min before this step.\n"
            "If an upload failed with `Invalid authentication token`, this may be why.\n"
            "With `credential-provider: true` on GitHub, cargo gets a new one in time."
        )


# cargo's credential provider

# cargo asks before it builds, for a token to read the index, and again at each upload. This token answers the
# first request. cargo doesn't send it to crates.io, whose index needs none. A registry whose index needs one
# can't be used (https://doc.rust-lang.org/cargo/reference/registry-index.html#index-authentication).
PLACEHOLDER_TOKEN = "the-upload-gets-a-real-token"


def variable_prefix(cargo_registry: str) -> str:
    """Return what the names of cargo's variables for a registry begin with."""
    if cargo_registry == "crates-io":
        return "CARGO_REGISTRY"
    return "CARGO_REGISTRIES_" + re.sub(r"[^A-Z0-9]", "_", cargo_registry.upper())


def set_up_cargo(ci: GitHubActions, registry: str, cargo_registry: str) -> None:
    """Have cargo get its tokens for a registry from this file, in the steps that follow.

    Writes a launcher that starts this file with --cargo-plugin and the registry's URL. The launcher
    drops the arguments that cargo passes: the request comes on stdin. Raises AuthError or OSError.
    """
    import shlex  # here, since getting a token doesn't need it

    if (registry == CRATES_IO) != (cargo_registry == "crates-io"):
        raise AuthError(
            f"The inputs url ({registry}) and registry ({one_line(cargo_registry)}) contradict each other",
            "`registry` is cargo's name for the one at `url`. For crates.io set neither.",
        )
    ci.endpoint()  # fail now if the permission is missing
    folder = os.path.dirname(ci.record_path())
    command = [sys.executable, "-I", "-S", os.path.abspath(__file__), "--cargo-plugin", "--url", registry]
    problem = launcher_problem(folder, command)
    if problem:
        hint = "Use the output `token` instead, or move the runner, Python or the action to another folder."
        raise AuthError(f"credential-provider doesn't work here: {problem}", hint)
    prefix = variable_prefix(cargo_registry)
    if os.environ.get(f"{prefix}_TOKEN"):
        ci.annotate(
            "warning",
            f"{prefix}_TOKEN is set, but cargo ignores it and gets its tokens from the credential provider\n"
            "Remove the variable: every build script can read it.",
        )
    if sys.platform == "win32":
        # Without cmd.exe's %*, so that nothing that cargo passes is parsed again.
        suffix, text = ".cmd", "@" + " ".join(f'"{word}"' for word in command).replace("%", "%%") + "\r\n"
    else:
        suffix, text = "", f"#!/bin/sh\nexec {' '.join(map(shlex.quote, command))}\n"
    descriptor, launcher = tempfile.mkstemp(suffix, "crates-io-auth-for-cargo-", folder)
    with open(descriptor, "wb") as file:
        file.write(os.fsencode(text))
    os.chmod(launcher, 0o700)
    ci.append("GITHUB_ENV", f"{prefix}_CREDENTIAL_PROVIDER={launcher}\n")
    say(f"From now on, cargo gets its tokens from crates-io-auth: {prefix}_CREDENTIAL_PROVIDER is set.")
    say("They are revoked when the job ends.")


def launcher_problem(folder: str, command: list[str]) -> str:
    """Return why cargo could not start a launcher for a command in a folder; "" if it can."""
    # cargo splits the value of the variable at spaces, and a line break would end it in GITHUB_ENV.
    if not folder.isprintable() or " " in folder:
        return f"the path of RUNNER_TEMP has a space or a control character, {one_line(folder)}"
    # cmd.exe replaces %NAME% in the launcher's path, and reads its text in a code page of its own.
    if sys.platform == "win32" and "%" in folder:
        return f"the path of RUNNER_TEMP has a %, {one_line(folder)}"
    if sys.platform == "win32" and not "".join(command).isascii():
        return f"the path of Python or of the action has letters outside ASCII, {one_line(' '.join(command))}"
    return ""


def cargo_plugin(url: str | None) -> None:
    """Respond to one request from cargo, as the credential provider for the registry at `url`.

    https://doc.rust-lang.org/cargo/reference/credential-provider-protocol.html
    """
    print('{"v":[1]}', flush=True)  # cargo waits for this line
    line = sys.stdin.buffer.readline(RESPONSE_BYTES)
    try:
        response = respond_to_cargo(line, registry_url(url))
    except Exception as error:
        response = {"Err": {"kind": "other", "message": explain(error)}}
    print(json.dumps(response))


def respond_to_cargo(line: bytes, registry: str) -> dict[str, object]:
    """Return the response to a request of cargo. Raises AuthError or OSError for cargo to show."""
    deadline = time.monotonic() + REQUESTS_SECONDS
    index, kind, operation = find(line, "registry", "index-url"), find(line, "kind"), find(line, "operation")
    if find(line, "v") != 1 or not kind or not index:
        raise AuthError(
            "This is not a request in version 1 of cargo's credential provider protocol",
            "Only cargo should call `--cargo-plugin`, as its credential provider.",
        )
    # Only crates.io's index gets a token of crates.io. If --url names another registry, any index but
    # crates.io's is assumed to be its own.
    if (index in CRATES_IO_INDEXES) != (registry == CRATES_IO):
        return {"Err": {"kind": "url-not-supported"}}  # cargo then asks its next provider
    # No mask commands in cargo's output: some tools put a prefix before each line of it. The runner would not
    # recognise `::add-mask::` then, and the log would show the secret.
    ci = detect_ci()
    ci.masks = False
    record = Record(ci.record_path())
    record.create()
    if kind == "logout":
        tokens = [issued for issued in record.tokens() if issued.registry == registry]
        problems = revoke_all(record, tokens, deadline)
        if problems:
            raise AuthError("Couldn't revoke an access token", details=problems)
        return {"Ok": {"kind": "logout"}}
    if kind == "login":
        raise AuthError("`cargo login` isn't needed: cargo gets its tokens from crates-io-auth")
    if operation in ("owners", "yank", "unyank"):
        command = {"owners": "owner", "yank": "yank", "unyank": "yank --undo"}[operation]
        raise AuthError(
            f"A token of trusted publishing can't be used for `cargo {command}`",
            f"Use an ordinary API token: `cargo {command} --token …`.",
        )
    if kind == "get" and operation == "read":
        preflight(ci, record, registry, deadline)
        token = PLACEHOLDER_TOKEN
    elif kind == "get" and operation == "publish":
        crate = f"{find(line, 'name')} {find(line, 'vers')}"
        token = token_for_upload(ci, record, registry, deadline, crate)
    else:
        return {"Err": {"kind": "operation-not-supported"}}
    return {"Ok": {"kind": "get", "token": token, "cache": "never", "operation_independent": False}}


def preflight(ci: CI, record: Record, registry: str, deadline: float) -> None:
    """Find out whether an upload would get an access token, as far as that can be tested.

    If the job can get several identity tokens, one is exchanged for a test token. That is revoked at once,
    since cargo asks before it builds, and no build script should find it
    (https://github.com/rust-lang/cargo/issues/15743). It is never written to the disk: if the revocation
    fails, nobody holds it. No test is needed while the token of an earlier upload is fresh. Raises AuthError
    or OSError.
    """
    if record.fresh_token(registry):
        say("Preflight: an access token of this job can be used again.")
    elif ci.single_use:
        publisher = publisher_of(claims_of(ci.identity_token(audience_of(registry), deadline)))
        say(f"Preflight: the job has an identity token for {publisher}. It is exchanged at the first upload.")
    else:
        issued, publisher = exchange(ci, registry, deadline)
        say(f"Preflight: {registry} issues tokens for the crates with the trusted publisher {publisher}.")
        say("If an upload fails with `not valid for crate`, add it to that crate, and run the job again.")
        try:
            revoke(issued, deadline)
        except AuthError as error:
            say(f"{error.message}. Nobody holds this test token, and it expires by itself.")


def token_for_upload(ci: CI, record: Record, registry: str, deadline: float, crate: str) -> str:
    """Return the access token of an earlier upload, or a new one. Raises AuthError or OSError."""
    issued = record.fresh_token(registry)
    if issued:
        age = f"reused, {(time.time() - issued.issued_at) / 60:.0f} min old"
    else:
        issued, _ = exchange(ci, registry, deadline)
        record.add(issued)
        age = "new"
    say(f"Access token for {one_line(crate)}: {age}")
    ci.summarize(f"- crates-io-auth: access token for `{one_line(crate)}`, {age}\n")
    return issued.token


# The command line

EPILOG = """\
environment:
  INPUT_URL             main, post: the registry's URL, if it isn't crates.io (for main, --url comes first)
  CRATES_IO_ID_TOKEN    main: the identity token, outside GitHub Actions. That of another registry is named
                        after its URL: STAGING_CRATES_IO_ID_TOKEN
  CARGO_REGISTRY_TOKEN  post: revoked, too, if it is a temporary token (cio_tp_...)
                        publishers: an API token of an owner of the crates (scope `trusted-publishing`)
  CI_JOB_ID             main, post: keeps the records of several jobs on one machine apart
  TMPDIR, TEMP          main, post: where the record is, outside GitHub Actions
  CARGO_REGISTRIES_<NAME>_INDEX
                        check: the index of a registry other than crates-io, as sparse+https://host/path/
  HTTPS_PROXY, NO_PROXY, SSL_CERT_FILE

exit status: 0 for success; 1 for a failure, for `check` if something would stop the release, for `publishers`
if a crate lacks the trusted publisher; 2 for a wrong command line
"""


def parse_arguments(arguments: list[str]) -> tuple[str, Callable[[], None]]:
    """Return the name of the command, and what it does. Exits for --help and for a wrong command line."""
    if not arguments:
        return "main", main
    import argparse  # here, since the action doesn't need it to get a token

    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="crates_io_auth.py",
        description="Get a short-lived crates.io access token in CI, and revoke it afterwards.",
        epilog=EPILOG,
        formatter_class=formatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", metavar="command", required=True)
    url_options = argparse.ArgumentParser(add_help=False)
    url_options.add_argument("--url", help="the URL of the registry, if it isn't crates.io")
    workspace_options = argparse.ArgumentParser(add_help=False)
    workspace_options.add_argument("--manifest-path", help="the path of the workspace's Cargo.toml")
    workspace_options.add_argument("--registry", default="crates-io", help="cargo's name for the registry")

    def add_command(
        name: str, description: str, function: Callable[[Any], None], *parents: argparse.ArgumentParser
    ) -> argparse.ArgumentParser:
        command = commands.add_parser(
            name, help=description, epilog=EPILOG, formatter_class=formatter, parents=parents
        )
        command.set_defaults(function=function)
        return command

    add_command(
        "main",
        "get an access token and hand it over (the default)",
        lambda options: main(options.url),
        url_options,
    )
    add_command("post", "revoke the access tokens of this job", lambda _: post())
    command = add_command(
        "check", "show which crates of a workspace can be published", check, workspace_options
    )
    command.add_argument(
        "-p", "--package", metavar="NAME", action="append", default=[], help="only these crates"
    )
    command.add_argument(
        "--exclude", metavar="NAME", action="append", default=[], help="all but these crates"
    )
    command = add_command(
        "publishers",
        "show, or add, the trusted publishers of a workspace",
        publishers,
        workspace_options,
        url_options,
    )
    command.add_argument("--add", action="store_true", help="add those that are missing")
    command.add_argument("--repository", metavar="OWNER/NAME", help="default: that of the remote origin")
    command.add_argument("--workflow", metavar="FILE", help="the name of the workflow file")
    command.add_argument("--environment", metavar="NAME", help="default: none")
    command.add_argument("--gitlab", action="store_true", help="the project is on gitlab.com")
    command = commands.add_parser("cargo-plugin", parents=[url_options])  # not in --help: only cargo calls it
    command.set_defaults(function=lambda options: cargo_plugin(options.url))
    if arguments[0] == "--cargo-plugin":
        arguments = ["cargo-plugin", *arguments[1:]]
    elif arguments[0].startswith("--url"):
        arguments = ["main", *arguments]
    options = parser.parse_args(arguments)
    return options.command, lambda: options.function(options)


def report_failure(ci: CI, command: str, message: str) -> None:
    """Show why a command failed."""
    # Only a warning from `post`: it can't change how the release went, and the tokens expire by themselves.
    ci.annotate("warning" if command == "post" else "error", message)
    if command != "post":
        # In an indented block of code nothing is a link or HTML, and no indented line can end it.
        ci.summarize("### crates-io-auth\n\n    " + message.replace("\n", "\n    ") + "\n\n")


def end_on_signals(ci: CI, command: str) -> None:
    """Make a signal end the process with a message, and set the alarm for the time of the whole command."""
    cancelled = "Cancelled."
    if command not in ("check", "publishers"):
        cancelled += " This job's access tokens, if any, stay in its record until `post` revokes them."
    took_too_long = (
        f"Stopped after {COMMAND_SECONDS} seconds: a server or cargo took too long. Run this again."
    )

    def end(number: int, _: object) -> None:
        try:
            is_alarm = signal.Signals(number).name == "SIGALRM"
            report_failure(ci, command, took_too_long if is_alarm else cancelled)
        finally:  # print raises RuntimeError if the signal came in the middle of another print
            # Not sys.exit: the interrupted code could catch its exception, and Python would wait for threads.
            os._exit(1)

    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK", "SIGALRM"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), end)
    # Windows has no alarm: there, the job's own time limit ends a response that trickles in. And `publishers`
    # takes as long as its crates take.
    if sys.platform != "win32" and command != "publishers":
        signal.setitimer(signal.ITIMER_REAL, COMMAND_SECONDS)


def run(arguments: list[str]) -> int:
    """Do what the command line says, and return the exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not if it is closed
            # Line by line, since os._exit writes nothing that is left in a buffer.
            stream.reconfigure(encoding="utf-8", errors="backslashreplace", newline="\n", line_buffering=True)
    if sys.stderr is None:  # if it was closed, print would write to stdout instead
        sys.stderr = io.StringIO()
    name, command = parse_arguments(arguments)
    # For failures and signals. There are no workflow commands in cargo's output.
    ci = CI() if name == "cargo-plugin" else detect_ci()
    end_on_signals(ci, name)
    try:
        command()
    except Exception as error:
        report_failure(ci, name, explain(error))
        return 1
    return 0


# The command check

INDEX_BYTES = 16 * RESPONSE_BYTES  # for the file with all versions of a crate: web-sys's exceeds 1 MiB
INDEX_REQUESTS = 32  # in parallel

NOT_CHECKED = """\
Not checked: whether each crate has a trusted publisher that matches this job. A crate without one stops the
release with "access token is not valid for crate". If that happens, add one in the settings of the crate, and
run the job again. The command `publishers`, on your own machine, shows beforehand which crates lack one, and
`publishers --add` adds it."""

AFTER_A_STOP = """\
If you change a file, commit it and push a new tag. If the cause was at the registry, run this again."""


class Crate:
    """A member of the workspace, and what is found out about it."""

    def __init__(self, package: dict[str, Any], needs: set[str], needs_for_tests: set[str]) -> None:
        self.name: str = package["name"]
        self.version: str = package["version"]
        self.package = package  # as `cargo metadata` describes it
        self.needs = needs  # the members that it depends on; a dev-dependency counts if it has a version
        self.needs_for_tests = needs_for_tests  # those of `needs` that are only dev-dependencies
        self.entries: list[Any] | None = None  # what the index says about each version; None if not known
        self.problem = ""  # why it is not known whether it can be published
        self.flaws: list[str] = []  # what must be corrected before it can be published

    @property
    def is_new(self) -> bool:
        """Whether the registry has no version of the crate."""
        return self.entries == []

    @property
    def is_published(self) -> bool:
        """Whether the registry has this version, perhaps yanked.

        A registry has no two versions that differ only in build metadata.
        """
        versions = [entry["vers"].partition("+")[0] for entry in self.entries or []]
        return self.version.partition("+")[0] in versions

    @property
    def state(self) -> str:
        if self.flaws:
            return "to correct"
        if self.problem:
            return "unknown"
        if self.is_new:
            return "new"
        return "published" if self.is_published else "to publish"

    def may_go_to(self, cargo_registry: str) -> bool:
        """Whether `publish` in Cargo.toml allows a registry."""
        return self.package["publish"] is None or cargo_registry in self.package["publish"]

    @property
    def is_private(self) -> bool:
        """Whether the crate has `publish = false`."""
        return bool(self.package["publish"] == [])

    def may_be_on(self, cargo_registry: str) -> bool:
        """Whether a registry may have the crate, perhaps from before it got `publish = false`."""
        return self.is_private or self.may_go_to(cargo_registry)

    @property
    def index_path(self) -> str:
        """Where an index has the crate.

        https://doc.rust-lang.org/cargo/reference/registry-index.html#index-files
        """
        name = self.name.lower()
        folder = {1: "1", 2: "2", 3: f"3/{name[0]}"}.get(len(name), f"{name[:2]}/{name[2:4]}")
        return f"{folder}/{name}"


def check(options: argparse.Namespace) -> None:
    """Print which crates of a workspace can be published, and the command that does it.

    Raises AuthError if something would stop the release.
    """
    deadline = time.monotonic() + REQUESTS_SECONDS
    ci = detect_ci()
    cargo_registry = options.registry or "crates-io"
    members = workspace_members(options.manifest_path)
    # An input of the action has all names in one text.
    chosen, excluded = " ".join(options.package).split(), " ".join(options.exclude).split()
    crates = choose(members, cargo_registry, chosen, excluded)
    outside = needed_outside(crates, members, cargo_registry)
    try:
        # Sets `entries` or `problem` of each of them, and returns the URL of the API that the index names.
        api_url = read_index(index_url(cargo_registry), [*crates, *outside], deadline)
    except AuthError:
        report_flaws(ci, crates, outside)  # most of them show without the index
        raise
    unpublished = [crate for crate in crates if not crate.is_published]
    report_flaws(ci, unpublished, outside)  # sets their `flaws`

    # `cargo publish --workspace` must be told what to leave out, but for the private ones.
    left_out = [member for member in members if member not in unpublished and not member.is_private]
    exclude = " ".join(f"--exclude {member.name}" for member in left_out)
    command = publish_command(exclude, cargo_registry, options.manifest_path)
    ci.set_output("exclude", exclude)
    ci.set_output("publish", "true" if unpublished else "false")
    ci.summarize(markdown_table(crates, cargo_registry))
    states = {crate.name: f"{crate.version:12}  {crate.state}" for crate in crates}
    for name in states:
        print_row(name, states)

    new = [crate.name for crate in unpublished if crate.is_new]
    if new:
        ci.annotate("error", about_new_crates(new, unpublished, api_url, command, deadline))
    problems = [
        f"{crate.name} {crate.version}: {crate.problem or crate.state}"
        for crate in unpublished
        if crate.flaws or crate.problem or crate.is_new
    ]
    if problems:
        raise AuthError("Stopped before any upload", AFTER_A_STOP, problems)
    registry_name = "crates.io" if cargo_registry == "crates-io" else one_line(cargo_registry)
    if unpublished:
        print(f"\n{NOT_CHECKED}\n\nTo publish what is left:\n  {command}")
    elif crates:
        all_there = f"every version is on {registry_name}. If you meant to release, bump the version."
        ci.annotate("warning", f"Nothing to publish: {all_there}")
    else:
        ci.annotate("warning", f"Nothing to publish: none of the chosen crates may go to {registry_name}.")


def print_row(name: str, states: dict[str, str]) -> None:
    """Print the name and the state of a crate, as a row of the table of all states."""
    width = max(map(len, states))
    print(printable(f"{name:{width}}  {states[name]}"))


def run_program(*command: str) -> subprocess.CompletedProcess[bytes]:
    """Run a program to its end, and return its exit status and output. Raises OSError."""
    import subprocess  # here, since getting a token doesn't need it

    # Windows would look in the current folder first, which is the workspace.
    os.environ["NODEFAULTCURRENTDIRECTORYINEXEPATH"] = "1"
    return subprocess.run(command, capture_output=True, check=False)


def workspace_members(manifest_path: str | None) -> list[Crate]:
    """Return the members of the workspace, sorted by name. Raises AuthError."""
    command = ["cargo", "metadata", "--no-deps", "--format-version=1", "--color=never"]
    if manifest_path:
        command.append(f"--manifest-path={manifest_path}")
    try:
        cargo = run_program(*command)
    except OSError as error:
        raise AuthError(
            f"Couldn't run cargo: {one_line(error)}",
            "It knows the workspace's crates. Install it, or correct PATH, and run this again.",
        ) from None
    if cargo.returncode:
        output = [one_line(line) for line in cargo.stderr.decode(errors="replace").split("\n") if line]
        raise AuthError("`cargo metadata` failed", "Fix what cargo reports, and run this again.", output[:20])
    packages = sorted(json.loads(cargo.stdout)["packages"], key=lambda package: package["name"])
    by_folder = {os.path.dirname(package["manifest_path"]): package["name"] for package in packages}
    members = []
    for package in packages:
        normal, dev = set(), set()
        for dependency in package["dependencies"]:
            name = by_folder.get(dependency.get("path"))
            # A crate may depend on itself, so that its tests get more of its features.
            if name is None or name == package["name"]:
                continue
            if dependency["kind"] != "dev":
                normal.add(name)
            elif dependency["req"] != "*":  # cargo leaves out a dev-dependency without a version
                dev.add(name)
        members.append(Crate(package, normal | dev, dev - normal))
    return members


def choose(members: list[Crate], cargo_registry: str, chosen: list[str], excluded: list[str]) -> list[Crate]:
    """Return the crates that may be published to a registry, as --package and --exclude select them.

    Raises AuthError for a name that the workspace doesn't have.
    """
    unknown = {*chosen, *excluded} - {member.name for member in members}
    if unknown:
        raise AuthError(
            f"The workspace has no crate {one_line(', '.join(sorted(unknown)))}",
            "Correct --package and --exclude, or the inputs `packages` and `exclude`.",
        )
    return [
        member
        for member in members
        if member.may_go_to(cargo_registry)
        and (member.name in chosen or not chosen)
        and member.name not in excluded
    ]


def needed_outside(crates: list[Crate], members: list[Crate], cargo_registry: str) -> list[Crate]:
    """Return the members that the crates need from the registry, and that are not published with them.

    A member that may only go to another registry is fetched from there, and so is not included.
    """
    needed = {name for crate in crates for name in crate.needs} - {crate.name for crate in crates}
    return [member for member in members if member.name in needed and member.may_be_on(cargo_registry)]


def report_flaws(ci: CI, crates: list[Crate], outside: list[Crate]) -> None:
    """Set and report the flaws of each crate: what must be corrected before it can be published.

    `outside` are the other members that they need, and that the registry must have already. If the index gave
    no answer about one of these, the state of the crates that need it is unknown, too.
    """
    graph = {crate.name: crate.needs for crate in crates}
    for crate in crates:
        flaws = [*metadata_flaws(crate), *dependency_flaws(crate), *cycle_flaws(crate, graph)]
        for member in [member for member in outside if member.name in crate.needs]:
            if member.is_new:
                absent = "it is not on the registry, and has `publish = false` or is left out here"
                flaws.append(f"dependency {member.name}: {absent}")
            elif member.problem:
                crate.problem = crate.problem or f"dependency {member.name}: {member.problem}"
            elif member.entries is not None and not member.is_published:
                # cargo decides whether one of the other versions fits.
                ci.annotate(
                    "warning",
                    f"{crate.name} needs {member.name}, of which the registry has only other versions\n"
                    f"{member.name} is left out here. If none of them fits, cargo refuses before any upload.",
                )
        crate.flaws = list(dict.fromkeys(flaws))
        if crate.flaws:
            correct = "Correct" if crate.entries is not None else "If it isn't published already, correct"
            cure = f"{correct} {one_line(crate.package['manifest_path'])}, commit, and push a new tag:"
            message = f"{crate.name} can't be published as it is. {cure}"
            ci.annotate("error", "\n  ".join([message, *crate.flaws]))


def metadata_flaws(crate: Crate) -> Iterator[str]:
    """Return the usual reasons why crates.io refuses the metadata of a crate.

    Other registries are assumed to have the same rules.
    https://github.com/rust-lang/crates.io/blob/main/src/controllers/krate/publish.rs
    """
    package = crate.package
    if not package["description"]:
        yield 'description: it is missing, add `description = "…"`'
    if not package["license"] and not package["license_file"]:
        yield 'license: it is missing, add `license = "…"` (an SPDX expression) or `license-file = "…"`'
    for field in ("keywords", "categories"):
        if len(package[field]) > 5:
            yield f"{field}: {len(package[field])} are too many, keep at most 5"
    for keyword in package["keywords"]:
        if not re.fullmatch("[A-Za-z0-9][A-Za-z0-9_+-]{0,19}", keyword):
            rule = "use at most 20 of the characters A-Z, a-z, 0-9, _, - and +, first a letter or a digit"
            yield f"keywords: `{one_line(keyword)}` is refused, {rule}"
    # Not counting the implicit features of optional dependencies.
    features = [name for name, value in package["features"].items() if value != [f"dep:{name}"]]
    # Some crates have a higher limit on crates.io: at least as many as a published version has.
    if len(features) > max(300, most_features(crate.entries or [])):
        yield f"features: {len(features)} are too many, keep at most 300 or ask crates.io for more"


def most_features(entries: list[Any]) -> int:
    """Return the largest number of features that a version of a crate has in the index."""
    most = 0
    for entry in entries:
        maps = [entry.get("features"), entry.get("features2")]
        most = max(most, sum(len(each) for each in maps if isinstance(each, dict)))
    return most


def dependency_flaws(crate: Crate) -> Iterator[str]:
    """Return what crates.io or cargo refuses about the versions of a crate's dependencies.

    A dev-dependency with only a path or a git repository is fine: cargo leaves it out when it publishes.
    """
    for dependency in crate.package["dependencies"]:
        if dependency["req"] != "*":
            continue
        name = one_line(dependency["rename"] or dependency["name"])
        is_local = dependency.get("path") or str(dependency["source"]).startswith("git+")
        if not is_local:
            yield f'dependency {name}: crates.io accepts no version "*", write the one that you need'
        elif dependency["kind"] != "dev":
            yield f'dependency {name}: write `version = "…"`, not `*`, beside its path or its git repository'


def cycle_flaws(crate: Crate, graph: dict[str, set[str]]) -> Iterator[str]:
    """Return the cycles that the dev-dependencies of a crate close in the graph of what each crate needs.

    cargo can't publish crates that depend on each other, even if only their tests do
    (https://github.com/rust-lang/cargo/issues/4242). Only a dev-dependency can close one: cargo doesn't even
    build any other cycle.
    """
    for name in sorted(crate.needs_for_tests):
        path = shortest_path(name, crate.name, graph)
        if path:
            cycle = " -> ".join([crate.name, *path])
            yield f"dev-dependency {name}: remove its version, which closes the cycle {cycle}"


def shortest_path(start: str, goal: str, graph: dict[str, set[str]]) -> list[str]:
    """Return the names on the shortest path through a graph; none if there is no path."""
    paths, seen = [[start]], {start}
    for path in paths:  # a queue: it grows while it is read
        if path[-1] == goal:
            return path
        following = sorted(graph.get(path[-1], set()) - seen)
        seen.update(following)
        paths += [[*path, name] for name in following]
    return []


def about_new_crates(
    new: list[str], unpublished: list[Crate], api_url: str, command: str, deadline: float
) -> str:
    """Return what to do about the new crates among the unpublished ones.

    The registry tells anybody whether a crate accepts only trusted publishing.
    """
    strict = []
    until = min(deadline, time.monotonic() + 20)  # no longer, since this is only a hint
    for crate in unpublished:
        if api_url and not crate.is_new and time.monotonic() < until:
            with contextlib.suppress(AuthError):
                url = f"{registry_url(api_url)}/api/v1/crates/{crate.name}"
                time.sleep(API_PAUSE_SECONDS)
                response = send("GET", url, until)
                if find(response.body, "crate", "trustpub_only") is True:
                    strict.append(crate.name)
    message = f"""\
Not on the registry, and a trusted publisher can't create a crate: {", ".join(new)}
If one isn't meant for the registry, write `publish = false` into its Cargo.toml, commit, and push a new tag.
Otherwise publish an empty version 0.0.0 of it with an ordinary API token, add its trusted publisher, and run
this again. Or publish all that is left with such a token, from this commit on your own machine:
  {command}"""
    if strict:
        message += f"\nFirst allow ordinary tokens in the settings of: {', '.join(strict)}"
    return message


def index_url(cargo_registry: str) -> str:
    """Return the URL of a registry's sparse index. Raises AuthError if it isn't known."""
    variable = f"{variable_prefix(cargo_registry)}_INDEX"
    index = CRATES_IO_INDEXES[0] if cargo_registry == "crates-io" else os.environ.get(variable, "")
    if not index.startswith("sparse+"):
        raise AuthError(
            f"{variable} does not hold the URL of a sparse index",
            "`check` doesn't read cargo's configuration. Set the variable to sparse+https://host/path/.",
        )
    return registry_url(index[len("sparse+") :])


def read_index(index: str, crates: list[Crate], deadline: float) -> str:
    """Find out what an index has about crates, and return the URL of the API that it names, if any.

    Raises AuthError if the index can't be read at all.
    """
    from concurrent.futures import ThreadPoolExecutor  # here, since no other command needs it

    # First and on its own, so that an index that can't be reached is one error, not one for each crate.
    config = fetch("GET", f"{index}/config.json", deadline)
    if not config.ok:
        message = f"Couldn't read the index at {config.host}: {config.problem}"
        raise AuthError(message, "It must be readable without a token.")
    with ThreadPoolExecutor(INDEX_REQUESTS) as pool:
        futures = [
            pool.submit(fetch, "GET", f"{index}/{crate.index_path}", deadline, max_bytes=INDEX_BYTES)
            for crate in crates
        ]
    for crate, future in zip(crates, futures):
        try:
            crate.entries = entries_in(future.result())
        except AuthError as error:
            crate.problem = error.message
    return str(find(config.body, "api") or "")


def entries_in(response: Response) -> list[Any]:
    """Return what an index says of each version of a crate. Raises AuthError if that isn't clear."""
    # As cargo reads such responses: https://doc.rust-lang.org/cargo/reference/registry-index.html#nonexistent-crates
    if response.status in (404, 410, 451):
        return []
    entries = [find(line) for line in response.body.splitlines()]
    are_versions = all(isinstance(entry, dict) and isinstance(entry.get("vers"), str) for entry in entries)
    if response.status != 200 or not entries or not are_versions:
        raise AuthError(f"the index gave no usable response ({response.problem})")
    return entries


def publish_command(exclude: str, cargo_registry: str, manifest_path: str | None) -> str:
    """Return the command that publishes what is left."""
    import shlex  # here, since getting a token doesn't need it

    words = ["cargo", "publish", "--workspace", *exclude.split(), "--registry", shlex.quote(cargo_registry)]
    if manifest_path:
        words += ["--manifest-path", shlex.quote(manifest_path)]
    return printable(" ".join(words)).replace("\n", "?")


def markdown_table(crates: list[Crate], cargo_registry: str) -> str:
    """Return a row for each crate. The reasons are left out: a server's words could be Markdown."""
    rows = ["| Crate | Version | State |", "| --- | --- | --- |"]
    for crate in crates:
        name = f"`{crate.name}`"
        if cargo_registry == "crates-io":
            name = f"[{name}]({CRATES_IO}/crates/{crate.name})"
        rows.append(f"| {name} | {crate.version} | {crate.state} |")
    return "\n".join([*rows, "", NOT_CHECKED, "", ""])


# The command publishers


class PublisherAPI:
    """The registry's API for trusted publishers. GitHub's and GitLab's have different field names."""

    def __init__(self, registry: str, token: str, gitlab: bool) -> None:
        self.token = token
        if gitlab:
            self.config = "gitlab_config"
            self.owner, self.name, self.workflow = "namespace", "project", "workflow_filepath"
        else:
            self.config = "github_config"
            self.owner, self.name, self.workflow = "repository_owner", "repository_name", "workflow_filename"
        self.url = f"{registry}/api/v1/trusted_publishing/{self.config}s"

    def publishers_of(self, crate: str) -> list[Publisher]:
        """Return the trusted publishers of a crate. Raises AuthError."""
        deadline = time.monotonic() + REQUESTS_SECONDS
        found = []
        query = f"?crate={urllib.parse.quote(crate)}&per_page=100"
        while query:
            time.sleep(API_PAUSE_SECONDS)
            response = fetch("GET", self.url + query, deadline, self.token)
            if response.refused:
                raise publisher_error(response)
            configs = find(response.body, f"{self.config}s")
            if not isinstance(configs, list) or not all(isinstance(config, dict) for config in configs):
                raise response.error()
            for config in configs:
                owner, name, workflow = (config.get(key) for key in (self.owner, self.name, self.workflow))
                environment = one_line(config.get("environment") or "")
                found.append(Publisher(one_line(f"{owner}/{name}"), one_line(workflow), environment))
            query = find(response.body, "meta", "next_page") or ""
            if not re.fullmatch(r"(\?[A-Za-z0-9._~%=&+-]*)?", str(query)):
                raise AuthError("the registry's list of trusted publishers has an invalid next_page")
        return found

    def add(self, crate: str, publisher: Publisher) -> None:
        """Add a trusted publisher to a crate. Raises AuthError.

        There is only one attempt: if just its response was lost, another one would add the publisher twice.
        """
        owner, _, name = publisher.repository.rpartition("/")
        config = {
            "crate": crate,
            self.owner: owner,
            self.name: name,
            self.workflow: publisher.workflow,
            "environment": publisher.environment or None,
        }
        deadline = time.monotonic() + REQUESTS_SECONDS
        time.sleep(API_PAUSE_SECONDS)
        response = send("POST", self.url, deadline, self.token, body={self.config: config})
        if response.refused:
            raise publisher_error(response)
        if not response.ok:
            raise response.error()


def publishers(options: argparse.Namespace) -> None:
    """Show which crates of the workspace have the trusted publisher that a release needs, or add it to them.

    Raises AuthError if a crate lacks it at the end.
    """
    registry = registry_url(options.url or CRATES_IO)
    if registry == CRATES_IO and options.registry != "crates-io":
        raise AuthError(
            f"--registry {one_line(options.registry)} needs --url", "Pass the URL of that registry."
        )
    api = PublisherAPI(registry, token_of_maintainer(registry), options.gitlab)
    wanted = wanted_publisher(options)
    crates = publishable_crates(options)
    print(printable(f"The trusted publisher {wanted}, on {registry}:\n"))
    states = dict.fromkeys(crates, "")  # what the table says of each crate
    remarks, missing, unknown = {}, [], []
    for name in crates:
        try:
            matches, remarks[name] = compare(api.publishers_of(name), wanted)
            states[name] = ("matches" if matches else "missing") + remarks[name]
            if not matches:
                missing.append(name)
        except AuthError as error:
            states[name] = error.message
            unknown.append(name)
        print_row(name, states)
    if options.add and missing:
        confirm(len(missing))
        for name in list(missing):
            try:
                api.add(name, wanted)
                missing.remove(name)
                states[name] = "added" + remarks[name]
            except AuthError as error:
                states[name] = error.message
            print_row(name, states)
        print()
        for name in crates:
            print_row(name, states)
    say(f"When you are done, revoke the token: {registry}/settings/tokens")
    lacking = len(missing + unknown)
    if lacking:
        message = f"Crates that lack, or may lack, the trusted publisher {wanted}: {lacking} of {len(crates)}"
        is_addable = missing and not options.add
        hint = (
            "Read the remarks above, then run this again with --add."
            if is_addable
            else "See the reasons above, then run this again."
        )
        raise AuthError(message, hint)


def publishable_crates(options: argparse.Namespace) -> list[str]:
    """Return the names of the crates that may be published. Raises AuthError if there is none."""
    members = workspace_members(options.manifest_path)
    crates = [crate.name for crate in choose(members, options.registry, [], [])]
    if not crates:
        raise AuthError(
            f"No crate of the workspace may go to {one_line(options.registry)}",
            "Name the registry with --registry, or correct `publish` in the Cargo.toml of the crates.",
        )
    return crates


def wanted_publisher(options: argparse.Namespace) -> Publisher:
    """Return the trusted publisher that the options and the repository name. Raises AuthError."""
    folder = os.path.dirname(options.manifest_path or "") or "."
    repository = options.repository or repository_of_origin(
        folder, "gitlab.com" if options.gitlab else "github.com"
    )
    texts = {} if options.gitlab else workflow_texts(folder)
    workflow = options.workflow or (".gitlab-ci.yml" if options.gitlab else publishing_workflow(texts))
    repeat = "+" if options.gitlab else ""  # on GitLab, a project can be in a group of a group
    if not re.fullmatch(rf"[\w.-]+(/[\w.-]+){repeat}(?<!\.git)", repository, re.ASCII):
        raise AuthError(f"{one_line(repository)} is not a repository", "Write it as OWNER/NAME.")
    if "/" in workflow and not options.gitlab:
        raise AuthError(f"{one_line(workflow)} is a path", "Write only the name of the workflow file.")
    if texts and not options.repository and workflow not in texts:
        raise AuthError(
            f"There is no {one_line(workflow)} in .github/workflows",
            "Correct --workflow. If it is in another repository, pass --repository, too.",
        )
    # A publisher that doesn't name the workflow's environment would accept unprotected jobs, too. This is
    # checked with --repository as well: people pass it in a fork, which has the same workflow file.
    key = re.compile(r"""^\s*["']?environment["']?\s*:""", re.MULTILINE)
    if options.environment is None and key.search(texts.get(workflow, "")):
        raise AuthError(
            f"{one_line(workflow)} has an `environment`",
            "Pass it as --environment NAME, or --environment '' if the publisher is to accept any job.",
        )
    return Publisher(repository, workflow, options.environment or "")


def token_of_maintainer(registry: str) -> str:
    """Return the API token in CARGO_REGISTRY_TOKEN. Raises AuthError if it can't be used here."""
    token = secret_in("CARGO_REGISTRY_TOKEN")
    if not token or token.startswith("cio_tp_"):
        what = "holds a temporary token" if token else "is not set"
        raise AuthError(
            f"CARGO_REGISTRY_TOKEN {what}, and `publishers` needs an API token of an owner of the crates",
            f"Make one at {registry}/settings/tokens/new: scope `trusted-publishing`, an expiry date,\n"
            "these crates. Then, in a shell: read -rs CARGO_REGISTRY_TOKEN; export CARGO_REGISTRY_TOKEN",
        )
    return token


def git(*arguments: str) -> str:
    """Return what git prints, which is nothing if it fails."""
    with contextlib.suppress(OSError):
        return run_program("git", *arguments).stdout.decode(errors="replace").strip()
    return ""


def repository_of_origin(folder: str, host: str) -> str:
    """Return the repository of the remote origin, as owner/name. Raises AuthError if it isn't on the host."""
    url = git("-C", folder, "remote", "get-url", "origin")
    user_and_host = rf"([^@/]*@)?{re.escape(host)}"
    # https://github.com/octo/crate.git, or git@github.com:octo/crate.git
    begin = rf"((https?|ssh|git)://{user_and_host}(:[0-9]+)?/|{user_and_host}:/?)"
    found = re.fullmatch(rf"{begin}(?P<name>[^:]+?)(\.git)?/?", url, re.IGNORECASE)
    if not found:
        raise AuthError(
            f"git has no remote origin on {host}", "Name the repository with --repository OWNER/NAME."
        )
    return found["name"]


def workflow_texts(folder: str) -> dict[str, str]:
    """Return the name and the text of each workflow file of the repository that a folder is in."""
    from pathlib import Path  # here, since no other command needs it

    workflows = Path(git("-C", folder, "rev-parse", "--show-toplevel") or folder, ".github", "workflows")
    paths = sorted(path for path in workflows.glob("*.y*ml") if path.is_file())
    return {path.name: path.read_text(encoding="utf-8", errors="replace") for path in paths}


def publishing_workflow(texts: dict[str, str]) -> str:
    """Return the name of the one workflow file that may publish crates, of those in `texts`.

    One that others can call is skipped: the calling one counts. Raises AuthError.
    """
    command = r"cargo( \+\S+)? publish(?![\w-])(?!.* (--dry-run|-n)\b)"
    publishes = re.compile(rf"^[^#\n]*(uses: *\S*crates-io-auth|{command})", re.MULTILINE)
    found = []
    for name, text in texts.items():
        joined = text.replace("\\\n", "")  # a command can go on in the next line
        if publishes.search(joined) and "workflow_call" not in text:
            found.append(name)
    if len(found) != 1:
        which = f"{len(found)} workflow files seem to publish crates: {one_line(', '.join(found))}"
        raise AuthError(
            which if found else "Found no workflow file that clearly publishes crates",
            "Name it with --workflow FILE.",
        )
    return found[0]


def compare(found: list[Publisher], wanted: Publisher) -> tuple[bool, str]:
    """Return whether the wanted publisher is among those of a crate, and a remark about the others.

    As on crates.io, the case of a repository and of an environment doesn't matter. A publisher without an
    environment accepts jobs in any environment, and so is not the same as one with the wanted environment.
    """
    repository, environment = wanted.repository.lower(), wanted.environment.lower()
    for_job = [
        one for one in found if (one.repository.lower(), one.workflow) == (repository, wanted.workflow)
    ]
    matching = [one for one in for_job if one.environment.lower() == environment]
    others = [str(one) for one in found if one not in matching]
    remark = f"; other publishers: {' and '.join(others)}" if others else ""
    if environment and any(not one.environment for one in for_job):
        remark += ". Don't keep the one without an environment: it accepts jobs that are not protected"
    return bool(matching), remark


def confirm(count: int) -> None:
    """Say what adding does. On a terminal, ask whether to go on. Raises AuthError if the answer is no."""
    say(f"Crates: {count}. For each, the registry will e-mail every owner who has a verified address.")
    if sys.stdin and sys.stdin.isatty():
        print("Go on? [y/N] ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise AuthError("Nothing was added")


def publisher_error(response: Response) -> AuthError:
    """Return the error for a refusal: what the response says, and what to do."""
    detail = response.detail.lower()
    if not detail:
        hint = (
            "These are not the registry's own words: check --url, and the proxy or firewall, if there is one"
        )
    elif response.status == 404:
        hint = "Publish a first version of the crate"
    elif response.status == 409:
        hint = "Remove one of the crate's publishers first"
    elif "not an owner" in detail:
        hint = "An owner must do this; belonging to a team that owns it isn't enough"
    elif "email" in detail or "github account" in detail:
        hint = f"Do this in your settings on {response.host}"
    elif response.status in (401, 403):
        hint = "The token needs the scope `trusted-publishing`, for this crate"
    else:
        hint = "Correct it, and run this again"
    return AuthError(f"refused ({response.problem}). {hint}")


if __name__ == "__main__":
    # Not sys.exit: all is written, and tearing the interpreter down would take 10 ms.
    os._exit(run(sys.argv[1:]))
