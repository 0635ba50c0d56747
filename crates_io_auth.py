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
the user reads, being cancelled, which registry, the wire, who am I, the record, what the registry
gives and takes back, main, post, cargo, the command line.
"""

from __future__ import annotations

import signal

if __name__ == "__main__":  # until `run` takes over: Python would print a traceback
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import base64
import contextlib
import errno
import functools
import json
import os
import random
import re
import stat
import sys
import tempfile
import threading
import time
import types

# What costs more than all of these (urllib.request, ssl) is imported where something is sent, and
# typing (https://typing.python.org/en/latest/spec/directives.html#type-checking) not at all.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Iterator, TypeVar

    T = TypeVar("T")

__version__ = "1.0.0"

USAGE = "usage: crates_io_auth.py [main] [--url URL] | post | --cargo-plugin | --help | --version"

CRATES_IO = "https://crates.io"
TOKENS = "/api/v1/trusted_publishing/tokens"

REQUEST_SECONDS = 30  # for one request, from looking up the host to the last byte
ANSWER_BYTES = 1024 * 1024
BACKOFF_SECONDS = (1, 2, 4)  # between four tries
RETRY_AFTER_SECONDS = 30  # the longest that Retry-After is obeyed
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

TRY_AGAIN = "{problem}: {reason}. Trying again in {seconds} s."

BAD_URL = """\
A secret must not be sent to {url}
A registry is https://host, maybe with a port and a path, in plain ASCII; no user name, query or
fragment. Plain http is for this machine alone (localhost, 127.0.0.0/8, [::1]). Correct the input
`url`, --url or INPUT_URL. Nothing was sent."""

BAD_SECRET = """\
What is in {variable} is not a token
A token is one line of visible ASCII characters. Look at where the variable is set. Nothing was sent."""

NO_PERMISSION = """\
This job may not ask GitHub for an identity token
Give the job this permission, and run it again (what `permissions` does not name, it takes away):
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

NOT_REVOKED = """\
{host} did not revoke the access token
{reason}"""

STILL_ALIVE = """\
An access token may still be alive
The lines above say why. Run `crates_io_auth.py post` (again) for what is in the record. crates.io ends
an access token 30 minutes after it was made, in any case."""

DAMAGED = """\
A line of the record {path} is damaged and was dropped
If it held an access token, crates.io ends that 30 minutes after it was made."""

UNSAFE = """\
Access tokens can't be recorded in {path}
{reason}. It must be this user's own, open to nobody else, and no link. If someone put it there, find
out who. Remove it, and run this again."""

