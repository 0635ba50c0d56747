#!/usr/bin/env python3
"""Get a temporary crates.io access token in CI, without a stored secret, and revoke it.

    crates_io_auth.py [main] [--url URL]    get an access token and hand it over
    crates_io_auth.py post                  revoke every access token that this job got
    crates_io_auth.py --cargo-plugin        be cargo's credential provider: a token just in time

This is crates.io's "trusted publishing" (https://crates.io/docs/trusted-publishing). The job proves
who it is with a short-lived *identity token* (an OIDC JWT), made for one *audience*. The *registry*
exchanges it for an *access token*, with which cargo publishes and which expires after 30 minutes.
Each access token goes into the job's *record* the moment it is read, so that a later process can
revoke it, whatever happened in between.

This file needs nothing but Python, and is installed by copying it. It reads from top to bottom: what
the user reads, failing, which registry, the wire, who am I, the record, what the registry gives and
takes back, cargo, main, post, the command line.
"""

from __future__ import annotations

import signal

if __name__ == "__main__":  # end without a traceback, until `run` has its own way
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import _thread  # of which `threading` is made, for 0.2 MiB more
import base64
import contextlib
import functools
import importlib
import os
import random
import re
import stat
import sys
import tempfile
import time
import types

# What costs more than all of these (urllib.request, ssl, json) is imported where it is needed, and
# typing (https://typing.python.org/en/latest/spec/directives.html#type-checking) not at all.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO, Any, Callable, Iterator, TypeVar

    T = TypeVar("T")

__version__ = "1.0.0"

USAGE = "usage: crates_io_auth.py [main] [--url URL] | post | --cargo-plugin | --help | --version"

CRATES_IO = "https://crates.io"
TOKENS = "/api/v1/trusted_publishing/tokens"
SECRET = r"[!#-[\]-~]+"  # visible ASCII, but no quotation mark or backslash

REQUEST_SECONDS = 30  # for one request, from looking up the host to the last byte
ANSWER_BYTES = 1024 * 1024
BACKOFF_SECONDS = (1, 2, 4)  # between four tries
RETRY_AFTER_SECONDS = 30  # the longest wait that Retry-After can ask for
FRESH_SECONDS = 25 * 60  # the age up to which an access token is good for one more upload
GRACE_SECONDS = 3  # for an answer on its way when the job is cancelled: GitHub kills after 10

# What the user reads, in one voice: a line that says what happened, then why, and what to do now.
# Only `words` fills in the {places}.

GOT_ON_GITHUB = """\
Got an access token for the audience {audience} from {registry}.
It is masked in this log and handed over as the output `token`.
It will be revoked when the job ends."""

GOT_ELSEWHERE = """\
Got an access token for the audience {audience} from {registry}.
It is on stdout, and nothing masks it: keep it out of the log.
Revoke it at the end of the job: crates_io_auth.py post"""

REVOKED = "Revoked an access token at {registry}."

TRY_AGAIN = "{problem}. Trying again in {seconds} s."

BAD_URL = """\
A secret must not be sent to {url}
A registry is https://host, maybe with a port and a path, in plain ASCII.
It has no user name, query or fragment. Plain http is for this machine alone (localhost, 127.0.0.0/8,
[::1]). Correct the input `url`, --url or INPUT_URL. Nothing was sent."""

BAD_SECRET = """\
What is in {variable} is not a token
A token is one line of visible ASCII characters, without quotes.
Look at where the variable is set. What is in it is sent nowhere."""

NO_PERMISSION = """\
This job may not ask GitHub for an identity token
Give the job this permission, and run it again (`permissions` takes away whatever it does not name):
  permissions:
    contents: read
    id-token: write"""

FORK = """\
A pull request from a fork never gets an identity token
GitHub gives it none, whatever `permissions` say, so that a stranger can't publish in your name.
Publish from a push, a tag or a release in the repository itself."""

NO_VARIABLE = """\
There is no identity token in {variable}
On GitLab, add this to the job:
  id_tokens:
    {variable}:
      aud: {audience}
In any other CI, set {variable} to an OIDC token for the audience {audience}."""

NO_ANSWER = """\
No usable answer from {host}
{reason}
If {host} works for others, look at this machine's network and proxy (HTTPS_PROXY, NO_PROXY). If the
registry has moved, use its new URL. Then run the job again."""

BAD_CERTIFICATE = """\
The certificate of {host} is not trusted
{reason}
No secret was sent. If a proxy with a certificate of its own is meant to be in between, name a file with
that certificate in SSL_CERT_FILE. If not, someone may be listening."""

REFUSED = """\
{host} refused the identity token
{reason}
A trusted publisher of the crate must match what the identity token claims:
  {claims}
Compare them in the crate's settings, {registry}/crates/<crate>/settings, and run the job again.
The first version of a crate can't be published this way: publish it with an ordinary API token.
An identity token works once: where a job has just one, only a new job has a new one."""