NOT_OURS = "It is a link, or someone else's, or open to others"

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
{reason}. Leave out `credential-provider`, and use the output `token` instead."""

TOKEN_IGNORED = """\
{variable} is set, and cargo ignores it
cargo asks for a token just in time instead. Take the variable out: every build script can read it."""

URL_IGNORED = """\
The input url has no effect with credential-provider
cargo says which registry it needs a token for. Name it, as cargo does, in the input `registry`."""

BAD_INDEX = """\
{host} did not say which registry its index belongs to
{reason}"""

FOREIGN_API = """\
The index at {host} names a registry elsewhere: {api}
A token for one registry must not get into the hands of another. With such an index, get the token as an
output, or with `crates_io_auth.py --url`, instead of through cargo."""

BAD_INPUT = """\
The input {name} can't be {value}
{wanted}"""

CHECKED = """\
{registry} gives this job access tokens; the one that showed it is revoked again.
cargo gets a new one when it uploads."""

UNUSABLE = """\
The identity token in {variable} can't be used
It has expired, or it is not a JWT with a time of expiry. Run the job again to get a new one."""

NOT_CARGO = """\
This is not a request of cargo that crates_io_auth.py knows
It speaks version 1 of cargo's credential provider protocol. cargo starts it by itself, when
CARGO_REGISTRY_CREDENTIAL_PROVIDER names it."""

BUG = """\
crates_io_auth.py failed in a way that it does not know: {kind} in line {line}
Please report this line. Access tokens are in the record: `crates_io_auth.py post` revokes them."""


def printable(text: object) -> str:
    """Return what comes from outside as harmless words within a line, at most 500 characters.

    They can't start a line, move the cursor or hide (line breaks, control and format characters), hold
    the one workflow command that the runner obeys within a line, ##[ (actions/runner,
    ActionCommand.TryParse), or show what has the form of an identity or access token.
    """
    # One class of characters a run: anything that could backtrack is a way to hang the job.
    line = re.sub(r"eyJ[\w.-]+|cio_tp_\w+", "***", str(text))
    line = " ".join(line[:5000].split()).replace("##[", "# #[")
    line = "".join(character if character.isprintable() else "?" for character in line)
    return line if len(line) <= 500 else line[:500] + "..."


class AuthError(Exception):
    """Something that the user can act on. Its text is a title and the lines that explain it."""

    def __init__(self, template: str, **outside: object) -> None:
        super().__init__(words(template, **outside))


class TryAgain(AuthError):
    """An error that may pass by itself, after `wait` seconds if the other side said so."""

    def __init__(self, template: str, wait: float | None = None, **outside: object) -> None:
        super().__init__(template, **outside)
        self.wait = wait


def words(template: str, **outside: object) -> str:
    """Return one of the texts above with its places filled in; a mapping fills a line an entry."""
    safe = {}
    for place, value in outside.items():
        if isinstance(value, dict):
            safe[place] = "\n".join(f"  {name}: {printable(entry)}" for name, entry in value.items())
        else:
            safe[place] = printable(value)
    return template.format(**safe)


def on_github() -> bool:
    """Tell whether this is a step of GitHub Actions."""
    return os.environ.get("GITHUB_ACTIONS") == "true"


def say(text: str) -> None:
    """Print lines on stderr, if it takes them; stdout is for the access token."""
    if sys.stderr is not None:  # it is None if it was closed when Python started
        with contextlib.suppress(OSError):
            print(text, file=sys.stderr, flush=True)


def mask(secret: str) -> None:
    """Have GitHub's runner hide `secret` in whatever is printed from now on. Raises OSError if it can't."""
    if on_github():
        if sys.stderr is None:
            raise OSError(errno.EBADF, "stderr is closed, and a secret can't be masked")
        print("::add-mask::" + secret.replace("%", "%25"), file=sys.stderr, flush=True)


def annotate(level: str, text: str) -> None:
    """Say a title and its explanation; on GitHub as an annotation of that level, error or warning."""
    if not on_github():
        return say(f"{level}: {text}")
    title, _, explanation = text.replace("%", "%25").partition("\n")
    title = title.replace(":", "%3A").replace(",", "%2C")
    say(f"::{level} title={title}::" + explanation.replace("\n", "%0A"))


def say_error(error: AuthError) -> None:
    """Tell the user what failed; on GitHub also in the summary of the step."""
    annotate("error", str(error))
    with contextlib.suppress(OSError), open(os.environ.get("GITHUB_STEP_SUMMARY", ""), "ab") as summary:
        # In a fence nothing from outside is a link or HTML, and no line of it can end the fence.
        summary.write(f"### crates-io-auth failed\n\n```text\n{error}\n```\n".encode())


def environment(variable: str) -> str:
    """Return what GitHub's runner sets in every step. Raises OSError if it is missing."""
    if not os.environ.get(variable):
        raise OSError(errno.ENOENT, "GitHub's runner sets it in every step", variable)
    return os.environ[variable]


def open_for_runner(variable: str) -> int:
    """Return the descriptor of a file that the runner made for this step. Raises OSError if it did not.

    It is not made here: the runner would never read it.
    """
    return os.open(environment(variable), os.O_WRONLY | os.O_APPEND)


# Being cancelled


class Cancelled(BaseException):
    """SIGINT or SIGTERM, on its way to the end of this process."""


def ignore_signals() -> None:
    """Let nothing but SIGKILL interrupt what is done from now on."""
    for number in (signal.SIGINT, signal.SIGTERM):
        # Not SIG_IGN: if both signals are under way, Python prints a traceback for the second.
        signal.signal(number, lambda *_: None)


def cancel(*_: object) -> None:
    """Obey the first SIGINT or SIGTERM alone, so that no other one interrupts the clean-up."""
    ignore_signals()
    raise Cancelled


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
    if not parts or not 0 < int(parts["port"] or 443) < 65536:
        raise AuthError(BAD_URL, url=url)
    if parts["scheme"].lower() == "http" and not re.fullmatch(THIS_MACHINE, parts["host"].lower()):
        raise AuthError(BAD_URL, url=url)
    return parts


def registry_url(text: str) -> str:
    """Return a registry's URL, with a scheme (https for a bare host) and no slash at its end.

    Raises AuthError if it is none.
    """
    parts = url_parts(text if "://" in text else f"https://{text}")
    if parts["query"]:
        raise AuthError(BAD_URL, url=text)
    return parts["origin"].lower() + (parts["path"] or "").rstrip("/")


def default_registry() -> str:
    """Return the registry of the input `url`, else crates.io. Raises AuthError if it is none."""
    return registry_url(os.environ.get("INPUT_URL") or CRATES_IO)


def audience_of(registry: str) -> str:
    """Return the audience of identity tokens for a registry: its URL without the scheme."""
    return registry.partition("://")[2]


# On the wire


def dig(text: str | bytes, *path: str | int) -> Any:
    """Return what JSON text holds at `path`; None if it is not JSON, or has another shape."""
    try:
        value = json.loads(text)
        for step in path:
            value = value[step]
        return value
    except (ValueError, RecursionError, LookupError, TypeError):
        return None


def is_secret(value: object) -> bool:
    """Tell whether a value is one line of visible ASCII: no second header, output or command."""
    return isinstance(value, str) and re.fullmatch(r"[!-~]+", value) is not None


def environment_secret(variable: str) -> str:
    """Return the secret in an environment variable, "" for none. Raises AuthError for nonsense."""
    secret = os.environ.get(variable, "")
    if secret and not is_secret(secret):
        raise AuthError(BAD_SECRET, variable=variable)
    return secret


class Answer(types.SimpleNamespace):
    """An answer of any status, to a request with a secret, which it may repeat."""

    host: str
    secret: str
    status: int
    headers: Any
    body: bytes

    def reason(self) -> str:
        """Return the words of an answer: where to go, crates.io's `detail`, or how it begins."""
        if self.status < 300:
            says = "no token"  # or half of one, that must not be shown
        elif self.status < 400:
            says = f"go to {self.headers['Location']} (a secret is never sent on to another address)"
        else:
            says = str(dig(self.body, "errors", 0, "detail") or self.body.decode(errors="replace"))
        return f"It answered HTTP {self.status}: " + (
            says.replace(self.secret, "***") if self.secret else says
        )

    def failure(self) -> TryAgain:
        """Return the error for an answer that another try may better."""
        wait = retry_after(self.headers.get("Retry-After", ""))
        return TryAgain(NO_ANSWER, wait, host=self.host, reason=self.reason())

    def refusal(self, template: str, **outside: object) -> AuthError:
        """Return the error for a registry's answer that is no success, which may be final."""
        if self.status in (408, 429) or not 300 <= self.status < 500:
            return self.failure()
        template = NO_ANSWER if self.status < 400 else template
        return AuthError(template, host=self.host, reason=self.reason(), **outside)

    def token(self, name: str) -> str:
        """Return the token under `name` in a success. Raises TryAgain for anything else."""
        token = dig(self.body, name)
        if not 200 <= self.status < 300 or not is_secret(token):
            raise self.failure()
        return str(token)


def retry_after(value: str) -> float | None:
    """Return the seconds that a Retry-After header asks for, as number or date; None if it doesn't."""
    from email.utils import parsedate_to_datetime

    try:
        seconds = int(value) if value.isdigit() else parsedate_to_datetime(value).timestamp() - time.time()
    except (ValueError, TypeError, LookupError, OverflowError):
        return None
    return min(seconds, RETRY_AFTER_SECONDS) if seconds >= 0 else None


@functools.lru_cache(maxsize=None)
def opener() -> Any:
    """Return the one opener of this run, with its one TLS context.

    Without urllib's handlers for redirects and errors each answer comes back as it is. Only https goes
    through a proxy: http is for this machine.
    """
    import ssl
    import urllib.request

    director = urllib.request.OpenerDirector()
    proxies = {scheme: url for scheme, url in urllib.request.getproxies().items() if scheme == "https"}
    director.add_handler(urllib.request.ProxyHandler(proxies))
    director.add_handler(urllib.request.HTTPHandler())
    director.add_handler(urllib.request.HTTPSHandler(context=ssl.create_default_context()))
    return director


def transfer(client: Any, host: str, method: str, url: str, secret: str, body: bytes | None) -> Answer:
    """Send one request, and return the answer. Raises TryAgain, or AuthError for a bad certificate."""
    import http.client
    import ssl
    import urllib.request

    headers = {"User-Agent": f"crates-io-auth/{__version__}"}
    if body is not None:
        headers["Content-Type"] = "application/json"
    elif secret:
        headers["Authorization"] = f"Bearer {secret}"
    received = b""
    try:
        with client.open(urllib.request.Request(url, body, headers, method=method)) as response:
            # After a whole token the end may be broken, or never come; a token that is lost can't be revoked.
            with contextlib.suppress(OSError, ArithmeticError, http.client.HTTPException):
                while dig(received) is None and len(received) < ANSWER_BYTES:
                    piece = response.read1(ANSWER_BYTES - len(received))
                    if not piece:
                        break
                    received += piece
            return Answer(
                host=host, secret=secret, status=response.status, headers=response.headers, body=received
            )
    except (http.client.HTTPException, ValueError) as error:
        reason: object = f"It does not speak HTTP ({type(error).__name__})"
    except OSError as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise AuthError(BAD_CERTIFICATE, host=host, reason=reason.verify_message) from None
    raise TryAgain(NO_ANSWER, host=host, reason=reason)