NOT_REVOKED = "{host} did not revoke the access token\n{reason}"

STILL_ALIVE = """\
An access token may still be alive
  {reasons}
Run `crates_io_auth.py post` (again) for what is in the record. crates.io ends an access token 30 minutes
after it was made, in any case."""

DAMAGED = """\
The record {path} is damaged
All access tokens that could be read are revoked. If there was another one in it, crates.io ends that 30
minutes after it was made. Remove the file then."""

UNSAFE = """\
Access tokens can't be recorded in {path}
{reason}. The place must be this user's own, open to nobody else, and no link.
If someone put it there, find out who. Remove it, and run this again."""

MACHINE = """\
This machine can't do what is needed
{reason}
Mend that, and run it again."""

CANCELLED = """\
Cancelled
What this step had got from a registry is revoked, or left to `crates_io_auth.py post`."""

PROVIDER = """\
cargo asks for an access token when it uploads: {variable} is set for the next steps.
Every access token that it gets will be revoked when the job ends."""

NO_PROVIDER = """\
cargo can't be given tokens just in time here
cargo can start this script only on Linux and macOS, and from a path without spaces. Not so here:
{platform}, {path}
Leave out `credential-provider`, and use the output `token` instead."""

TOKEN_IGNORED = """\
{variable} is set, and cargo ignores it
cargo asks for a token just in time instead. Take the variable out: every build script can read it."""

BAD_INDEX = "{host} did not say which registry its index belongs to\n{reason}"

FOREIGN_API = """\
The index at {host} names a registry elsewhere: {api}
A token for one registry must not get into the hands of another. With such an index, get the token as an
output, or with `crates_io_auth.py --url`, instead of through cargo."""

CHECKED = """\
{registry} gives this job access tokens; the one of this trial is already revoked.
cargo gets a new one when it uploads."""

UNUSABLE = """\
The identity token for {audience} can't be used
It has expired, or it is not a JWT with a time of expiry. Run the job again to get a new one."""

NOT_CARGO = """\
This is not a request of cargo that crates_io_auth.py knows
It speaks version 1 of cargo's credential provider protocol. cargo starts it by itself, when
CARGO_REGISTRY_CREDENTIAL_PROVIDER names it."""

BUG = """\
crates_io_auth.py failed unexpectedly: {kind} in lines {lines}
Please report these lines. Access tokens are in the record: `crates_io_auth.py post` revokes them."""


def printable(text: object) -> str:
    """Return what comes from outside as harmless words within a line, at most 500 characters.

    They can't start a line, move the cursor or hide (line breaks, control and format characters), hold
    the one workflow command that the runner obeys within a line, ##[ (actions/runner,
    ActionCommand.TryParse), or show what has the form of an identity or access token.
    """
    # Nothing repeated within a repetition: what backtracks for long is a way to hang the job.
    line = re.sub(r"eyJ[\w.-]+|cio_tp_\w+", "***", str(text))
    line = " ".join(line.split()).replace("##[", "# #[")
    line = "".join(character if character.isprintable() else "?" for character in line)
    return line if len(line) <= 500 else line[:500] + "..."


def words(template: str, **outside: object) -> str:
    """Return one of the texts above with its places filled in; a list becomes a line for each entry."""
    safe = {}
    for place, value in outside.items():
        safe[place] = "\n  ".join(map(printable, value if isinstance(value, list) else [value]))
    return template.format(**safe)


class AuthError(Exception):
    """Something that the user can act on. Its text is a title and the lines that explain it."""

    def __init__(self, template: str, **outside: object) -> None:
        super().__init__(words(template, **outside))


class TryAgain(AuthError):
    """An error that may pass by itself, after `wait` seconds if the other side said so."""

    wait: float | None = None


def on_github() -> bool:
    """Tell whether this is a step of GitHub Actions."""
    return os.environ.get("GITHUB_ACTIONS") == "true"