def send(method: str, url: str, secret: str, receive: Callable[[Answer], T], body: bytes | None = None) -> T:
    """Send one request, and return what `receive` makes of the answer, all within REQUEST_SECONDS.

    The secret, if any, goes along as bearer, unless it is in the body. It happens in a thread, for two
    reasons: Python's own time-out starts anew with each byte; and signals interrupt the main thread alone,
    so that `receive` always gets to record the token it finds, be it after this function gave up. Raises
    what `receive` raises, and TryAgain.
    """
    host = url_parts(url)["host"]
    client = opener()
    results: list[T] = []
    errors: list[BaseException] = []
    done = threading.Event()  # Thread.join can't be called again after a signal (python/cpython#90882)

    def work() -> None:
        if sys.platform != "win32":  # else the main thread may sleep on while this one gets the signal
            signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
        try:
            results.append(receive(transfer(client, host, method, url, secret, body)))
        except BaseException as error:
            errors.append(error)
        finally:
            done.set()

    try:
        threading.Thread(target=work, daemon=True).start()
        done.wait(REQUEST_SECONDS)
    except Cancelled:
        done.wait(GRACE_SECONDS)
        raise
    for error in errors:
        raise error
    for result in results:
        return result
    raise TryAgain(NO_ANSWER, host=host, reason=f"It took more than {REQUEST_SECONDS} s")


def persist(attempt: Callable[[], T]) -> T:
    """Return what one of four attempts returns. Raises AuthError for what is final, and the last TryAgain."""
    for backoff in BACKOFF_SECONDS:
        try:
            return attempt()
        except TryAgain as again:
            seconds = backoff * random.uniform(0.75, 1.25) if again.wait is None else again.wait
            problem, reason = str(again).split("\n")[:2]
            say(words(TRY_AGAIN, problem=problem, reason=reason, seconds=round(seconds, 1)))
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
        url += ("&" if "?" in url else "?") + "audience=" + quote(audience, safe="")
        token = send("GET", url, request_token, lambda answer: answer.token("value"))
    else:
        token = ambient_identity_token(audience)
    mask(token)
    return token


def github_endpoint() -> tuple[str, str]:
    """Return where to ask GitHub, and the secret for it, which only jobs with the permission know."""
    url = os.environ.get("ACTIONS_ID_TOKEN_REQUEST_URL")
    request_token = environment_secret("ACTIONS_ID_TOKEN_REQUEST_TOKEN")
    if not url or not request_token:
        raise AuthError(FORK if is_from_fork() else NO_PERMISSION)
    return url, request_token


def is_from_fork() -> bool:
    """Tell whether this run is for a pull request from a fork (GitHub's event `pull_request`)."""
    with contextlib.suppress(OSError), open(environment("GITHUB_EVENT_PATH"), "rb") as event:
        return dig(event.read(), "pull_request", "head", "repo", "fork") is True
    return False


def variable_of(audience: str) -> str:
    """Return the variable for identity tokens for an audience, named as in PyPA's `id` library."""
    return re.sub(r"[^A-Z0-9_]|^[0-9]", "_", audience.upper()) + "_ID_TOKEN"


def ambient_identity_token(audience: str) -> str:
    """Return the identity token that the CI put into a variable."""
    variable = variable_of(audience)
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


def payload_of(identity: str) -> bytes:
    """Return the payload of an identity token, unverified: JSON, if it is a JWT."""
    try:
        return base64.urlsafe_b64decode(identity.partition(".")[2].partition(".")[0] + "==")
    except ValueError:
        return b""


def claims_of(identity: str) -> dict[str, str]:
    """Return what an identity token claims about the job, for the user to compare."""
    payload = payload_of(identity)
    claims = {label: dig(payload, name) for name, label in CLAIMS.items()}
    claims["environment"] = claims["environment"] or "(none)"
    return {label: claim for label, claim in claims.items() if isinstance(claim, str)}


# The record


class Grant(types.SimpleNamespace):
    """An access token, the URL of the registry that gave it, and when (UNIX time, seconds).

    The time is 0 for a token that is not to be used again.
    """

    registry: str
    token: str
    minted: int