def say(text: str) -> None:
    """Print lines on stderr, if it takes them; stdout is for the access token."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def mask(secret: str) -> None:
    """Have GitHub's runner hide a secret in all that is printed later. Raises OSError if it can't."""
    if on_github():
        print("::add-mask::" + secret.replace("%", "%25"), file=sys.stderr, flush=True)


def annotate(level: str, text: str) -> None:
    """Say a title and its explanation; on GitHub as an annotation of that level, error or warning."""
    if not on_github():
        return say(f"{level}: {text}")
    title, _, explanation = text.replace("%", "%25").partition("\n")
    title = title.replace(":", "%3A").replace(",", "%2C")
    say(f"::{level} title={title}::" + explanation.replace("\n", "%0A"))


# Failing, and being cancelled


class Cancelled(BaseException):
    """SIGINT or SIGTERM, on its way to the end of this process."""


def ignore_signals() -> None:
    """Let nothing but SIGKILL interrupt what is done from now on."""
    for number in (signal.SIGINT, signal.SIGTERM):
        # Not SIG_IGN: if both signals are under way, Python prints a traceback for the second.
        signal.signal(number, lambda *_: None)


def cancel(*_: object) -> None:
    """Obey only the first SIGINT or SIGTERM, so that no other one interrupts the clean-up."""
    ignore_signals()
    raise Cancelled(CANCELLED)


def explanation_of(error: BaseException) -> str:
    """Return what to tell the user about any exception. Python's own traceback could show a secret."""
    if isinstance(error, (AuthError, Cancelled)):
        return str(error)
    if isinstance(error, OSError):
        return words(MACHINE, reason=error)
    from traceback import walk_tb

    lines = ", ".join(str(line) for _, line in walk_tb(error.__traceback__))
    return words(BUG, kind=type(error).__name__, lines=lines)


def brief(error: BaseException) -> str:
    """Return the title of an explanation and the line that says why, in one line."""
    return ": ".join(explanation_of(error).split("\n")[:2])


# Which registry

# A list of what is allowed: parsers like urlsplit drop what they don't like, and let the rest pass.
URL = re.compile(
    r"(?P<origin>(?P<scheme>https?)://"
    r"(?P<host>[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*|\[[0-9a-f:]+\])"
    r"(?::(?P<port>[0-9]{1,5}))?)"
    r"(?P<path>/[a-z0-9._~!$&'()*+,;=:@%/-]*)?"
    r"(?P<query>\?[a-z0-9._~!$&'()*+,;=:@%/?-]*)?",
    re.ASCII | re.IGNORECASE,
)
THIS_MACHINE = r"localhost|127(\.(25[0-5]|2[0-4][0-9]|1?[0-9]?[0-9])){3}|\[::1\]"


def url_parts(url: str) -> re.Match[str]:
    """Return the parts of a URL that a secret may be sent to. Raises AuthError for any other."""
    parts = URL.fullmatch(url)
    if (
        not parts
        or not 0 < int(parts["port"] or 443) < 65536
        or (parts["scheme"].lower() == "http" and not re.fullmatch(THIS_MACHINE, parts["host"].lower()))
    ):
        raise AuthError(BAD_URL, url=re.sub(r"(?s)\A.*@", "***@", url))  # before an @ may be a password
    return parts


def registry_url(text: str | None = None) -> str:
    """Return a registry's URL, with a scheme (https for a bare host) and no slash at its end.

    Without a text it is the one in the input `url`, else crates.io. Raises AuthError if it is none.
    """
    if text is None:
        text = os.environ.get("INPUT_URL") or CRATES_IO
    parts = url_parts(text if "://" in text else f"https://{text}")
    if parts["query"]:
        raise AuthError(BAD_URL, url=text)
    return parts["origin"].lower() + (parts["path"] or "").rstrip("/")


def audience_of(registry: str) -> str:
    """Return the audience of identity tokens for a registry: its URL without the scheme."""
    return registry.partition("://")[2]


# On the wire


def dig(text: bytes, *path: str | int) -> Any:
    """Return what JSON text holds at `path`; None if it is not JSON, or has another shape."""
    import json

    try:
        value = json.loads(text)
        for step in path:
            value = value[step]
        return value
    except (ValueError, RecursionError, LookupError, TypeError):
        return None


def line_of(value: object) -> str:
    """Return a value as a line of JSON."""
    import json

    return json.dumps(value) + "\n"


def is_secret(value: object) -> bool:
    """Tell whether a value is one line of visible ASCII: it can't start a header, an output or a command."""
    return isinstance(value, str) and re.fullmatch(SECRET, value) is not None


def environment_secret(variable: str) -> str:
    """Return the secret in an environment variable, "" for none. Raises AuthError for nonsense."""
    secret = os.environ.get(variable, "")
    if secret and not is_secret(secret):
        raise AuthError(BAD_SECRET, variable=variable)
    return secret


def without(secret: str, text: str) -> str:
    """Return a text of the other side, which may repeat the secret that was sent, if there was one."""
    return text.replace(secret, "***") if secret else text


class Answer(types.SimpleNamespace):
    """An answer of any status, to a request with a secret or ""."""

    host: str
    secret: str
    status: int
    headers: Any
    body: bytes

    def error(self, refused: str = "", **outside: object) -> AuthError:
        """Return the error for what is no success: it may pass, or is final, with `refused` for its text."""
        if self.status < 300:
            says = "no token"  # or half of one, that must not be shown
        elif self.status < 400:
            says = f"go to {self.headers['Location']} (a secret is never sent on to another address)"
        else:
            says = str(dig(self.body, "errors", 0, "detail") or self.body.decode(errors="replace"))
        outside.update(host=self.host, reason=f"It answered HTTP {self.status}: {without(self.secret, says)}")
        if refused and 300 <= self.status < 500 and self.status not in (408, 429):
            return AuthError(refused if self.status >= 400 else NO_ANSWER, **outside)
        again = TryAgain(NO_ANSWER, **outside)
        again.wait = retry_after(self.headers.get("Retry-After", ""))
        return again

    def content(self, refused: str, *fine: int, **outside: object) -> bytes:
        """Return the body of a success, or of a status that is `fine` too. Raises `error` for any other."""
        if not 200 <= self.status < 300 and self.status not in fine:
            raise self.error(refused, **outside)
        return self.body

    def token(self, name: str, refused: str = "", **outside: object) -> str:
        """Return the token under `name` in a success. Raises `error` for anything else."""
        token = dig(self.content(refused, **outside), name)
        if not is_secret(token):
            raise self.error()
        return str(token)


def retry_after(value: str) -> float | None:
    """Return the seconds that a Retry-After header asks for, as number or date; None if it doesn't."""
    from email.utils import parsedate_to_datetime

    try:
        seconds = int(value) if value.isdigit() else parsedate_to_datetime(value).timestamp() - time.time()
    except Exception:  # of the odd date "1 Jan 2001 00.00.00.00" Python 3.8 makes an UnboundLocalError
        return None
    return min(seconds, RETRY_AFTER_SECONDS) if seconds >= 0 else None


@functools.lru_cache
def opener() -> Any:
    """Return the one opener of this run, with its one TLS context.

    Without urllib's handlers for redirects and errors each answer comes back as it is. Only https goes
    through a proxy: http is for this machine.
    """
    import ssl
    import urllib.request

    director = urllib.request.OpenerDirector()
    proxies = urllib.request.getproxies()
    proxies.pop("http", None)
    director.add_handler(urllib.request.ProxyHandler(proxies))
    director.add_handler(urllib.request.HTTPHandler())
    director.add_handler(urllib.request.HTTPSHandler(context=ssl.create_default_context()))
    return director


def transfer(method: str, url: str, secret: str, content: object) -> Answer:
    """Send one request, and return the answer. Raises TryAgain, or AuthError for a bad certificate or URL."""
    import http.client
    import ssl
    import urllib.request

    host = url_parts(url)["host"]
    headers = {"User-Agent": f"crates-io-auth/{__version__}"}
    body = None
    if content:
        headers["Content-Type"] = "application/json"
        body = line_of(content).encode()
    elif secret:
        headers["Authorization"] = f"Bearer {secret}"
    received = b""
    try:
        with opener().open(urllib.request.Request(url, body, headers, method=method)) as response:
            # After a whole token the end may be broken, or never come; a token that is lost can't be revoked.
            with contextlib.suppress(OSError, ArithmeticError, http.client.HTTPException):
                while dig(received) is None and (piece := response.read1(ANSWER_BYTES - len(received))):
                    received += piece
            return Answer(
                host=host, secret=secret, status=response.status, headers=response.headers, body=received
            )
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise AuthError(BAD_CERTIFICATE, host=host, reason=reason.verify_message) from None
        reason = without(secret, f"{type(reason).__name__}: {reason}")
        raise TryAgain(NO_ANSWER, host=host, reason=reason) from None


def send(
    method: str,
    url: str,
    secret: str = "",
    content: object = None,
    keep: Callable[[Answer], object] = lambda answer: None,
) -> Answer:
    """Send one request, and return the answer, all within REQUEST_SECONDS.

    The secret goes along as bearer, or is in the content, which is sent as JSON. A thread does it all:
    Python's own time-out starts anew with each byte; and signals interrupt the main thread alone, so that
    `keep` always gets to record the token in an answer. Raises what `keep` raises, AuthError, and TryAgain.
    """
    opener()  # loading the certificates is not the other side's fault
    answers: list[Answer] = []
    errors: list[BaseException] = []
    working = _thread.allocate_lock()
    working.acquire()

    def work() -> None:
        if sys.platform != "win32":  # else the main thread may sleep on while this one gets the signal
            signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
        try:
            answer = transfer(method, url, secret, content)
            keep(answer)
            answers.append(answer)
        except BaseException as error:
            errors.append(error)
        working.release()

    try:
        _thread.start_new_thread(work, ())
        working.acquire(timeout=REQUEST_SECONDS)
    except Cancelled:
        working.acquire(timeout=GRACE_SECONDS)
        raise
    if errors:
        raise errors[0]
    if answers:
        return answers[0]
    reason = f"It took more than {REQUEST_SECONDS} s"
    raise TryAgain(NO_ANSWER, host=url_parts(url)["host"], reason=reason)