class Record:
    """The file with a line of JSON for each access token of this job that is to be revoked.

    Only its owner can read it. Any number of processes may add to it and empty it at once.
    """

    def __init__(self) -> None:
        self.path = record_path()
        self.own: list[Grant] = []  # what this process got

    def open(self) -> int:
        """Return a descriptor to append with. Raises AuthError or OSError if there is no safe one."""
        return open_own(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, forbidden=0o077)

    def add(self, grant: Grant) -> None:
        """Append one access token. Raises OSError when it can't be, for a full disk, say."""
        line = json.dumps(vars(grant)) + "\n"
        while True:
            descriptor = self.open()
            try:
                write_whole(descriptor, line, self.path)
                # Whoever took the file away in between may have read it before this line was in it.
                with contextlib.suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(descriptor), os.stat(self.path)):
                        return
            finally:
                os.close(descriptor)

    def fresh(self, registry: str) -> Grant | None:
        """Return an access token of a registry that is good for one more upload, if there is one."""
        with contextlib.suppress(FileNotFoundError):
            grants, _ = read_grants(self.path)
            for grant in grants:
                if grant.registry == registry and grant.minted <= time.time() < grant.minted + FRESH_SECONDS:
                    return grant
        return None

    @contextlib.contextmanager
    def taken(self) -> Iterator[tuple[list[Grant], list[AuthError]]]:
        """Take all access tokens out: yields them, and an error for each line that holds none.

        They go for good when the block ends well. If it does not, the next process takes them again.
        """
        with contextlib.suppress(FileNotFoundError):
            os.rename(self.path, f"{self.path}.{os.urandom(8).hex()}")
        folder, name = os.path.split(self.path)
        paths = [os.path.join(folder, entry) for entry in os.listdir(folder) if entry.startswith(f"{name}.")]
        read: list[str] = []
        grants: list[Grant] = []
        errors: list[AuthError] = []
        for path in paths:
            try:
                found, damaged = read_grants(path)
            except FileNotFoundError:  # another process has finished with it
                continue
            except AuthError as error:
                errors.append(error)
                continue
            read.append(path)
            grants += found
            errors += damaged
        yield grants, errors
        for path in read:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    def forget(self, gone: list[Grant]) -> None:
        """Take out access tokens that are revoked already. Raises AuthError or OSError."""
        with self.taken() as (grants, errors):
            for grant in grants:
                if grant not in gone:
                    self.add(grant)
        for error in errors:
            say(str(error))


def write_whole(descriptor: int, line: str, path: str) -> None:
    """Write a line at once, so that no other process comes between. Raises OSError, which names the path."""
    try:
        written = os.write(descriptor, line.encode())
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
    if written < len(line):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)


def read_grants(path: str) -> tuple[list[Grant], list[AuthError]]:
    """Return the access tokens in a file of the record, and an error for each line that holds none."""
    grants: list[Grant] = []
    errors: list[AuthError] = []
    # Others may have rights by now: then it is all the more urgent to revoke.
    with open(open_own(path, os.O_RDONLY, forbidden=0), "rb") as file:
        for line in file:
            try:
                grants.append(parse_grant(line, path))
            except AuthError as error:
                errors.append(error)
    return grants, errors


def parse_grant(line: bytes, path: str) -> Grant:
    """Return the access token in a line of the record. Raises AuthError if the line is damaged."""
    start = line.rfind(b'{"registry"')  # there may be a beginning before it, cut off by a full disk
    registry, token, minted = (dig(line[max(start, 0) :], field) for field in ("registry", "token", "minted"))
    if not isinstance(registry, str) or not is_secret(token) or not isinstance(minted, int):
        raise AuthError(DAMAGED, path=path)
    return Grant(registry=registry_url(registry), token=token, minted=minted)


def record_path() -> str:
    """Return where the record of this job lies. Raises AuthError if the place is not this user's."""
    if on_github():
        return os.path.join(environment("RUNNER_TEMP"), "crates-io-auth.jsonl")
    user = "" if sys.platform == "win32" else f"-{os.geteuid()}"
    folder = os.path.join(tempfile.gettempdir(), f"crates-io-auth{user}")
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder, 0o700)
    status = os.lstat(folder)
    if not stat.S_ISDIR(status.st_mode) or not is_private(status, forbidden=0o077):
        raise AuthError(UNSAFE, path=folder, reason=NOT_OURS)
    job = re.sub(r"[^A-Za-z0-9-]", "_", os.environ.get("CI_JOB_ID") or "job")
    return os.path.join(folder, f"{job}.jsonl")