def persist(attempt: Callable[[], T]) -> T:
    """Return what one of four attempts returns. Raises AuthError for what is final, and the last TryAgain."""
    for backoff in BACKOFF_SECONDS:
        try:
            return attempt()
        except TryAgain as again:
            seconds = backoff * random.uniform(0.75, 1.25) if again.wait is None else again.wait
            say(words(TRY_AGAIN, problem=brief(again), seconds=round(seconds, 1)))
            time.sleep(seconds)
    return attempt()


# Who am I


def identity_token(registry: str) -> str:
    """Return a masked identity token for a registry. Raises AuthError when there is none to be had.

    GitHub makes a new one each time. Whatever else it answers can pass, even a 403
    (hashicorp/vault-action#525).
    """
    audience = audience_of(registry)
    if on_github():
        from urllib.parse import quote

        url, request_token = github_endpoint()
        url += "&audience=" + quote(audience, safe="")
        token = send("GET", url, request_token).token("value")
    else:
        token = ambient_identity_token(audience)
    mask(token)
    return token


def github_endpoint() -> tuple[str, str]:
    """Return where to ask GitHub, and the secret for it, which only jobs with the permission know."""
    url = os.environ.get("ACTIONS_ID_TOKEN_REQUEST_URL")
    request_token = environment_secret("ACTIONS_ID_TOKEN_REQUEST_TOKEN")
    if url and request_token:
        return url, request_token
    with contextlib.suppress(OSError), open(os.environ.get("GITHUB_EVENT_PATH", ""), "rb") as event:
        if dig(event.read(), "pull_request", "head", "repo", "fork") is True:
            raise AuthError(FORK)
    raise AuthError(NO_PERMISSION)


def ambient_identity_token(audience: str) -> str:
    """Return the identity token that the CI put into a variable, named as in PyPA's `id` library."""
    variable = re.sub(r"[^A-Z0-9_]|^[0-9]", "_", audience.upper()) + "_ID_TOKEN"
    token = environment_secret(variable)
    if not token:
        raise AuthError(NO_VARIABLE, variable=variable, audience=audience)
    return token


CLAIMS = {  # as the user knows them, of GitHub and of GitLab
    "repository": "repository",
    "workflow_ref": "workflow file",
    "project_path": "project",
    "ci_config_ref_uri": "CI file",
    "environment": "environment",
    "ref": "ref",
    "event_name": "event",
}


def claim_of(identity: str, name: str) -> Any:
    """Return what an identity token claims, unverified; None if it does not, or is no JWT."""
    with contextlib.suppress(ValueError, IndexError):
        return dig(base64.urlsafe_b64decode(identity.split(".")[1] + "=="), name)
    return None


def claims_of(identity: str) -> list[str]:
    """Return what an identity token claims about the job, a line a claim, for the user to compare."""
    claims = {label: claim_of(identity, name) for name, label in CLAIMS.items()}
    claims["environment"] = claims["environment"] or "(none)"
    return [f"{label}: {claim}" for label, claim in claims.items() if isinstance(claim, str)]


# The record


class Grant(types.SimpleNamespace):
    """An access token, the URL of the registry that gave it, and when (UNIX time, seconds).

    The time is 0 for a token that is not to be used again.
    """

    registry: str
    token: str
    minted: int


# As `Record.add` writes it. Before it there may be the beginning of another one, cut off by a full disk.
LINE = rf'\{{"registry": "({SECRET})", "token": "({SECRET})", "minted": ([0-9]{{1,15}})\}}'


def put(file: IO[bytes], line: str, name: str) -> None:
    """Write a line at once, so that no other process comes between. Raises AuthError that names the file."""
    content = os.fsencode(line)
    try:
        written = file.write(content)
    except OSError as error:
        raise AuthError(MACHINE, reason=f"{name}: {error.strerror}") from None
    if written != len(content):
        raise AuthError(MACHINE, reason=f"{name} takes only a part of a line")


def runner_path(variable: str) -> str:
    """Return a path that GitHub's runner gives every step. Raises AuthError if it is missing."""
    path = os.environ.get(variable)
    if not path:
        raise AuthError(MACHINE, reason=f"{variable} is not set; GitHub's runner sets it in every step")
    return path


def open_for_runner(variable: str) -> IO[bytes]:
    """Return a file that the runner made for this step, to append to. Raises AuthError or OSError.

    It is not made here: the runner would never read it.
    """
    return os.fdopen(os.open(runner_path(variable), os.O_WRONLY | os.O_APPEND), "ab", 0)