def is_private(status: os.stat_result, forbidden: int) -> bool:
    """Tell whether a file or folder is this user's own, and has none of the forbidden mode bits."""
    if sys.platform == "win32":  # a user's temporary folder is open to nobody else there
        return True
    return status.st_uid == os.geteuid() and not status.st_mode & forbidden


def open_own(path: str, flags: int, forbidden: int) -> int:
    """Return the descriptor of a file of this user's own, not through a link.

    Raises FileNotFoundError, and AuthError for whatever else is wrong, like a forbidden mode bit.
    """
    flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)  # Windows has neither
    try:
        descriptor = os.open(path, flags, 0o600)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise AuthError(UNSAFE, path=path, reason=error.strerror) from None
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1 or not is_private(status, forbidden):
        os.close(descriptor)
        raise AuthError(UNSAFE, path=path, reason=NOT_OURS)
    return descriptor


# What the registry gives and takes back


def exchange(registry: str, identity: str, record: Record, minted: int) -> Grant:
    """Exchange an identity token for an access token, and record that at once.

    Raises AuthError if the registry refuses, TryAgain if it fails: the identity token may be used up.
    """

    def receive(answer: Answer) -> Grant:
        if answer.status >= 300:
            raise answer.refusal(REFUSED, registry=registry, claims=claims_of(identity))
        grant = Grant(registry=registry, token=answer.token("token"), minted=minted)
        record.own.append(grant)
        record.add(grant)
        return grant

    body = json.dumps({"jwt": identity}).encode()
    return send("POST", registry + TOKENS, identity, receive, body)


def mint(registry: str, record: Record, minted: int | None = None) -> Grant:
    """Return a new access token, recorded as of now or `minted`, and masked. Raises AuthError or OSError."""
    os.close(record.open())  # what can't be recorded must not be made
    when = int(time.time()) if minted is None else minted
    grant = persist(lambda: exchange(registry, identity_token(registry), record, when))
    mask(grant.token)
    return grant


def revoke(grant: Grant) -> None:
    """Revoke an access token; one that its registry does not know is as good. Raises AuthError."""

    def receive(answer: Answer) -> None:
        if not 200 <= answer.status < 300 and answer.status not in (401, 404):
            raise answer.refusal(NOT_REVOKED)

    persist(lambda: send("DELETE", grant.registry + TOKENS, grant.token, receive))
    say(words(REVOKED, registry=grant.registry))


def revoke_recorded(record: Record, wanted: Callable[[Grant], bool], *others: Grant) -> list[AuthError]:
    """Revoke what is wanted of the record, and others. What fails stays in it, or comes in.

    Returns why it failed. Raises OSError when the record can't be changed.
    """
    left: list[Grant] = []
    with record.taken() as (grants, errors):
        known = {grant.token for grant in grants}
        for grant in grants + [other for other in others if other.token not in known]:
            try:
                if wanted(grant):
                    revoke(grant)
                    continue
            except AuthError as error:
                errors.append(error)
            left.append(grant)
        for grant in left:
            record.add(grant)
    return errors


@contextlib.contextmanager
def revoked_on_failure(record: Record) -> Iterator[None]:
    """Revoke what this process got if the block fails or is cancelled."""
    try:
        yield
    except BaseException:
        ignore_signals()  # what is in no record can only be revoked here and now
        revoked = []
        for grant in record.own:
            try:
                revoke(grant)
                revoked.append(grant)
            except AuthError as error:
                say(f"{error}\n{STILL_ALIVE}")
        with contextlib.suppress(AuthError, OSError):  # else `post` revokes it once more
            record.forget(revoked)
        raise


# main: a token in, a token out


def main(url: str | None = None) -> None:
    """Get an access token from the registry at `url` and hand it over. Raises AuthError or OSError."""
    provider = os.environ.get("INPUT_CREDENTIAL_PROVIDER") or "false"
    if provider not in ("true", "false"):
        raise AuthError(BAD_INPUT, name="credential-provider", value=provider, wanted="It is true or false.")
    if provider == "true":
        return set_up_cargo(os.environ.get("INPUT_REGISTRY") or "crates-io")
    registry = default_registry() if url is None else registry_url(url)
    record = Record()
    with revoked_on_failure(record), open(open_output(), "wb", buffering=0) as output:
        grant = mint(registry, record)
        got, prefix = (GOT_ON_GITHUB, "token=") if on_github() else (GOT_ELSEWHERE, "")
        say(words(got, audience=audience_of(registry), registry=registry))
        write_whole(output.fileno(), f"{prefix}{grant.token}\n", "GITHUB_OUTPUT" if prefix else "stdout")