def check_owner(path: str, status: os.stat_result, kind: int) -> None:
    """Raise AuthError if a file or folder is of another kind, not this user's own, or open to others."""
    ours = sys.platform == "win32" or (status.st_uid == os.geteuid() and not status.st_mode & 0o077)
    linked = kind == stat.S_IFREG and status.st_nlink > 1
    if stat.S_IFMT(status.st_mode) != kind or linked or not ours:
        raise AuthError(UNSAFE, path=path, reason="It is a link, or someone else's, or open to others")


def record_path() -> str:
    """Return where the record lies: on GitHub in the job's folder, else in the user's, with a file a job."""
    if on_github():
        return os.path.join(runner_path("RUNNER_TEMP"), "crates-io-auth.jsonl")
    # Not tempfile.gettempdir: its answer changes when a disk is full, and `post` must find what `main` wrote.
    temporary = os.environ.get("TMPDIR") or os.environ.get("TEMP") or "/tmp"
    folder = os.path.join(temporary, "crates-io-auth")
    if sys.platform != "win32":  # where each user has a temporary folder of their own
        folder += f"-{os.geteuid()}"
    os.makedirs(folder, 0o700, exist_ok=True)
    check_owner(folder, os.lstat(folder), stat.S_IFDIR)
    job = re.sub(r"[^A-Za-z0-9-]", "_", os.environ.get("CI_JOB_ID") or "job")
    return os.path.join(folder, f"{job}.jsonl")


class Record:
    """The file with a line of JSON for each access token of this job that is to be revoked.

    Only its owner can read it. Any number of processes may use it at once: they only ever append a line,
    or take one out by writing spaces over it.
    """

    def __init__(self) -> None:
        self.own: list[Grant] = []  # what this process got, recorded or not
        self.path = record_path()

    def open(self, flags: int = 0) -> IO[bytes]:
        """Return the file, made if need be, closed to others. Raises AuthError if it is not the user's."""
        flags |= os.O_RDWR | os.O_CREAT
        for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"):  # the last is for Windows, the others are not
            flags |= getattr(os, name, 0)
        try:
            descriptor = os.open(self.path, flags, 0o600)
            os.chmod(self.path, 0o600)
        except OSError as error:
            raise AuthError(UNSAFE, path=self.path, reason=error.strerror) from None
        check_owner(self.path, os.fstat(descriptor), stat.S_IFREG)
        return os.fdopen(descriptor, "r+b", 0)

    def add(self, grant: Grant) -> None:
        """Append one access token. Raises AuthError, for a full disk, say."""
        with self.open(os.O_APPEND) as file:
            put(file, line_of(vars(grant)), self.path)

    def read(self) -> str:
        """Return what is in it. Nonsense in it stays nonsense."""
        with self.open() as file:
            return file.read().decode("ascii", "replace")

    def grants(self) -> list[Grant]:
        """Return the access tokens in it, but not what is damaged."""
        found = re.findall(LINE, self.read())
        return [Grant(registry=url, token=token, minted=int(minted)) for url, token, minted in found]

    def fresh(self, registry: str) -> Grant | None:
        """Return an access token of a registry that is good for one more upload, if there is one."""
        for grant in self.grants():
            if grant.registry == registry and grant.minted <= time.time() < grant.minted + FRESH_SECONDS:
                return grant
        return None

    def remove(self, grant: Grant) -> None:
        """Take an access token out."""
        with self.open() as file:
            for line in re.finditer(LINE.encode(), file.read()):
                if (line[1].decode(), line[2].decode()) == (grant.registry, grant.token):
                    file.seek(line.start())
                    put(file, " " * len(line[0]), self.path)


# What the registry gives and takes back


def exchange(registry: str, identity: str, record: Record, minted: int) -> Grant:
    """Exchange an identity token for an access token, and record that at once.

    Raises AuthError if the registry refuses, TryAgain if it fails: the identity token may be used up.
    """

    def keep(answer: Answer) -> None:
        token = answer.token("token", REFUSED, registry=registry, claims=claims_of(identity))
        record.own.append(Grant(registry=registry, token=token, minted=minted))
        record.add(record.own[-1])

    send("POST", registry + TOKENS, identity, {"jwt": identity}, keep)
    return record.own[-1]


def mint(registry: str, record: Record, minted: float) -> Grant:
    """Return a new access token, recorded as of `minted`, and masked. Raises AuthError or OSError."""
    record.open().close()  # what can't be recorded must not be made
    grant = persist(lambda: exchange(registry, identity_token(registry), record, int(minted)))
    mask(grant.token)
    return grant


def revoke(grant: Grant) -> None:
    """Revoke an access token; one that its registry does not know is as good. Raises AuthError."""
    url = registry_url(grant.registry) + TOKENS
    persist(lambda: send("DELETE", url, grant.token).content(NOT_REVOKED, 401, 404))
    say(words(REVOKED, registry=grant.registry))


def revoke_all(grants: list[Grant], record: Record) -> None:
    """Revoke access tokens, and take them out of the record. Raises AuthError for those that are left."""
    errors = []
    for grant in grants:
        try:
            revoke(grant)
            record.remove(grant)
        except Exception as error:  # one that fails does not stop the others, whatever it was
            errors.append(brief(error))
    if errors:
        raise AuthError(STILL_ALIVE, reasons=errors)


@contextlib.contextmanager
def revoked_on_failure(record: Record) -> Iterator[None]:
    """Revoke what this process got if the block fails or is cancelled."""
    try:
        yield
    except BaseException:
        ignore_signals()  # what is in no record can only be revoked here and now
        try:
            revoke_all(record.own, record)
        except AuthError as error:
            say(str(error))
        raise


# cargo: a token just in time

NO_TOKEN = "the-upload-will-ask-for-one"
INDEXES_OF_CRATES_IO = ("sparse+https://index.crates.io/", "https://github.com/rust-lang/crates.io-index")


def cargo_plugin() -> None:
    """Answer one request of cargo, in version 1 of its protocol for credential providers.

    https://doc.rust-lang.org/cargo/reference/credential-provider-protocol.html
    """
    with open(0, "rb") as requests, open(1, "wb", buffering=0) as answers:
        put(answers, '{"v":[1]}\n', "stdout")
        request = requests.readline(ANSWER_BYTES)
        try:
            record = Record()
            with revoked_on_failure(record):
                put(answers, line_of(answer_cargo(request, record)), "stdout")
        except Exception as error:
            refusal = {"Err": {"kind": "other", "message": explanation_of(error)}}
            put(answers, line_of(refusal), "stdout")


def answer_cargo(request: bytes, record: Record) -> dict[str, object]:
    """Return the answer to a request of cargo. Raises AuthError or OSError for what the user must know."""
    kind, operation = dig(request, "kind"), dig(request, "operation")
    index = dig(request, "registry", "index-url")
    if dig(request, "v") != 1 or not kind or not isinstance(index, str):
        raise AuthError(NOT_CARGO)
    if kind != "logout" and (kind != "get" or operation not in ("read", "publish")):
        return {"Err": {"kind": "operation-not-supported"}}
    found = registry_of_index(index)
    if found is None:
        return {"Err": {"kind": "url-not-supported"}}  # cargo asks the next provider
    registry, reading_needs_token = found
    if kind == "logout":
        revoke_all([grant for grant in record.grants() if grant.registry == registry], record)
        return {"Ok": {"kind": "logout"}}
    # So that cargo asks anew for each upload: what it got for reading must not serve for one.
    answer: dict[str, object] = {"kind": "get", "operation_independent": False, "cache": "never"}
    if operation == "read" and not reading_needs_token:
        answer["token"] = token_of_trial(registry, record)
    else:
        grant = record.fresh(registry) or mint(registry, record, time.time())
        answer.update(token=grant.token, cache="expires", expiration=grant.minted + FRESH_SECONDS)
    return {"Ok": answer}


def registry_of_index(index: str) -> tuple[str, bool] | None:
    """Return the registry of an index, and whether reading it needs a token; None if it names none.

    https://doc.rust-lang.org/cargo/reference/registry-index.html
    """
    if index in INDEXES_OF_CRATES_IO:
        return CRATES_IO, False
    if not index.startswith("sparse+"):
        return None
    url = index[len("sparse+") :].rstrip("/") + "/config.json"
    config = persist(lambda: send("GET", url).content(BAD_INDEX, 404))
    api = dig(config, "api")
    if not isinstance(api, str):
        return None
    registry = registry_url(api)
    # Else an index could have the script mint for another registry, and cargo send the token to its own.
    host, owner = url_parts(url)["host"].lower(), url_parts(registry)["host"]
    if host != owner and not host.endswith(f".{owner}"):
        raise AuthError(FOREIGN_API, host=host, api=registry)
    return registry, dig(config, "auth-required") is True


def token_of_trial(registry: str, record: Record) -> str:
    """Return a dead token, after making sure that an upload will get a live one.

    cargo asks for it before it builds, and sends it nowhere. No access token must be alive while build
    scripts run (rust-lang/cargo#15743). Raises AuthError if an upload would get none.
    """
    if on_github():
        grant = mint(registry, record, minted=0)
        revoke_all([grant], record)
        say(words(CHECKED, registry=registry))
        return grant.token
    # Elsewhere an identity token works once: look at it alone, unless it has been exchanged already.
    if not record.fresh(registry):
        audience = audience_of(registry)
        expires = claim_of(ambient_identity_token(audience), "exp")
        if not isinstance(expires, (int, float)) or expires < time.time():
            raise AuthError(UNUSABLE, audience=audience)
    return NO_TOKEN