def open_output() -> int:
    """Return the descriptor that takes the access token: the step's outputs on GitHub, elsewhere stdout."""
    return open_for_runner("GITHUB_OUTPUT") if on_github() else os.dup(1)


# post: nothing left behind


def post() -> None:
    """Revoke every access token in the record, and a temporary one in CARGO_REGISTRY_TOKEN.

    Raises AuthError when one is left over; the others are revoked all the same.
    """
    others: list[Grant] = []
    errors: list[AuthError] = []
    try:
        if os.environ.get("CARGO_REGISTRY_TOKEN", "").startswith("cio_tp_"):
            token = environment_secret("CARGO_REGISTRY_TOKEN")
            others.append(Grant(registry=default_registry(), token=token, minted=0))
    except AuthError as error:
        errors.append(error)
    errors += revoke_recorded(Record(), lambda grant: True, *others)
    for problem in errors:
        say(str(problem))
    if errors:
        raise AuthError(STILL_ALIVE)


# cargo: a token just in time

NO_TOKEN = "the-upload-will-ask-for-one"
INDEXES_OF_CRATES_IO = ("sparse+https://index.crates.io/", "https://github.com/rust-lang/crates.io-index")


def cargo_plugin() -> None:
    """Answer one request of cargo, in version 1 of its protocol for credential providers.

    https://doc.rust-lang.org/cargo/reference/credential-provider-protocol.html
    """
    with open(0, "rb", closefd=False) as requests, open(os.dup(1), "wb", buffering=0) as output:
        write_whole(output.fileno(), '{"v":[1]}\n', "stdout")
        request = requests.readline(ANSWER_BYTES)
        try:
            record = Record()
            with revoked_on_failure(record):
                write_whole(output.fileno(), json.dumps(answer_cargo(request, record)) + "\n", "stdout")
        except (AuthError, OSError) as error:
            message = str(error if isinstance(error, AuthError) else AuthError(MACHINE, reason=error))
            refusal = {"Err": {"kind": "other", "message": message}}
            write_whole(output.fileno(), json.dumps(refusal) + "\n", "stdout")


def answer_cargo(request: bytes, record: Record) -> dict[str, object]:
    """Return the answer to a request of cargo. Raises AuthError or OSError for what the user must know."""
    kind, operation = dig(request, "kind"), dig(request, "operation")
    index = dig(request, "registry", "index-url")
    if dig(request, "v") != 1 or not isinstance(kind, str) or not isinstance(index, str):
        raise AuthError(NOT_CARGO)
    if kind != "logout" and (kind != "get" or operation not in ("read", "publish")):
        return {"Err": {"kind": "operation-not-supported"}}
    found = registry_of_index(index)
    if found is None:
        return {"Err": {"kind": "url-not-supported"}}  # cargo asks the next provider
    registry, reading_needs_token = found
    if kind == "logout":
        for error in revoke_recorded(record, lambda grant: grant.registry == registry):
            raise error
        return {"Ok": {"kind": "logout"}}
    # cargo asks anew for each upload: what it got for reading must not serve for one.
    answer: dict[str, object] = {"kind": "get", "operation_independent": False}
    if operation == "read" and not reading_needs_token:
        return {"Ok": {**answer, "token": token_of_trial(registry, record), "cache": "never"}}
    grant = record.fresh(registry) or mint(registry, record)
    expiration = grant.minted + FRESH_SECONDS
    return {"Ok": {**answer, "token": grant.token, "cache": "expires", "expiration": expiration}}


def registry_of_index(index: str) -> tuple[str, bool] | None:
    """Return the registry of an index, and whether reading it needs a token; None if it names none.

    https://doc.rust-lang.org/cargo/reference/registry-index.html
    """
    if index in INDEXES_OF_CRATES_IO:
        return CRATES_IO, False
    if not index.startswith("sparse+"):
        return None

    def receive(answer: Answer) -> tuple[Any, bool]:
        if answer.status >= 300 and answer.status != 404:
            raise answer.refusal(BAD_INDEX)
        return dig(answer.body, "api"), dig(answer.body, "auth-required") is True

    url = index[len("sparse+") :].rstrip("/") + "/config.json"
    api, reading_needs_token = persist(lambda: send("GET", url, "", receive))
    if not isinstance(api, str):
        return None
    registry = registry_url(api)
    # Else an index could have the script mint for another registry, and cargo send the token to its own.
    host, owner = url_parts(url)["host"].lower(), url_parts(registry)["host"]
    if host != owner and not host.endswith(f".{owner}"):
        raise AuthError(FOREIGN_API, host=host, api=registry)
    return registry, reading_needs_token


def token_of_trial(registry: str, record: Record) -> str:
    """Return a token that is of no use, once it is sure that an upload will get one that is.

    cargo asks for it before it builds, and sends it nowhere. No access token must be alive while build
    scripts run (rust-lang/cargo#15743). Raises AuthError if there will be none.
    """
    if on_github():
        grant = mint(registry, record, minted=0)
        revoke(grant)
        record.forget([grant])
        say(words(CHECKED, registry=registry))
        return grant.token
    # It works only once: all that can be done is to look at it, unless it has been exchanged already.
    if record.fresh(registry):
        return NO_TOKEN
    audience = audience_of(registry)
    expires = dig(payload_of(ambient_identity_token(audience)), "exp")
    if not isinstance(expires, (int, float)) or expires < time.time():
        raise AuthError(UNUSABLE, variable=variable_of(audience))
    return NO_TOKEN


def set_up_cargo(name: str) -> None:
    """Have cargo ask this script for tokens of the registry that it calls `name`, in the next steps."""
    import shlex

    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        wanted = "It is the name of a registry in cargo's configuration."
        raise AuthError(BAD_INPUT, name="registry", value=name, wanted=wanted)
    github_endpoint()
    if default_registry() != CRATES_IO:
        annotate("warning", URL_IGNORED)
    launcher = os.path.join(environment("RUNNER_TEMP"), "crates-io-auth-for-cargo")
    if sys.platform == "win32":
        raise AuthError(NO_PROVIDER, reason="On Windows cargo can't start a script")
    if len(launcher.split()) > 1:
        raise AuthError(NO_PROVIDER, reason=f"cargo splits the path of its provider at spaces: {launcher}")
    registry = "REGISTRY" if name == "crates-io" else "REGISTRIES_" + name.upper().replace("-", "_")
    if os.environ.get(f"CARGO_{registry}_TOKEN"):
        annotate("warning", words(TOKEN_IGNORED, variable=f"CARGO_{registry}_TOKEN"))
    with contextlib.suppress(FileNotFoundError):
        os.unlink(launcher)
    command = f"exec {shlex.quote(sys.executable)} -I -S {shlex.quote(os.path.abspath(__file__))}"
    descriptor = os.open(launcher, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o700)
    with open(descriptor, "w", errors="surrogateescape") as file:
        file.write(f'#!/bin/sh\n{command} "$@"\n')
    with open(open_for_runner("GITHUB_ENV"), "w", errors="surrogateescape") as variables:
        variables.write(f"CARGO_{registry}_CREDENTIAL_PROVIDER={launcher}\n")
    say(words(PROVIDER, variable=f"CARGO_{registry}_CREDENTIAL_PROVIDER"))


# The command line


def explain(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """Be Python's sys.excepthook: say in words what ended this process. A traceback could show a secret."""
    ignore_signals()
    if isinstance(error, Cancelled):
        error = AuthError(CANCELLED)
    elif isinstance(error, OSError):
        error = AuthError(MACHINE, reason=error)
    elif not isinstance(error, AuthError):
        while trace.tb_next and trace.tb_next.tb_frame.f_code.co_filename == __file__:
            trace = trace.tb_next
        error = AuthError(BUG, kind=kind.__name__, line=trace.tb_lineno)
    say_error(error)
    os._exit(1)  # as at the end of this file


def task_of(arguments: list[str]) -> Callable[[], None] | None:
    """Return what the command line asks for; None if that makes no sense."""
    if arguments == ["post"]:
        return post
    if arguments == ["--cargo-plugin"]:
        return cargo_plugin
    if arguments == ["--help"]:
        return lambda: print(__doc__, flush=True)
    if arguments == ["--version"]:
        return lambda: print(__version__, flush=True)
    options = arguments[1:] if arguments[:1] == ["main"] else arguments
    if not options:
        return main
    if options[0] == "--url" and len(options) == 2:
        return lambda: main(options[1])
    return None


def run(arguments: list[str]) -> int:
    """Do what the command line says, and return the exit status; an exception makes that 1."""
    task = task_of(arguments)
    if task is None:
        say(USAGE)
        return 2
    sys.excepthook = explain
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, cancel)
    task()
    ignore_signals()
    return 0


if __name__ == "__main__":
    # All is written. Python's own way out takes as long as a request, while a thread may still wait for one.
    os._exit(run(sys.argv[1:]))