def set_up_cargo(name: str) -> None:
    """Have cargo ask this script for tokens of the registry that it calls `name`, in the next steps."""
    import shlex

    github_endpoint()
    folder = runner_path("RUNNER_TEMP")
    if sys.platform == "win32" or len(folder.split()) > 1:
        raise AuthError(NO_PROVIDER, platform=sys.platform, path=folder)
    registry = "REGISTRY" if name == "crates-io" else "REGISTRIES_" + re.sub(r"[^A-Z0-9]", "_", name.upper())
    variable = f"CARGO_{registry}_CREDENTIAL_PROVIDER"
    token = f"CARGO_{registry}_TOKEN"
    if os.environ.get(token):
        annotate("warning", words(TOKEN_IGNORED, variable=token))
    descriptor, launcher = tempfile.mkstemp(prefix="crates-io-auth-for-cargo-", dir=folder)
    with os.fdopen(descriptor, "wb", 0) as file:
        command = f"{shlex.quote(sys.executable)} -I -S {shlex.quote(os.path.abspath(__file__))}"
        put(file, f'#!/bin/sh\nexec {command} "$@"\n', launcher)
    os.chmod(launcher, 0o700)
    with open_for_runner("GITHUB_ENV") as variables:
        put(variables, f"{variable}={launcher}\n", "GITHUB_ENV")
    say(words(PROVIDER, variable=variable))


# main: a token in, a token out


def main(url: str | None = None) -> None:
    """Get an access token from the registry at `url` and hand it over. Raises AuthError or OSError."""
    if os.environ.get("INPUT_CREDENTIAL_PROVIDER") == "true":
        return set_up_cargo(os.environ.get("INPUT_REGISTRY") or "crates-io")
    registry = registry_url(url)
    record = Record()
    output = open_for_runner("GITHUB_OUTPUT") if on_github() else os.fdopen(os.dup(1), "wb", 0)
    with output, revoked_on_failure(record):
        token = mint(registry, record, time.time()).token
        got, line = (GOT_ON_GITHUB, f"token={token}\n") if on_github() else (GOT_ELSEWHERE, f"{token}\n")
        say(words(got, audience=audience_of(registry), registry=registry))
        put(output, line, "GITHUB_OUTPUT" if on_github() else "stdout")


# post: nothing left behind


def post() -> None:
    """Revoke every access token in the record, and a temporary one in CARGO_REGISTRY_TOKEN.

    Raises AuthError when one is left over; the others are revoked all the same.
    """
    record = Record()
    grants = record.grants()
    token = os.environ.get("CARGO_REGISTRY_TOKEN", "")
    try:
        if token.startswith("cio_tp_") and token not in [grant.token for grant in grants]:
            token = environment_secret("CARGO_REGISTRY_TOKEN")
            grants.append(Grant(registry=registry_url(), token=token, minted=0))
    finally:
        revoke_all(grants, record)
    if re.sub(LINE, "", record.read()).strip():
        raise AuthError(DAMAGED, path=record.path)


# The command line


def explain(error: BaseException) -> None:
    """Tell the user what ended the task; on GitHub also in the summary of the step."""
    text = explanation_of(error)
    annotate("error", text)
    with contextlib.suppress(OSError), open(os.environ.get("GITHUB_STEP_SUMMARY", ""), "ab") as summary:
        # In a fence nothing from outside is a link or HTML, and no line of it can end the fence.
        summary.write(f"### crates-io-auth failed\n\n```text\n{text}\n```\n".encode())


def run(arguments: list[str]) -> int:
    """Do what the command line says, and return the exit status."""
    if sys.stderr is None:  # it was closed when Python started
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_RDONLY))  # which takes nothing either
    try:
        if arguments in (["--help"], ["--version"]):
            print(__version__ if arguments == ["--version"] else __doc__, flush=True)
            return 0
        tasks = {(): main, ("main",): main, ("post",): post, ("--cargo-plugin",): cargo_plugin}
        task = tasks.get(tuple(arguments))
        if arguments[:-1] in (["--url"], ["main", "--url"]):
            task = functools.partial(main, arguments[-1])
        if task is None:
            say(USAGE)
            return 2
        # Before the handlers are there: Python swallows what one raises in an import (python/cpython#75253).
        importlib.import_module("urllib.request")
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, cancel)
        task()
        ignore_signals()
        return 0
    except BaseException as error:
        ignore_signals()
        explain(error)
        return 1


if __name__ == "__main__":
    # All is written. Python's own way out takes as long as a request, while a thread may still wait for one.
    os._exit(run(sys.argv[1:]))
