"""The tests of crates_io_auth.py and, run by itself, a demo.

    python3 test_crates_io_auth.py              the demo: the script at work against a fake GitHub and a
                                                fake registry on this machine
    python3 test_crates_io_auth.py serve PORT   the fakes alone, to try things out by hand
    python3 test_crates_io_auth.py examples DIR write the documentation's YAML into files for linters
    python -m pytest                            the tests

The tests run the shipped file as a process, over real sockets; what comes of a text alone is asked of its
function, case by case. The fakes do what the real servers do: each identity token is new, works once and is
made for one audience; the registry asks for a User-Agent, checks the form of an access token, and responds to
a revocation with 204.

The file has the fakes first, then a job (its environment and its processes), the tests, and the demo. A new
test goes here:

    a message of main                   `Getting a token`; `Refusals` if a server or the job's rights are why
    a message of post                   `Revoking`
    a message of another command        the section that is named after it
    an input or output of an action     `The action and its hook`, with `step_environment`; what the script
                                        does with it, where that is tested
    a CI system                         `Getting a token`, with an environment in `World`
    a crate that `check` refuses        `FLAWS`, and what is just not refused into `ALLOWED`
    a server that misbehaves            `Faults of a server`; then `TRANSIENT`, or `INDEX_FAULTS` for an index
    a row of docs/troubleshooting.md    nowhere: `The documentation` compares the script's errors and warnings
                                        with all rows but those that quote cargo, crates.io and the runner

Helpers stand in the section that they are about, and others use them, too: `write_workspace` is with cargo,
`run_step` with the actions, `assert_harmless` with the refusals.
"""

from __future__ import annotations

import argparse
import ast
import base64
import contextlib
import hashlib
import http.client
import http.server
import io
import json
import os
import random
import re
import shlex
import shutil
import signal
import socket
import socketserver
import ssl
import stat
import string
import struct
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import urllib.parse
import venv
from pathlib import Path
from typing import Any, Callable, Iterator, NamedTuple
from unittest import mock

import crates_io_auth as script

try:
    import pytest
except ImportError:  # the demo and `serve` need nothing but Python; nothing collects the tests then
    pytest = mock.MagicMock()

HERE = Path(__file__).resolve().parent
SCRIPT = HERE / "crates_io_auth.py"
TOKENS_PATH = "/api/v1/trusted_publishing/tokens"
REQUEST_TOKEN = "github-request-token-0123456789"
ORDINARY_TOKEN = "cioOrdinaryTokenOfAPerson"

# A certificate for localhost and 127.0.0.1 with its key, made for these tests alone.
TLS_PEM = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgyktU94OesuTaKBOi
4KLiU9hyTPjlelIIn65RM4hqJeKhRANCAAReT8taReFuDWriQyFDXsF1ZEsiL2P+
apPdTzB4k/CorM+ecIgHfbaidLnrJuyxubwL8b4CQF3RFFLKzgm4hCAo
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBmTCCAT6gAwIBAgIBATAKBggqhkjOPQQDAjAUMRIwEAYDVQQDDAlsb2NhbGhv
c3QwIBcNMDAwMTAxMDAwMDAwWhgPMjEwMDAxMDEwMDAwMDBaMBQxEjAQBgNVBAMM
CWxvY2FsaG9zdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABF5Py1pF4W4NauJD
IUNewXVkSyIvY/5qk91PMHiT8Kisz55wiAd9tqJ0uesm7LG5vAvxvgJAXdEUUsrO
CbiEICijfzB9MA8GA1UdEwEB/wQFMAMBAf8wHQYDVR0OBBYEFHBD8T2JEoE0plaY
qDutQmkuE/e6MB8GA1UdIwQYMBaAFHBD8T2JEoE0plaYqDutQmkuE/e6MA4GA1Ud
DwEB/wQEAwIChDAaBgNVHREEEzARgglsb2NhbGhvc3SHBH8AAAEwCgYIKoZIzj0E
AwIDSQAwRgIhANSEDZg1r6m2HV5BJE87zHJCB9/PCdsy2e8q6IKijXyAAiEAx8fE
Ykq1oy6kYiHk313MK4Kq07xT1fMY/g2MgoVEhOU=
-----END CERTIFICATE-----
"""


# The fakes


class Server(http.server.ThreadingHTTPServer):
    """A server on loopback, running until it is closed. Requests that tests abandon don't keep it."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, handler: type[http.server.BaseHTTPRequestHandler], port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), handler)
        self.port: int = self.server_address[1]
        self.authority = f"127.0.0.1:{self.port}"
        threading.Thread(target=self.serve_forever, args=(0.002,), daemon=True).start()

    def server_bind(self) -> None:
        """Bind without HTTPServer's lookup of the host's full name, which takes seconds on some machines."""
        socketserver.TCPServer.server_bind(self)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing: clients that hang up are part of the tests."""

    def close(self) -> None:
        self.shutdown()
        self.server_close()


class Request(NamedTuple):
    """A request that reached a fake."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


Fault = Callable[["Handler"], None]


class Fake(Server):
    """A server that responds to its first requests with its `faults`, then as the real one does."""

    def __init__(self, pem: Path | None = None, port: int = 0) -> None:
        self.context: ssl.SSLContext | None = None
        if pem:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.context.load_cert_chain(pem)
        self.lock = threading.RLock()
        self.requests: list[Request] = []
        self.faults: list[Fault | None] = []
        super().__init__(Handler, port)
        self.url = f"{'https' if pem else 'http'}://{self.authority}"

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Do the TLS handshake in the thread of the request, so that a client that hangs stops no other."""
        if self.context:
            request = self.context.wrap_socket(request, server_side=True)
        super().finish_request(request, client_address)

    def behave(self, handler: Handler) -> None:
        """Respond as the real server does."""
        raise NotImplementedError


class Handler(http.server.BaseHTTPRequestHandler):
    """Responds to a request with the next fault of its server, or as that behaves."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # 40 ms for each response to cargo, which keeps its connections
    server: Fake

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.request_read = Request(self.command, self.path, headers, body)
        with self.server.lock:
            self.server.requests.append(self.request_read)
            fault = self.server.faults.pop(0) if self.server.faults else None
        if fault:
            self.close_connection = True
            fault(self)
        else:
            self.server.behave(self)

    do_POST = do_PUT = do_DELETE = do_GET

    def respond(self, status: int, body: object = b"", **headers: str) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content_Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)

    def refuse(self, status: int, detail: str) -> None:
        self.respond(status, {"errors": [{"detail": detail}]}, Content_Type="application/json")

    def log_message(self, *_: object) -> None:
        """Print nothing: the tests look at the server's `requests`."""


class FakeGitHub(Fake):
    """The endpoint for identity tokens, as a job with `id-token: write` sees it."""

    def __init__(self, pem: Path | None = None) -> None:
        super().__init__(pem)
        self.identity_tokens: list[str] = []
        self.claims: dict[str, object] = {
            "iss": "https://token.actions.githubusercontent.com",
            "repository": "octo/crate",
            "workflow_ref": "octo/crate/.github/workflows/release.yml@refs/tags/v1",
            "environment": "release",
            "ref": "refs/tags/v1",
            "event_name": "push",
        }
        self.gitlab_claims: dict[str, object] = {
            "iss": "https://gitlab.com",
            "project_path": "octo/crate",
            "ci_config_ref_uri": "gitlab.com/octo/crate//.gitlab-ci.yml@refs/tags/v1",
            "environment": "release",
        }

    def behave(self, handler: Handler) -> None:
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(handler.path).query)
        if handler.headers["Authorization"] != f"Bearer {REQUEST_TOKEN}":
            handler.respond(401)
        else:
            token = self.issue(query["audience"][0], **self.claims)
            handler.respond(200, {"count": 1, "value": token})

    def issue(self, audience: str, **claims: object) -> str:
        """Return a new identity token: a JWT in form, with a `jti` of its own."""
        payload = {"aud": audience, "jti": os.urandom(16).hex(), "exp": int(time.time()) + 3600, **claims}
        parts = [json.dumps({"alg": "RS256"}), json.dumps(payload), os.urandom(64).hex()]
        token = ".".join(base64.urlsafe_b64encode(part.encode()).decode().rstrip("=") for part in parts)
        with self.lock:
            self.identity_tokens.append(token)
        return token


class FakeRegistry(Fake):
    """A registry with trusted publishing, an index and downloads.

    A crate that it has never heard of exists in version 0.0.0, as if somebody had published that by hand,
    unless it is one of `new_crates`. Only those in `without_publisher` have no trusted publisher.
    """

    def __init__(self, pem: Path | None = None, port: int = 0) -> None:
        super().__init__(pem, port)
        self.audience = self.authority
        self.used_identity_tokens: set[str] = set()
        self.access_tokens: list[str] = []
        self.revoked: list[str] = []
        self.config: object = {"dl": f"{self.url}/dl", "api": self.url}
        self.new_crates: set[str] = set()
        self.without_publisher: set[str] = set()
        self.trustpub_only: set[str] = set()
        self.refusal = ""
        self.expired = False
        self.not_owned: set[str] = set()
        self.publishers: list[dict[str, Any]] = []
        self.index: dict[str, list[dict[str, object]]] = {}
        self.index_faults: dict[str, Fault] = {}
        self.downloads: dict[str, bytes] = {}

    def alive(self) -> set[str]:
        """Return the access tokens that work."""
        with self.lock:
            return set(self.access_tokens) - set(self.revoked)

    def published(self) -> list[str]:
        """Return the crates that were published, in that order."""
        with self.lock:
            return [path.split("/")[2] for path in self.downloads]

    def behave(self, handler: Handler) -> None:
        endpoint = (handler.command, handler.path)
        if not handler.headers.get("User-Agent"):
            handler.respond(403, b"We require that all requests include a `User-Agent` header.")
        elif handler.path.endswith(TOKENS_PATH) and handler.command == "POST":
            self.exchange(handler)
        elif handler.path.endswith(TOKENS_PATH) and handler.command == "DELETE":
            self.revoke(handler)
        elif endpoint == ("PUT", "/api/v1/crates/new"):
            self.publish(handler)
        elif endpoint == ("GET", "/api/v1/me"):
            alive = handler.headers["Authorization"] in self.alive()
            handler.respond(200, {}) if alive else handler.refuse(403, "authentication failed")
        elif handler.path.startswith("/api/v1/trusted_publishing/git"):
            self.manage_publishers(handler)
        elif handler.path.startswith("/index/"):
            self.show_index(handler)
        elif handler.path.startswith("/api/v1/crates/"):
            name = handler.path.rpartition("/")[2]
            handler.respond(200, {"crate": {"name": name, "trustpub_only": name in self.trustpub_only}})
        elif handler.path in self.downloads:
            handler.respond(200, self.downloads[handler.path])
        else:
            handler.refuse(404, "Not Found")

    def exchange(self, handler: Handler) -> None:
        if handler.headers["Content-Type"] != "application/json":
            return handler.refuse(415, "Expected request with `Content-Type: application/json`")
        payload = json.loads(handler.request_read.body)["jwt"].split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
        with self.lock:
            if claims["aud"] != self.audience:
                return handler.refuse(400, "Failed to decode JWT")
            if self.refusal:
                return handler.refuse(400, self.refusal)
            if claims["jti"] in self.used_identity_tokens:
                return handler.refuse(400, "JWT has already been used")
            self.used_identity_tokens.add(claims["jti"])
            token = new_access_token()
            self.access_tokens.append(token)
        handler.respond(200, {"token": token})

    def revoke(self, handler: Handler) -> None:
        scheme, _, token = handler.headers.get("Authorization", "").partition(" ")
        if scheme != "Bearer" or not is_access_token(token):
            return handler.refuse(401, "Invalid `Authorization` header: Failed to parse token")
        with self.lock:
            self.revoked.append(token)
        handler.respond(204)

    def publish(self, handler: Handler) -> None:
        ordinary = handler.headers["Authorization"] == ORDINARY_TOKEN
        if not ordinary and (self.expired or handler.headers["Authorization"] not in self.alive()):
            return handler.refuse(403, "Invalid authentication token")
        body = handler.request_read.body
        (size,) = struct.unpack_from("<I", body)
        crate = json.loads(body[4 : 4 + size])
        content = body[8 + size :]
        name, version = crate["name"], crate["vers"]
        if ordinary:
            self.new_crates.discard(name)
        if name in self.new_crates:
            return handler.refuse(
                403,
                "Trusted Publishing tokens do not support creating new crates. "
                "Publish the crate manually, first",
            )
        if name in self.without_publisher and not ordinary:
            return handler.refuse(403, f"The provided access token is not valid for crate `{name}`")
        dependencies = [{**dep, "req": dep["version_req"], "registry": None} for dep in crate["deps"]]
        with self.lock:
            self.add_to_index(name, version, deps=dependencies, cksum=hashlib.sha256(content).hexdigest())
            self.downloads[f"/dl/{name}/{version}/download"] = content
        handler.respond(200, {"warnings": {"invalid_categories": [], "invalid_badges": [], "other": []}})

    def manage_publishers(self, handler: Handler) -> None:
        """List or add trusted publishers, with the rules of crates.io; a page has two."""
        path, _, query = handler.path.partition("?")
        kind = path.rpartition("/")[2]
        arguments = dict(urllib.parse.parse_qsl(query))
        body = json.loads(handler.request_read.body or b"{}")
        config = body.get(kind[:-1], {})
        crate = config.get("crate") or arguments.get("crate")
        if handler.headers["Authorization"] not in (ORDINARY_TOKEN, f"Bearer {ORDINARY_TOKEN}"):
            return handler.refuse(
                403, "this token does not have the required permissions to perform this action"
            )
        if crate in self.new_crates:
            return handler.refuse(404, f"crate `{crate}` does not exist")
        if crate in self.not_owned:
            return handler.refuse(400, "You are not an owner of this crate")
        with self.lock:
            configs = [each for each in self.publishers if each["crate"] == crate and each["kind"] == kind]
            if handler.command == "POST":
                if len(configs) >= 5:
                    return handler.refuse(
                        409, "This crate already has the maximum number of GitHub configurations"
                    )
                self.publishers.append({"id": len(self.publishers), "kind": kind, **config})
                return handler.respond(200, {kind[:-1]: self.publishers[-1]})
            start = int(arguments.get("seek", 0))
        more = f"?crate={crate}&per_page=2&seek={start + 2}" if len(configs) > start + 2 else None
        handler.respond(
            200, {kind: configs[start : start + 2], "meta": {"total": len(configs), "next_page": more}}
        )

    def add_to_index(self, name: str, version: str, **more: object) -> None:
        line = {"name": name, "vers": version, "deps": [], "cksum": "0" * 64, "features": {}, "yanked": False}
        self.index.setdefault(name, []).append({**line, **more})

    def show_index(self, handler: Handler) -> None:
        name = handler.path.rpartition("/")[2]
        if name == "config.json" and self.config is not None:
            return handler.respond(200, self.config)
        if name in self.index_faults:
            handler.close_connection = True
            return self.index_faults[name](handler)
        if handler.path != "/index/" + index_path(name) or name in self.new_crates:
            return handler.respond(404)
        with self.lock:
            if name not in self.index:
                self.add_to_index(name, "0.0.0")
            lines = [json.dumps(line) for line in self.index[name]]
        handler.respond(200, "\n".join(lines).encode())


def index_path(name: str) -> str:
    """Return where a sparse index has a crate.

    https://doc.rust-lang.org/cargo/reference/registry-index.html#index-files
    """
    name = name.lower()
    folder = {1: "1", 2: "2", 3: f"3/{name[:1]}"}.get(len(name), f"{name[:2]}/{name[2:4]}")
    return f"{folder}/{name}"


def new_access_token() -> str:
    """Return a new access token in the form of crates.io's."""
    secret = "".join(random.SystemRandom().choices(string.ascii_letters + string.digits, k=31))
    return f"cio_tp_{secret}{checksum(secret)}"


def is_access_token(token: str) -> bool:
    """Tell whether a token has the form of crates.io's, its last character a checksum."""
    match = re.fullmatch(r"cio_tp_([A-Za-z0-9]{31})([A-Za-z0-9])", token)
    return match is not None and checksum(match[1]) == match[2]


def checksum(secret: str) -> str:
    total = 0
    for byte in secret.encode():
        total ^= byte
    return (string.ascii_uppercase + string.ascii_lowercase + string.digits)[total % 62]


# What crates.io says to an identity token that it refuses.
REFUSALS = {
    "publisher": "No Trusted Publishing config found for repository `octo/crate`.",
    "workflow": "The Trusted Publishing config for repository `octo/crate` does not match the workflow "
    "filename `release.yml` in the JWT. Expected workflow filenames: `publish.yml`",
    "environment": "The Trusted Publishing config for repository `octo/crate` does not match the environment "
    "`release` in the JWT. Expected environments: `production`",
}
NO_CONFIG = REFUSALS["publisher"]


class FakeGitHubAndRegistry(FakeRegistry):
    """A registry and GitHub's endpoint on one port, which also tells how many access tokens are alive."""

    def __init__(self, port: int) -> None:
        self.github = FakeGitHub()
        super().__init__(port=port)

    def behave(self, handler: Handler) -> None:
        if handler.path.startswith("/identity?"):
            self.github.behave(handler)
        elif handler.path == "/gitlab-identity":
            token = self.github.issue(self.audience, **self.github.gitlab_claims)
            handler.respond(200, token.encode())
        elif handler.path == "/tokens":
            handler.respond(200, {"issued": len(self.access_tokens), "alive": len(self.alive())})
        else:
            super().behave(handler)


class Proxy(Server):
    """A proxy that notes what it is asked for, and leads tunnels to a target of its own if it has one."""

    def __init__(self, target: Fake | None = None) -> None:
        super().__init__(ProxyHandler)
        self.target = target.authority if target else None
        self.tunnels: list[str] = []
        self.requests: list[str] = []
        self.url = f"http://{self.authority}"


class ProxyHandler(http.server.BaseHTTPRequestHandler):
    """Connects the two ends of a tunnel."""

    server: Proxy

    def do_GET(self) -> None:
        self.server.requests.append(self.path)
        self.send_error(502)

    do_POST = do_DELETE = do_GET

    def do_CONNECT(self) -> None:
        self.server.tunnels.append(self.path)
        host, _, port = (self.server.target or self.path).partition(":")
        with socket.create_connection((host, int(port))) as there:
            self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=forward, args=(there, self.connection))
            back.start()
            forward(self.connection, there)
            back.join()

    def log_message(self, *_: object) -> None:
        """Print nothing: the tests look at the server's `tunnels` and `requests`."""


def forward(source: socket.socket, sink: socket.socket) -> None:
    """Pass on everything until the source ends."""
    with contextlib.suppress(OSError):
        while True:
            data = source.recv(65536)
            if not data:
                sink.shutdown(socket.SHUT_WR)
                return
            sink.sendall(data)


# Faults of a server


def respond(status: int, body: object = b"", **headers: str) -> Fault:
    """Respond with a status."""
    return lambda handler: handler.respond(status, body, **headers)


def refuse(status: int, detail: str) -> Fault:
    """Refuse a request in the registry's own form."""
    return lambda handler: handler.refuse(status, detail)


def send_bytes(content: bytes) -> Fault:
    """Send bytes, HTTP or not, and close the connection."""

    def fault(handler: Handler) -> None:
        handler.wfile.write(content)

    return fault


def reset(handler: Handler) -> None:
    """Reset the connection instead of responding."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.rfile.close()
    handler.connection.close()


def lose_response(handler: Handler) -> None:
    """Do what was asked for, and reset the connection instead of saying so."""
    handler.wfile = io.BytesIO()
    handler.server.behave(handler)
    reset(handler)


def never_respond(handler: Handler) -> None:
    """Wait until the client gives up."""
    handler.rfile.read(1)


def trickle(head: bytes) -> Fault:
    """Send `head`, then a byte every 20 ms until the client gives up."""

    def fault(handler: Handler) -> None:
        handler.wfile.write(head)
        while True:
            handler.wfile.write(b" ")
            time.sleep(0.02)

    return fault


# A job: its environment, its processes, and what they may never show


class Result(NamedTuple):
    """What a process left for the user, the runner and the shell."""

    status: int
    stdout: str
    stderr: str
    outputs: str
    summary: str
    log: str

    @property
    def token(self) -> str:
        """The access token that was handed over."""
        match = re.fullmatch(r"token=(\S+)\n", self.outputs) or re.fullmatch(r"(\S+)\n", self.stdout)
        assert match, self
        return match[1]


def github_log(output: str) -> str:
    """Return what GitHub's log shows of a step's output.

    Of an annotation that is its message, each line of it, but not its title. A masked secret is hidden from
    its mask on. Raises AssertionError for a command that the script has no business with.
    """
    shown, masks = [], []
    for line in output.splitlines():
        command = re.fullmatch(r"\s*::(.+?)::(.*)", line)
        if command:
            name = command[1].partition(" ")[0]
            text = command[2].replace("%0D", "\r").replace("%0A", "\n").replace("%25", "%")
            assert name in ("add-mask", "error", "warning"), output
            if name == "add-mask":
                masks.append(text)
                continue
            line = f"##[{name}]{text}"
        for secret in masks:
            line = line.replace(secret, "***")
        shown.append(line + "\n")
    return "".join(shown)


# Runs the shipped file after a prelude, which can change its constants and trace its functions.
LAUNCHER = f"""\
import os, sys
sys.path.insert(0, {str(HERE)!r})
import crates_io_auth as script
{{prelude}}
os._exit(script.run(sys.argv[1:]))
"""

# To see in a second what takes the script a minute.
IMPATIENT = """\
script.WAIT_SECONDS /= 60
script.BACKOFF_SECONDS = [seconds / 60 for seconds in script.BACKOFF_SECONDS]
"""


class World:
    """A GitHub, a registry, and the folders and processes of one job."""

    def __init__(self, folder: Path, tls: bool = False) -> None:
        self.folder = folder
        self.temp = folder / "runner temp"
        self.temp.mkdir(parents=True)
        self.pem = folder / "tls.pem"  # far quicker to load than the system's certificates
        self.pem.write_text(TLS_PEM)
        self.github = FakeGitHub(self.pem if tls else None)
        self.registry = FakeRegistry(self.pem if tls else None)
        self.processes: list[Process] = []

    def __enter__(self) -> World:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            if process.popen.poll() is None:
                process.popen.kill()
                process.finish()
        self.github.close()
        self.registry.close()

    def base(self, **more: str | None) -> dict[str, str]:
        """Return the environment that every process gets; None takes a variable out."""
        path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
        base = {
            "PATH": path,
            "SYSTEMROOT": os.environ.get("SYSTEMROOT"),
            "TMPDIR": str(self.folder),
            "TEMP": str(self.folder),
            "SSL_CERT_FILE": str(self.pem),
            **git_of(self.folder),
            **more,
        }
        return {name: value for name, value in base.items() if value is not None}

    def on_github(self, **more: str | None) -> dict[str, str]:
        """Return the environment of a step in a job with `id-token: write`."""
        files = {name: self.folder / name for name in ("output", "summary", "env")}
        for path in files.values():
            path.touch()
        step = {
            "GITHUB_ACTIONS": "true",
            "GITHUB_OUTPUT": str(files["output"]),
            "GITHUB_STEP_SUMMARY": str(files["summary"]),
            "GITHUB_ENV": str(files["env"]),
            "RUNNER_TEMP": str(self.temp),
            "ACTIONS_ID_TOKEN_REQUEST_URL": f"{self.github.url}/token?api-version=2.0",
            "ACTIONS_ID_TOKEN_REQUEST_TOKEN": REQUEST_TOKEN,
            "INPUT_URL": self.registry.url,
        }
        return self.base(**{**step, **more})

    def on_gitlab(self, **more: str | None) -> dict[str, str]:
        """Return the environment of a GitLab job with its one identity token for the registry."""
        token = self.github.issue(self.registry.audience, **self.github.gitlab_claims)
        job = {self.variable(): token, "CI_JOB_ID": "4711", "INPUT_URL": self.registry.url}
        return self.base(**{**job, **more})

    def variable(self) -> str:
        """Return the name of the variable with the identity token for the registry."""
        return variable_of(self.registry.audience)

    def start(self, *arguments: str, env: dict[str, str], prelude: str = "", **more: Any) -> Process:
        """Start the shipped file as the action does, or after a prelude."""
        file = ["-c", LAUNCHER.format(prelude=prelude)] if prelude else [str(SCRIPT)]
        return self.start_command([sys.executable, "-I", "-S", *file, *arguments], env, **more)

    def start_command(self, command: list[str], env: dict[str, str], **more: Any) -> Process:
        process = Process(self, command, env, **more)
        self.processes.append(process)
        return process

    def run(self, *arguments: str, env: dict[str, str], **more: Any) -> Result:
        """Run the shipped file to its end."""
        return self.start(*arguments, env=env, **more).finish()

    def run_command(self, command: list[str], env: dict[str, str], **more: Any) -> Result:
        return self.start_command(command, env, **more).finish()

    def record(self) -> Path:
        """Return the record of a job on GitHub."""
        return self.temp / "crates-io-auth"

    def recorded(self) -> list[Path]:
        """Return the files of all access tokens that are in a record."""
        return sorted(self.folder.glob("**/crates-io-auth*/*.json"))

    def hold_tokens(self, count: int, **more: object) -> None:
        """Leave access tokens that are alive in the record, as if a step on GitHub had got them."""
        record = script.Record(str(self.record()))
        record.create()
        for _ in range(count):
            token = new_access_token()
            self.registry.access_tokens.append(token)
            fields: dict[str, Any] = {
                "registry": self.registry.url,
                "token": token,
                "issued_at": time.time(),
                **more,
            }
            record.add(script.IssuedToken(**fields))

    def anonymous(self, text: str) -> str:
        """Return what a user saw, without the parts that change from run to run."""
        for token in [*self.github.identity_tokens, *self.registry.access_tokens]:
            text = text.replace(token, "<token>")
        text = text.replace(self.registry.authority, "<registry>").replace(str(self.folder), "<folder>")
        text = re.sub(r"[0-9]{2}:[0-9]{2} UTC", "<time>", text)
        return re.sub(r"Retrying in [0-9.]+ s", "Retrying in <seconds> s", text)


class Process:
    """A process of a job. However it ends, it must not have shown a secret."""

    def __init__(
        self,
        world: World,
        command: list[str],
        env: dict[str, str],
        token_in_stdout: str = "",
        **more: Any,
    ) -> None:
        self.world = world
        self.env = env
        self.token_in_stdout = token_in_stdout
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self.popen = subprocess.Popen(command, env=env, **{"cwd": world.folder, **pipes, **more})

    def finish(self, seconds: float = 50) -> Result:
        """Wait for the end, check that no secret shows, and return what is left."""
        outputs = self.popen.communicate(timeout=seconds)
        stdout, stderr = ((output or b"").decode().replace(os.linesep, "\n") for output in outputs)
        on_github = "GITHUB_ACTIONS" in self.env
        result = Result(
            self.popen.returncode,
            stdout,
            stderr,
            self.text_of("GITHUB_OUTPUT"),
            self.text_of("GITHUB_STEP_SUMMARY"),
            github_log(stdout + stderr) if on_github else stderr,
        )
        self.check_secrets(result, on_github)
        return result

    def text_of(self, variable: str) -> str:
        path = Path(self.env.get(variable, os.devnull))
        return path.read_text(encoding="utf-8") if path.is_file() else ""

    def check_secrets(self, result: Result, on_github: bool) -> None:
        """Fail if a secret or a traceback shows anywhere but where the secret belongs."""
        world = self.world
        secrets = [REQUEST_TOKEN, *world.github.identity_tokens, *world.registry.access_tokens]
        stdout, stderr, outputs = result.stdout, result.stderr, result.outputs
        if on_github:
            stderr = re.sub(r"^::add-mask::.*$", "", stderr, flags=re.MULTILINE)
            outputs = re.sub(r"^token=\S+$", "", outputs, flags=re.MULTILINE)
        elif result.status == 0:
            stdout = re.sub(r"\A\S+\n\Z", "", stdout)
        if self.token_in_stdout:
            stdout = re.sub(self.token_in_stdout, "", stdout)
        for text in (stdout, stderr, outputs, result.summary):
            assert not any(secret in text for secret in secrets), f"a secret shows: {result}"
            assert "Traceback" not in text, result


def read_until(stream: Any, text: str) -> str:
    """Read lines of a running process up to one that holds a text, and return them."""
    lines = ""
    while text not in lines:
        line = stream.readline().decode()
        assert line, f"It ended without {text!r}: {lines}"
        lines += line
    return lines


def wait_until(condition: Callable[[], object]) -> None:
    """Wait for something that another process does."""
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def git_of(folder: Path) -> dict[str, str]:
    """Return what keeps git from the user's own configuration, and from a repository around a folder."""
    ceiling = {"GIT_CEILING_DIRECTORIES": str(folder.parent)}
    return {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", **ceiling}


def variable_of(audience: str) -> str:
    """Return the name of the variable with an identity token for an audience."""
    return re.sub("[^A-Z0-9_]|^[0-9]", "_", audience.upper()) + "_ID_TOKEN"


# Fixtures and marks


@pytest.fixture(autouse=True)
def _no_git_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep git, also where a test calls it by itself, from the repository that GIT_DIR of a hook names."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    for name, value in git_of(tmp_path).items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path) as world:
        yield world


@pytest.fixture
def other_world(tmp_path: Path) -> Iterator[World]:
    """Another GitHub and another registry, in a folder of their own."""
    with World(tmp_path / "other") as world:
        yield world


@pytest.fixture
def tls_world(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path, tls=True) as world:
        yield world


def needs(*programs: str) -> Any:
    """Skip a test where it can't find its programs. In CI the test fails instead."""
    missing = [program for program in programs if shutil.which(program) is None]
    return pytest.mark.skipif(
        bool(missing) and "CI" not in os.environ, reason=f"not installed: {', '.join(missing)}"
    )


on_posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has none of it")
on_windows = pytest.mark.skipif(sys.platform != "win32", reason="it is about cmd.exe")
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="it needs /dev/full or /proc")


# The command line


@pytest.mark.parametrize("arguments", [["--help"], ["publishers", "--help"]], ids=["all", "a command"])
def test_the_help_lists_the_variables_that_each_command_reads(world: World, arguments: list[str]) -> None:
    result = world.run(*arguments, env=world.on_github())
    assert (result.status, result.stderr) == (0, "")
    section = result.stdout.partition("\nenvironment:\n  ")[2].partition("\n\n")[0]
    entries = [re.split(r" {2,}|\n +", entry) for entry in re.split(r"\n  (?! )", section)]
    command = re.compile("(?:main|main, post|post|check|publishers)(?=: )")
    assert {name: [text for line in lines for text in command.findall(line)] for name, *lines in entries} == {
        "INPUT_URL": ["main, post"],
        "CRATES_IO_ID_TOKEN": ["main"],
        "CARGO_REGISTRY_TOKEN": ["post", "publishers"],
        "CI_JOB_ID": ["main, post"],
        "TMPDIR, TEMP": ["main, post"],
        "CARGO_REGISTRIES_<NAME>_INDEX": ["check"],
        "HTTPS_PROXY, NO_PROXY, SSL_CERT_FILE": [],
    }
    assert not world.github.requests


WORKSPACE = ["--manifest-path", "--registry"]


@pytest.mark.parametrize(
    ("command", "names"),
    [
        pytest.param([], ["--version", "main", "post", "check", "publishers"], id="all"),
        pytest.param(["main"], ["--url"], id="main"),
        pytest.param(["post"], [], id="post"),
        pytest.param(["check"], [*WORKSPACE, "-p", "--exclude"], id="check"),
        pytest.param(
            ["publishers"],
            [*WORKSPACE, "--url", "--add", "--repository", "--workflow", "--environment", "--gitlab"],
            id="publishers",
        ),
    ],
)
def test_the_help_says_what_each_command_and_option_is_for(
    command: list[str], names: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("PYTHON_COLORS", "0")
    with pytest.raises(SystemExit):
        script.parse_arguments([*command, "--help"])
    listed = re.sub(r"\n {10,}", "  ", capsys.readouterr().out.partition("environment:")[0])
    entries = [line for line in listed.splitlines() if line.startswith("  ") and line != "  command"]
    assert {entry.split()[0].rstrip(",") for entry in entries} == {"-h", *names}
    for entry in entries:
        assert re.search(r"\S  +\S", entry), entry


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["mint"], id="unknown command"),
        pytest.param(["--url"], id="option without a value"),
        pytest.param(["post", "\udcff"], id="bytes that are no text", marks=on_posix),
        pytest.param(["post", "--url", "https://crates.io"], id="post with a URL"),
    ],
)
def test_a_wrong_command_line_gets_a_usage_line_and_status_2(world: World, arguments: list[str]) -> None:
    result = world.run(*arguments, env=world.on_github())
    assert result.status == 2
    assert result.stderr.startswith("usage: crates_io_auth.py ")
    assert not world.github.requests + world.registry.requests


def test_an_unexpected_failure_names_its_places_and_shows_no_traceback(world: World) -> None:
    result = world.run(env=world.on_github(), prelude="script.BACKOFF_SECONDS = None")
    assert result.status == 1
    first, second = result.log.splitlines()
    place = r"crates_io_auth\.py:[0-9]+"
    assert re.fullmatch(
        rf"##\[error\]crates_io_auth\.py failed unexpectedly: TypeError at {place}(, {place})+", first
    )
    assert "post" in second


# Getting a token


def test_on_github_the_action_masks_both_tokens_and_hands_one_over_and_post_revokes_it(world: World) -> None:
    result = world.run(env=world.on_github())
    assert result.status == 0
    assert result.outputs == f"token={world.registry.access_tokens[0]}\n"
    assert result.stdout == ""
    assert result.stderr.splitlines()[:2] == [
        f"::add-mask::{world.github.identity_tokens[0]}",
        f"::add-mask::{world.registry.access_tokens[0]}",
    ]
    assert (
        world.anonymous(result.log)
        == """\
crates-io-auth: Got an access token from http://<registry> for octo/crate, release.yml, environment release, \
valid for 30 minutes (until <time>).
crates-io-auth: The token is masked in this log, set as the output `token`, and revoked when the job ends.
"""
    )
    assert result.summary == ""
    post = world.run("post", env=world.on_github())
    assert post.status == 0
    assert world.anonymous(post.log) == "crates-io-auth: Revoked 1 access token.\n"
    assert not world.registry.alive()
    assert not world.recorded()


def test_outside_github_stdout_has_the_token_alone_and_nothing_a_workflow_command(world: World) -> None:
    env = world.on_gitlab()
    result = world.run(env=env)
    assert result.status == 0
    assert result.stdout == f"{world.registry.access_tokens[0]}\n"
    assert (
        world.anonymous(result.stderr)
        == """\
crates-io-auth: Got an access token from http://<registry> for octo/crate, .gitlab-ci.yml, environment \
release, valid for 30 minutes (until <time>).
crates-io-auth: The token is on stdout, and nothing masks it: keep it out of the log.
crates-io-auth: Revoke it at the end of the job: python3 crates_io_auth.py post
"""
    )
    assert world.run("post", env=env).status == 0
    assert not world.registry.alive()
    assert not world.recorded()


def test_the_log_says_in_utc_when_the_token_expires(world: World) -> None:
    before = time.time()
    result = world.run(env=world.on_github(TZ="XXX-5:30"))
    (shown,) = re.findall(r"\(until (.+)\)\.$", result.log, flags=re.MULTILINE)
    at = (before + 30 * 60, time.time() + 30 * 60)
    assert shown in [time.strftime("%H:%M UTC", time.gmtime(seconds)) for seconds in at]


def test_exchange_and_revocation_name_this_tool_and_send_nothing_but_their_token(world: World) -> None:
    version = world.run("--version", env=world.base()).stdout.strip()
    world.run(env=world.on_github())
    world.run("post", env=world.on_github())
    exchange, revocation = world.registry.requests
    assert (exchange.method, exchange.path) == ("POST", TOKENS_PATH)
    assert json.loads(exchange.body) == {"jwt": world.github.identity_tokens[0]}
    assert "authorization" not in exchange.headers
    assert (revocation.method, revocation.path, revocation.body) == ("DELETE", TOKENS_PATH, b"")
    assert revocation.headers["authorization"] == f"Bearer {world.registry.access_tokens[0]}"
    of_http = {"accept-encoding", "connection", "host", "user-agent"}
    assert set(exchange.headers) == {*of_http, "content-type", "content-length"}
    assert set(revocation.headers) == {*of_http, "authorization"}
    for request in (exchange, revocation):
        assert request.headers["user-agent"] == f"crates-io-auth/{version}"


def test_the_option_url_comes_first_and_the_audience_is_that_url_without_its_scheme(world: World) -> None:
    authority = f"localhost:{world.registry.port}"
    world.registry.audience = f"{authority}/some/Path"
    env = world.on_github(INPUT_URL="https://registry.invalid")
    assert world.run("main", "--url", f"HTTP://{authority.title()}/some/Path///", env=env).status == 0
    encoded = world.registry.audience.replace(":", "%3A").replace("/", "%2F")
    assert world.github.requests[0].path == f"/token?api-version=2.0&audience={encoded}"
    assert world.run("post", env=world.on_github()).status == 0
    assert not world.registry.alive()


def test_an_input_that_is_neither_true_nor_false_is_refused(world: World) -> None:
    result = world.run(env=world.on_github(INPUT_CREDENTIAL_PROVIDER="yes"))
    assert result.status == 1
    assert result.log.startswith("##[error]The input credential-provider must be true or false, but is yes\n")
    assert result.log.endswith("\nCorrect it in the workflow file, commit, and push a new tag.\n")
    assert not world.registry.requests


def test_true_and_false_are_read_in_any_case(monkeypatch: Any) -> None:
    spellings = {"True": True, "TRUE": True, "False": False, "FALSE": False, "": False}
    for value, is_true in spellings.items():
        monkeypatch.setenv("INPUT_CREDENTIAL_PROVIDER", value)
        assert script.GitHubActions().has_credential_provider() is is_true
    for value in ("True ", "1"):
        monkeypatch.setenv("INPUT_CREDENTIAL_PROVIDER", value)
        with pytest.raises(script.AuthError):
            script.GitHubActions().has_credential_provider()


def test_a_bare_host_means_https_over_which_a_token_is_issued_and_revoked(tls_world: World) -> None:
    world = tls_world
    result = world.run(env=world.on_github(INPUT_URL=world.registry.authority))
    assert result.status == 0
    assert f"from {world.registry.url} for" in result.log
    assert world.run("post", env=world.on_github()).status == 0
    assert not world.registry.alive()


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("file:///etc/passwd", id="another scheme"),
        pytest.param("https://user:/secret-of-the-user@crates.io", id="password with a slash"),
        pytest.param("https://crates.io\\@evil.example", id="backslash"),
        pytest.param("https://crates.io\n", id="line break at the end"),
        pytest.param("httpſ://crates.io", id="letter that is ASCII in lower case"),
        pytest.param("https://crates.io:", id="no port"),
        pytest.param("https://crates.io:65536", id="port that doesn't exist"),
        pytest.param("http://crates.io", id="plain http"),
        pytest.param("http://127.0.0.1.evil.example", id="plain http to a name that begins like an address"),
        pytest.param("http://127x0.0.1", id="plain http to a name that looks like an address"),
    ],
)
def test_a_url_that_can_t_be_a_registry_s_is_refused_and_its_password_not_shown(url: str) -> None:
    with pytest.raises(script.AuthError, match="^Invalid URL: .*\nIt must be https://host, ") as error:
        script.registry_url(url)
    assert "secret-of-the-user" not in str(error.value)


@pytest.mark.parametrize("url", ["", "https://user:secret-of-the-user@crates.io"], ids=["empty", "password"])
def test_a_wrong_url_is_refused_before_anything_is_sent(world: World, url: str) -> None:
    result = world.run("--url", url, env=world.on_github())
    assert result.status == 1
    assert result.log.startswith("##[error]Invalid URL: ")
    assert len(result.stderr.splitlines()) == 1
    assert "secret-of-the-user" not in result.stderr + result.summary
    assert not world.github.requests + world.registry.requests


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]"])
def test_plain_http_is_for_each_name_of_this_machine(host: str) -> None:
    url = script.registry_url(f"http://{host}:8080/x")
    assert (url, script.audience_of(url)) == (f"http://{host}:8080/x", f"{host}:8080/x")


def test_an_endpoint_of_github_whose_url_may_get_no_secret_is_refused(world: World) -> None:
    result = world.run(env=world.on_github(ACTIONS_ID_TOKEN_REQUEST_URL="http://evil.example/?x=1"))
    assert result.status == 1
    assert result.log.startswith("##[error]Invalid URL: ")


def test_outside_github_the_variable_is_named_after_the_audience(world: World) -> None:
    result = world.run("--url", "https://4staging.crates.io:8080/a-b", env=world.base())
    assert result.status == 1
    assert "no identity token in _STAGING_CRATES_IO_8080_A_B_ID_TOKEN\n" in result.stderr


def test_a_variable_that_does_not_hold_a_token_is_not_sent(world: World) -> None:
    two_lines, not_ascii = "one-line-and\nanother: line", "a-tökén-0123456789"
    for name, token, env in (
        (world.variable(), two_lines, world.on_gitlab(**{world.variable(): two_lines})),
        (
            "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
            not_ascii,
            world.on_github(ACTIONS_ID_TOKEN_REQUEST_TOKEN=not_ascii),
        ),
    ):
        result = world.run(env=env)
        assert result.status == 1
        assert (
            f"{name} does not hold a token\nA token consists of at least 8 of the characters A" in result.log
        )
        assert token not in result.log + result.summary
    assert not world.github.requests + world.registry.requests


@pytest.mark.parametrize(
    ("path", "message"),
    [
        pytest.param(None, "##[error]Can't use the variable GITHUB_OUTPUT: it is not set", id="unset"),
        pytest.param("{folder}/missing", "No such file or directory: '", id="missing"),
        pytest.param("/dev/full", "No space left on device", id="full", marks=on_linux),
    ],
)
def test_a_token_that_the_runner_does_not_take_stays_in_the_record_for_post(
    world: World, path: str | None, message: str
) -> None:
    path = path and path.format(folder=world.folder)
    result = world.run(env=world.on_github(GITHUB_OUTPUT=path))
    assert message in world.anonymous(result.log)
    assert result.outputs == ""
    assert not (world.folder / "missing").exists()
    assert result.status == 1
    assert len(world.recorded()) == len(world.registry.alive()) == 1


def test_a_token_that_no_process_reads_from_stdout_stays_in_the_record_for_post(world: World) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    result = world.run(env=world.on_gitlab(), stdout=writer)
    os.close(writer)
    assert result.status == 1
    assert len(world.recorded()) == len(world.registry.alive()) == 1


def test_main_masks_a_token_before_it_returns_to_a_caller_with_a_buffered_log(world: World) -> None:
    prelude = "sys.stderr.reconfigure(line_buffering=False)\nscript.main()\nos.write(2, b'returned\\n')\n"
    result = world.run(env=world.on_github(), prelude=f"{prelude}os._exit(0)")
    (token,) = world.registry.access_tokens
    assert result.stderr.index(f"::add-mask::{token}\n") < result.stderr.index("returned\n")


@on_posix
def test_without_stdout_the_token_is_not_said_to_be_there(world: World) -> None:
    result = world.run(env=world.on_gitlab(), preexec_fn=lambda: os.close(1))
    assert (result.status, result.stdout) == (1, "")
    assert "error: stdout is closed, and the access token would go there\n" in result.stderr
    assert "The token is on stdout" not in result.stderr
    assert len(world.recorded()) == 1


@on_posix
def test_without_stderr_stdout_has_the_token_alone(world: World) -> None:
    result = world.run(env=world.on_gitlab(), preexec_fn=lambda: os.close(2))
    assert (result.status, result.stdout) == (0, world.registry.access_tokens[0] + "\n")


@on_posix
def test_a_token_that_can_t_be_masked_is_not_handed_over_and_stays_in_the_record(world: World) -> None:
    log_is_gone = threading.Event()

    def respond_without_a_log(handler: Handler) -> None:
        log_is_gone.wait(20)
        handler.server.behave(handler)

    world.registry.faults = [respond_without_a_log]
    reader, writer = os.pipe()
    process = world.start(env=world.on_github(), stderr=writer)
    os.close(writer)
    with open(reader, "rb") as log:
        read_until(log, "::add-mask::")
    log_is_gone.set()
    result = process.finish()
    assert result.outputs == ""
    assert result.status == 1
    assert len(world.recorded()) == len(world.registry.alive()) == 1


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        pytest.param(None, "##[error]Can't use the variable RUNNER_TEMP: it is not set", id="unset"),
        pytest.param("{folder}/missing", "isn't usable: ", id="missing"),
    ],
)
def test_a_step_that_can_t_record_a_token_fails_before_it_asks_for_one(
    world: World, folder: str | None, message: str
) -> None:
    folder = folder and folder.format(folder=world.folder)
    result = world.run(env=world.on_github(RUNNER_TEMP=folder))
    assert result.status == 1
    assert message in world.anonymous(result.log)
    assert not world.github.requests + world.registry.requests


def test_a_relative_temporary_folder_is_refused_outside_github(world: World) -> None:
    result = world.run(env=world.on_gitlab(TMPDIR="runner temp"))
    assert result.status == 1
    assert "TMPDIR (or TEMP): runner temp is a relative path\nSet it to an absolute path.\n" in result.stderr
    assert not world.registry.requests


@on_posix
def test_in_an_ascii_locale_other_letters_are_utf_8_all_the_same(world: World) -> None:
    world.registry.faults = [refuse(400, "für crätes")]
    env = world.on_gitlab(LC_ALL="C", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    result = world.run_command([sys.executable, str(SCRIPT)], env)
    assert result.status == 1
    assert "für crätes" in result.stderr


# Refusals


def summary_of(message: str) -> str:
    """Return what the summary of a step has if it failed with a message."""
    return "### crates-io-auth\n\n" + textwrap.indent(message, "    ") + "\n"


def test_without_the_permission_the_message_shows_what_to_write(world: World) -> None:
    env = world.on_github(ACTIONS_ID_TOKEN_REQUEST_URL=None, ACTIONS_ID_TOKEN_REQUEST_TOKEN=None)
    result = world.run(env=env)
    assert result.status == 1
    message = """\
Missing permission: id-token: write
Add it to this job, commit, and push a new tag: *Re-run* uses the old workflow file.
  permissions:
    contents: read # unlisted permissions become none
    id-token: write
If this job is in a reusable workflow, the job that calls it needs this as well.
"""
    assert result.log == f"##[error]{message}"
    assert result.summary == summary_of(message)


FORK = "A pull request from a fork can't get an identity token\n"
PERMISSION = "Missing permission: id-token: write\n"


@pytest.mark.parametrize(
    ("name", "event", "message"),
    [
        pytest.param("pull_request", {"head": {"repo": {"id": 2}}}, FORK, id="fork"),
        pytest.param("pull_request", {"head": {"repo": None}}, FORK, id="deleted fork"),
        pytest.param("pull_request", {"head": {"repo": {"id": 1}}}, PERMISSION, id="no fork"),
        pytest.param("pull_request_target", {"head": {"repo": {"id": 2}}}, PERMISSION, id="target of a fork"),
    ],
)
def test_a_pull_request_from_a_fork_alone_is_told_that_it_never_gets_an_identity_token(
    tmp_path: Path, monkeypatch: Any, name: str, event: dict[str, object], message: str
) -> None:
    path = tmp_path / "event.json"
    path.write_text(json.dumps({"pull_request": {"base": {"repo": {"id": 1}}, **event}}))
    monkeypatch.delenv("ACTIONS_ID_TOKEN_REQUEST_URL", raising=False)
    monkeypatch.setenv("GITHUB_EVENT_NAME", name)
    monkeypatch.setenv("GITHUB_EVENT_PATH", str(path))
    with pytest.raises(script.AuthError, match=f"^{message}"):
        script.GitHubActions().endpoint()


def test_without_a_url_it_is_for_crates_io_and_shows_how_to_set_the_variable_on_gitlab(world: World) -> None:
    result = world.run(env=world.base(INPUT_URL=""))
    assert result.status == 1
    assert (
        result.stderr
        == """\
crates-io-auth: error: There is no identity token in CRATES_IO_ID_TOKEN
On GitLab, add this to the job, commit, and push:
  id_tokens:
    CRATES_IO_ID_TOKEN:
      aud: crates.io
crates.io accepts jobs on GitHub and gitlab.com. On your own machine, use `cargo login`.
"""
    )


def test_a_refusal_on_github_shows_which_publisher_is_missing_and_where_to_add_it(world: World) -> None:
    detail = REFUSALS["workflow"]
    world.registry.faults = [refuse(400, detail)]
    result = world.run(env=world.on_github())
    assert result.status == 1
    assert result.outputs == ""
    message = f"""\
127.0.0.1 refused the identity token: HTTP 400: {detail}
This job needs the trusted publisher octo/crate, release.yml, environment release.
Add it at http://<registry>/crates/<crate>/settings, and run the job again.
Or correct the workflow, commit, and push a new tag. A first version needs an API token.
"""
    assert world.anonymous(result.log) == f"##[error]{message}"
    assert world.anonymous(result.summary) == summary_of(message)


def test_a_refusal_on_gitlab_names_the_project_and_the_ci_file(world: World) -> None:
    world.registry.faults = [refuse(400, NO_CONFIG)]
    result = world.run(env=world.on_gitlab())
    assert result.status == 1
    first, second, *_ = result.stderr.splitlines()
    assert first == f"crates-io-auth: error: 127.0.0.1 refused the identity token: HTTP 400: {NO_CONFIG}"
    assert second == "This job needs the trusted publisher octo/crate, .gitlab-ci.yml, environment release."


def refusal(status: int, body: object, **claims: object) -> tuple[str, str]:
    """Return the first line and the advice of the error for a response to an identity token."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    response = script.Response("host", status, http.client.HTTPMessage(), content)
    first, _, advice = str(script.refusal(response, claims, "https://host")).partition("\n")
    return first, advice


@pytest.mark.parametrize(
    ("claims", "publisher"),
    [
        pytest.param({}, "(none), (none), environment (none)", id="GitHub"),
        pytest.param({"ci_config_ref_uri": "x"}, "(none), , environment (none)", id="GitLab"),
    ],
)
def test_claims_that_are_missing_are_shown_as_none(claims: dict[str, object], publisher: str) -> None:
    assert str(script.publisher_of(claims)) == publisher


@pytest.mark.parametrize(
    ("detail", "claims", "explanation"),
    [
        pytest.param("JWT has already been used", {}, "can be exchanged only once", id="used before"),
        pytest.param("Failed to decode JWT", {"exp": 1}, "It has expired.", id="expired"),
        pytest.param("Failed to decode JWT", {"aud": ["a", "b"]}, "for the audience a, b.", id="audience"),
        pytest.param("Unsupported JWT issuer: x", {"exp": 1}, "github.com and gitlab.com only", id="issuer"),
        pytest.param(NO_CONFIG, {"workflow_ref": "a"}, "environment (none).", id="no environment"),
        pytest.param(
            NO_CONFIG,
            {"workflow_ref": "a", "job_workflow_ref": "octo/shared/.github/workflows/x.yml@v1"},
            "The job is in a reusable workflow",
            id="reusable workflow",
        ),
        pytest.param(NO_CONFIG, {"workflow_ref": "a", "job_workflow_ref": "a"}, "trusted", id="not reusable"),
        pytest.param("Trusted Publishing does not support `workflow_run`", {}, "", id="clear by itself"),
    ],
)
def test_a_refusal_gets_the_advice_that_the_registry_does_not_give(
    detail: str, claims: dict[str, object], explanation: str
) -> None:
    first, advice = refusal(400, {"errors": [{"detail": detail}]}, **claims)
    assert first == f"host refused the identity token: HTTP 400: {detail}"
    assert explanation in advice
    assert bool(explanation) == bool(advice)
    assert ("reusable" in explanation) == ("reusable" in advice)


@pytest.mark.parametrize(
    ("status", "body", "problem"),
    [
        pytest.param(403, b"<h1>Blocked</h1>", "HTTP 403: <h1>Blocked</h1>", id="HTML"),
        pytest.param(403, b"", "HTTP 403", id="empty"),
        pytest.param(
            403, {"errors": [{"detail": 1}]}, 'HTTP 403: {"errors": [{"detail": 1}]}', id="other JSON"
        ),
        pytest.param(404, {"errors": [{"detail": "Not Found"}]}, "HTTP 404: Not Found", id="404"),
        pytest.param(403, b"\xff<br>", "HTTP 403: \ufffd<br>", id="not UTF-8"),
    ],
)
def test_where_no_registry_refuses_the_message_says_so(status: int, body: object, problem: str) -> None:
    first, advice = refusal(status, body)
    assert first == f"host has no trusted publishing at https://host{TOKENS_PATH} ({problem})"
    assert advice.startswith("Is the input `url` right?")


@pytest.mark.parametrize(
    ("token", "message"),
    [
        pytest.param("not-a-jwt", "is for no audience, not for 127.0.0.1", id="not a JWT"),
        pytest.param({"aud": None}, "is for no audience, not for 127.0.0.1", id="no audience"),
        pytest.param({"aud": "crates.io"}, "is for crates.io, not for 127.0.0.1", id="audience"),
    ],
)
def test_an_identity_token_of_a_variable_is_checked_before_it_is_sent(
    world: World, token: str | dict[str, Any], message: str
) -> None:
    if isinstance(token, dict):
        token = world.github.issue(**{"audience": world.registry.audience, **token})
    result = world.run(env=world.on_gitlab(**{world.variable(): token}))
    assert result.status == 1
    assert result.stderr.startswith(f"crates-io-auth: error: The identity token in {world.variable()} ")
    assert message in result.stderr
    assert f"\nRequest one for {world.registry.audience}, or correct the registry's URL." in result.stderr
    assert not world.registry.requests


@pytest.mark.parametrize(
    "odd", [{"repository": [1], "environment": {"a": 1}}, {"exp": "soon"}], ids=["publisher", "expiry"]
)
def test_an_identity_token_that_the_registry_may_accept_is_sent(world: World, odd: dict[str, object]) -> None:
    world.registry.faults = [refuse(400, NO_CONFIG)]
    expired = time.time() - 30  # the clocks may differ
    claims = {"aud": ["sts", world.registry.audience], "exp": expired, **odd}
    token = world.github.issue(world.registry.audience, **{**world.github.gitlab_claims, **claims})
    result = world.run(env=world.on_gitlab(**{world.variable(): token}))
    assert "This job needs the trusted publisher " in result.stderr
    assert json.loads(world.registry.requests[0].body) == {"jwt": token}


def test_outside_github_a_lost_response_ends_in_a_message_that_explains_it(world: World) -> None:
    world.registry.faults = [lose_response]
    result = world.run(env=world.on_gitlab(), prelude=IMPATIENT)
    assert result.status == 1
    assert "HTTP 400: JWT has already been used\n" in result.stderr
    assert "can be exchanged only once" in result.stderr


HOSTILE = (
    "\r\n::stop-commands::x\n::add-mask::a\u2028::error::b\u0085##[error]c\x1b[31m\x1b]0;d\x07\u202e"
    "</code><b>e</b> [f](https://evil.example) ![g](https://evil.example/h.png)\n"
    "```\n# i\n<script>j</script>\n"
)


def assert_harmless(result: Result) -> None:
    """Fail if a line of the log or the summary is not one of ours, or anything in it is active."""
    for text in (result.stdout, result.stderr, result.summary):
        assert all(character.isprintable() for character in text.replace("\n", "")), result
        assert "##[" not in text, result
    for line in (result.stdout + result.stderr).splitlines():
        if line.lstrip().startswith("::"):
            assert line.startswith(("::add-mask::", "::error title=crates-io-auth::")), result
    heading, _, code = result.summary.partition("\n\n")
    assert heading in ("", "### crates-io-auth"), result
    assert all(line.startswith("    ") for line in code.rstrip("\n").splitlines()), result


@pytest.mark.parametrize(
    ("ci", "fault"),
    [
        pytest.param(World.on_gitlab, refuse(400, HOSTILE), id="detail"),
        pytest.param(World.on_gitlab, respond(418, HOSTILE.encode()), id="body"),
        pytest.param(World.on_github, respond(503, HOSTILE.encode()), id="body before a retry"),
        pytest.param(World.on_github, send_bytes(HOSTILE.strip().encode()), id="not HTTP"),
        pytest.param(
            World.on_github,
            send_bytes(b"HTTP/1.1 302 x\r\nLocation: ::add-mask::\x1b[31m##[error]\xe2\x80\xa8<b>\r\n\r\n"),
            id="redirect",
        ),
    ],
)
def test_text_from_the_registry_stays_text(
    world: World, ci: Callable[[World], dict[str, str]], fault: Fault
) -> None:
    world.registry.faults = [fault]
    result = world.run(env=ci(world), prelude=IMPATIENT)
    assert re.search("HTTP (400|418|503)|stop-commands|redirects to", result.log)
    assert_harmless(result)


@pytest.mark.parametrize("detail", [NO_CONFIG, "Failed to decode JWT", None])
def test_claims_stay_text(world: World, detail: str | None) -> None:
    world.github.claims = dict.fromkeys([*world.github.claims, "aud"], HOSTILE)
    world.registry.audience = HOSTILE
    world.registry.faults = [refuse(400, detail)] if detail else []
    result = world.run(env=world.on_github())
    assert result.status == (1 if detail else 0)
    assert "::stop-commands::x" in result.log
    assert_harmless(result)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"INPUT_URL": f"https://{HOSTILE}"}, id="URL"),
        pytest.param({"INPUT_URL": "https://\udcff\udcfe"}, id="bytes that are no text", marks=on_posix),
        pytest.param({"RUNNER_TEMP": f"{{folder}}/{HOSTILE}"}, id="folder"),
        pytest.param({"GITHUB_OUTPUT": f"{{folder}}/{HOSTILE}"}, id="file"),
    ],
)
def test_text_from_the_environment_stays_text(world: World, changes: dict[str, str]) -> None:
    changes = {name: value.replace("{folder}", str(world.folder)) for name, value in changes.items()}
    result = world.run(env=world.on_github(**changes))
    assert result.status == 1
    assert_harmless(result)


def repeat_request(handler: Handler) -> None:
    """Refuse a request, and repeat the secrets that it carried."""
    request = handler.request_read
    secrets = f"{request.headers.get('authorization')} {request.body.decode()}"
    handler.respond(403, f"You sent {secrets}".encode())


def test_a_registry_that_repeats_the_identity_token_does_not_get_it_shown(world: World) -> None:
    world.registry.faults = [repeat_request]
    env = world.on_gitlab()
    # A secret is hidden for what it is, not for how it looks: this one is not seen to be a JWT.
    env[world.variable()] = world.github.issue(world.registry.audience).replace("eyJ", "/yJ", 1)
    assert 'You sent None {"jwt": "***"}' in world.run(env=env).stderr


def test_a_registry_that_repeats_the_access_token_does_not_get_it_shown(world: World) -> None:
    world.hold_tokens(1, token="an-access-token-of-another-registry")
    world.registry.faults = [repeat_request]
    assert "You sent Bearer ***" in world.run("post", env=world.on_github()).log


def test_an_endpoint_that_repeats_the_request_token_does_not_get_it_shown(world: World) -> None:
    world.github.faults = [
        repeat_request,
        send_bytes(f"Bearer {REQUEST_TOKEN}\r\n\r\n".encode()),
        respond(403, b"x" * 490 + f" {REQUEST_TOKEN}".encode()),  # it is cut after 500 characters
    ]
    result = world.run(env=world.on_github(), prelude=IMPATIENT)
    assert result.status == 0
    for shown in ("HTTP 403: You sent Bearer ***. ", "Bearer *** (BadStatusLine)", f"{'x' * 490} ***. "):
        assert shown in result.log


def test_an_access_token_in_an_odd_response_is_neither_used_nor_shown(world: World) -> None:
    odd = [new_access_token(), "of-another-form"]
    world.registry.access_tokens.extend(odd)
    world.registry.faults = [respond(500, {"token": odd[0]}), respond(200, {"access_token": odd[1]})]
    assert world.run(env=world.on_gitlab(), prelude=IMPATIENT).token not in odd
    assert len(world.registry.requests) == 3


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param("http://user:secret@proxy http://x@y", "http://***@proxy http://***@y", id="passwords"),
        pytest.param("http://a/b jo@example.com", "http://a/b jo@example.com", id="address"),
        pytest.param("acme/MonkeyJava a_cio_tp_b", "acme/MonkeyJava a_cio_tp_b", id="parts of words"),
        pytest.param("a cio_tp_abceyJdef.x b", "a *** b", id="access token"),
        pytest.param('"eyJhbGci-_é.x.y', '"***', id="JWT"),
        pytest.param(
            "##[error]x ###vso[task.y]", "# #[error]x # # #vso[task.y]", id="commands of a CI system"
        ),
        pytest.param("a\n::b\x1b[31m\u202ec\u2028d", "a ::b?[31m?c d", id="control characters"),
        pytest.param("x" * 500, "x" * 500, id="just short enough"),
        pytest.param("x" * 501, "x" * 500 + "...", id="long"),
    ],
)
def test_text_from_outside_is_shown_without_what_is_secret_or_active(text: str, shown: str) -> None:
    assert script.one_line(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param("%0A::error::x%25", "%0A::error::x%25", id="percent signs"),
        pytest.param("//" * 500_000 + "@", "/" * 500 + "...", id="made to keep the redaction busy"),
    ],
)
def test_text_that_is_hard_to_show_is_shown_all_the_same(world: World, text: str, shown: str) -> None:
    world.registry.faults = [refuse(400, text)]
    result = world.run(env=world.on_github())
    assert result.log == f"##[error]127.0.0.1 refused the identity token: HTTP 400: {shown}\n"


def test_a_secret_that_begins_with_another_is_hidden_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "SECRETS", {"s3cr3t-token", "s3cr3t-token-of-two"})
    assert script.printable("s3cr3t-token-of-two, s3cr3t-token") == "***, ***"


# The wire


def test_the_limits_in_seconds_and_bytes_are_these() -> None:
    assert script.COMMAND_SECONDS == 150
    assert script.REQUESTS_SECONDS == 140
    assert script.WAIT_SECONDS == 30
    assert script.BACKOFF_SECONDS == (1, 2, 4)
    assert script.ATTEMPTS == 4
    assert script.RETRY_AFTER_SECONDS == 30
    assert script.API_PAUSE_SECONDS == 1
    assert script.LIFETIME_SECONDS == 30 * 60
    assert script.FRESH_SECONDS == 25 * 60
    assert script.RESPONSE_BYTES == 1024 * 1024
    assert script.INDEX_BYTES == 16 * 1024 * 1024


TRANSIENT = {
    **{str(code): respond(code) for code in (408, 429, 500)},
    "reset": reset,
    "not HTTP": send_bytes(b"SSH-2.0-OpenSSH\r\n"),
    "not JSON": respond(200, b"<html>"),
    "JSON of another shape": respond(200, ["token"]),
    "nested JSON": respond(200, b'{"token":' * 100_000),
    "token of another type": respond(200, {"token": 1, "value": 1}),
    "empty token": respond(200, {"token": "", "value": ""}),
    "token of two lines": respond(200, {"token": "one-line\nanother", "value": "one-line\nanother"}),
    "cut off": send_bytes(b'HTTP/1.1 200 OK\r\nContent-Length: 60\r\n\r\n{"token": "cut-off-token"}'),
    "silence": never_respond,
    "lost response": lose_response,
}


PERSISTENT = "script.WAIT_SECONDS = 0.5\nscript.BACKOFF_SECONDS = [0] * 20"


def test_a_transient_failure_of_the_registry_is_retried_with_a_new_identity_token(world: World) -> None:
    world.registry.faults = list(TRANSIENT.values())
    result = world.run(env=world.on_github(), prelude=PERSISTENT)
    assert result.status == 0
    assert result.token in world.registry.alive()
    identity_tokens = {json.loads(request.body)["jwt"] for request in world.registry.requests}
    assert len(identity_tokens) == result.log.count(" Retrying in ") + 1 == len(TRANSIENT) + 1


# The same code reads the responses of both servers: of the broken ones, one of each kind is enough here.
GITHUB_TRANSIENT = {
    **{name: TRANSIENT[name] for name in ("reset", "token of two lines")},
    **{str(code): respond(code, {"value": "an-identity-token"}) for code in (302, 403)},
}


def test_whatever_github_s_endpoint_responds_but_a_token_is_retried(world: World) -> None:
    world.github.faults = list(GITHUB_TRANSIENT.values())
    result = world.run(env=world.on_github(), prelude=PERSISTENT)
    assert result.status == 0
    assert result.token in world.registry.alive()
    assert result.log.count(" Retrying in ") == len(GITHUB_TRANSIENT)
    assert len(world.registry.requests) == 1


def test_a_revocation_is_retried(world: World) -> None:
    world.hold_tokens(1)
    world.registry.faults = [lose_response]
    assert world.run("post", env=world.on_github(), prelude=IMPATIENT).status == 0
    assert not world.registry.alive()
    assert not world.recorded()


def test_a_refusal_of_the_registry_is_final(world: World) -> None:
    world.registry.faults = [respond(499)]
    result = world.run(env=world.on_github())
    assert result.status == 1
    assert "##[error]127.0.0.1 has no trusted publishing at " in result.log
    assert len(world.registry.requests) == 1


@on_posix
def test_a_server_that_trickles_is_ended_by_the_alarm_of_the_command(world: World) -> None:
    world.registry.faults = [trickle(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")]
    result = world.run(env=world.on_github(), prelude="script.COMMAND_SECONDS = 1")
    assert result.status == 1
    assert result.log.startswith("##[error]Stopped after 1 seconds")
    assert len(world.registry.requests) == 1


@on_posix
@needs("cargo")
@pytest.mark.parametrize(
    ("command", "cargo", "level"),
    [
        pytest.param("post", "", "##[warning]", id="post"),
        pytest.param("check", "", "##[error]", id="check, with a slow index"),
        pytest.param("check", "#!/bin/sh\nexec sleep 60\n", "##[error]", id="check, with a slow cargo"),
        pytest.param("--cargo-plugin", "", "crates-io-auth: error: ", id="the provider, with a silent cargo"),
    ],
)
def test_the_alarm_ends_every_command_that_gets_or_revokes_tokens_or_checks(
    world: World, command: str, cargo: str, level: str
) -> None:
    world.hold_tokens(1)
    write_workspace(world.folder / "workspace", {"alpha": ""})
    world.registry.faults = [trickle(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")]
    env = world.on_github(**cargo_environment(world))
    if cargo:
        (world.folder / "cargo").write_text(cargo)
        (world.folder / "cargo").chmod(0o755)
        env["PATH"] = os.pathsep.join([str(world.folder), env["PATH"]])
    reader, writer = os.pipe()  # that nobody writes to
    registry = ["--registry", "local"] if command == "check" else []
    prelude = "script.COMMAND_SECONDS = 0.5"
    folder = world.folder / "workspace"
    result = world.run(command, *registry, env=env, prelude=prelude, cwd=folder, stdin=reader)
    os.close(reader)
    os.close(writer)
    assert result.status == 1
    assert f"{level}Stopped after 0.5 seconds: a server or cargo took too long. Run this" in result.log


def test_a_request_ends_with_the_time_for_all_requests(world: World) -> None:
    world.registry.faults = [never_respond]
    process = world.start(env=world.on_github(), prelude="script.REQUESTS_SECONDS = 0.5")
    result = process.finish(seconds=20)
    assert result.status == 1
    assert result.log.startswith("##[error]Couldn't get a valid response from 127.0.0.1: timed out")


def test_a_request_is_not_sent_after_its_deadline(world: World) -> None:
    with pytest.raises(script.TransientError, match="127.0.0.1: no time is left"):
        script.send("GET", world.registry.url, time.monotonic())
    assert not world.registry.requests


def test_no_attempt_begins_after_the_time_for_all_requests(world: World) -> None:
    world.registry.faults = [respond(503), respond(503, Retry_After="25")]
    result = world.run(env=world.on_github(), prelude=f"{IMPATIENT}script.REQUESTS_SECONDS = 20")
    assert result.status == 1
    assert "##[error]Couldn't get a valid response from 127.0.0.1: HTTP 503\n" in result.log
    assert len(world.registry.requests) == 2


def test_after_four_attempts_the_last_response_is_shown(world: World) -> None:
    world.registry.faults = [respond(503, {"errors": [{"detail": "In maintenance"}]})] * 9
    result = world.run(env=world.on_gitlab(), prelude=IMPATIENT)
    assert result.status == 1
    assert len(world.registry.requests) == 4
    failure = "Couldn't get a valid response from 127.0.0.1: HTTP 503: In maintenance"
    retrying = f"crates-io-auth: {failure}. Retrying in <seconds> s"
    assert (
        world.anonymous(result.stderr)
        == f"""\
{retrying} (attempt 2 of 4).
{retrying} (attempt 3 of 4).
{retrying} (attempt 4 of 4).
crates-io-auth: error: {failure}
Run this again later (on GitHub: Re-run failed jobs).
If it fails again: is the host spelled right? Does this network need a proxy (HTTPS_PROXY)?
"""
    )


@pytest.mark.parametrize(
    ("retry_after", "pause"),
    [
        pytest.param("2", 2, id="seconds"),
        pytest.param("Mon, 01 Jan 2001 00:00:00 GMT", 0, id="past"),
        pytest.param("01 Jan 2001 00.00.00.00 GMT", 0, id="odd date"),
        pytest.param("soon", 0, id="neither"),
        pytest.param("9" * 400, 30, id="endless number"),
        pytest.param("Fri, 01 Jan 2999 00:00:00 GMT", 30, id="far date"),
    ],
)
def test_retry_after_is_a_number_or_a_date_and_at_most_30_seconds(retry_after: str, pause: int) -> None:
    assert script.parse_retry_after(retry_after) == pause


def test_between_attempts_it_waits_at_least_as_long_as_the_server_asks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def attempt() -> None:
        raise script.TransientError("host", "reason", retry_after=0 if pauses else 3)

    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    with pytest.raises(script.TransientError):
        script.with_retries(attempt, time.monotonic() + 100)
    assert pauses == [3, 2, 4]


def test_no_retry_after_makes_the_pause_shorter(world: World) -> None:
    world.registry.faults = [respond(503, Retry_After="0")]
    process = world.start(env=world.on_github(), bufsize=0)
    assert "Retrying in 1 s (attempt 2 of 4)." in read_until(process.popen.stderr, "Retrying in")


def test_a_redirect_is_never_followed(world: World, other_world: World) -> None:
    there = f"{other_world.registry.url}/there"
    world.github.faults = [respond(307, Location=there)]  # the next attempt gets an identity token
    world.registry.faults = [respond(302, Location=there)] * 2
    result = world.run(env=world.on_github(), prelude=IMPATIENT)
    assert (result.status, result.log.count(f"redirects to {there}")) == (1, 2)
    world.hold_tokens(1)
    result = world.run("post", env=world.on_github())
    assert (result.status, result.log.count(f"redirects to {there}")) == (1, 1)
    assert len(world.registry.requests) == 2
    assert not other_world.registry.requests


def test_a_certificate_that_is_not_trusted_is_final_and_nothing_is_sent(tls_world: World) -> None:
    result = tls_world.run(env=tls_world.on_gitlab(SSL_CERT_FILE=None))
    assert result.status == 1
    assert result.stderr.startswith(
        "crates-io-auth: error: The certificate of 127.0.0.1 is not trusted: self"
    )
    assert "SSL_CERT_FILE" in result.stderr
    assert not tls_world.registry.requests


def test_a_certificate_for_another_host_is_final_and_nothing_is_sent(tls_world: World) -> None:
    token = tls_world.github.issue("crates.io")
    with contextlib.closing(Proxy(tls_world.registry)) as proxy:
        env = tls_world.on_gitlab(HTTPS_PROXY=proxy.url, CRATES_IO_ID_TOKEN=token)
        result = tls_world.run("--url", "crates.io", env=env)
    assert result.status == 1
    assert result.stderr.startswith(
        "crates-io-auth: error: The certificate of crates.io is not trusted: Hostname mismatch"
    )
    assert not tls_world.registry.requests


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with contextlib.closing(Proxy()) as proxy:
        yield proxy


def test_https_goes_through_the_proxy_of_the_environment(tls_world: World, proxy: Proxy) -> None:
    url = proxy.url.replace("http://", "http://user:p%40ss!word@")
    assert tls_world.run(env=tls_world.on_github(HTTPS_PROXY=url)).status == 0
    assert proxy.tunnels == [tls_world.github.authority, tls_world.registry.authority]


def test_no_proxy_is_respected(tls_world: World, proxy: Proxy) -> None:
    env = tls_world.on_github(HTTPS_PROXY=proxy.url, NO_PROXY="127.0.0.1")
    assert tls_world.run(env=env).status == 0
    assert not proxy.tunnels


def test_plain_http_to_this_machine_never_goes_through_a_proxy(world: World, proxy: Proxy) -> None:
    names = ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "DEFAULT_PROXY")
    assert world.run(env=world.on_github(**dict.fromkeys(names, proxy.url))).status == 0
    assert not proxy.requests + proxy.tunnels


@pytest.mark.parametrize(
    "url",
    ["http://user:p#word-of-user@127.0.0.1:3128:x", "http:/user:word-of-user@127.0.0.1"],
    ids=["port", "slash"],
)
def test_a_malformed_proxy_url_is_not_shown(tls_world: World, url: str) -> None:
    result = tls_world.run(env=tls_world.on_github(HTTPS_PROXY=url), prelude=IMPATIENT)
    assert result.status == 1
    assert (
        "##[error]Couldn't get a valid response from 127.0.0.1: is the URL, or HTTPS_PROXY, valid? ("
        in result.log
    )
    assert "word-of-user" not in result.stderr + result.summary
    assert not tls_world.github.requests


def test_an_endless_response_is_not_read_beyond_a_mebibyte(world: World) -> None:
    sent = [0]

    def endless(handler: Handler) -> None:
        handler.wfile.write(b'HTTP/1.1 200 OK\r\n\r\n{"token": "a"}')
        with contextlib.suppress(OSError):
            while sent[0] < 64 * 1024 * 1024:
                sent[0] += handler.wfile.write(b" " * 65536)

    world.registry.faults = [endless]
    result = world.run(env=world.on_github(), prelude=IMPATIENT)
    assert result.token in world.registry.alive()
    # Beyond what was read, only the sockets' buffers can hold any.
    assert sent[0] < 16 * 1024 * 1024


def test_one_tls_context_serves_the_whole_run(tls_world: World) -> None:
    count = """\
import ssl
real = ssl.create_default_context
ssl.create_default_context = lambda: print('a context', flush=True) or real()
"""
    result = tls_world.run(env=tls_world.on_github(), prelude=count)
    assert result.outputs
    assert result.stdout == "a context\n"


# The record


@on_posix
def test_the_record_has_a_json_file_for_each_token_that_only_its_owner_can_read(world: World) -> None:
    asked_at = []

    def note_time(handler: Handler) -> None:
        asked_at.append(time.time())
        world.registry.behave(handler)

    world.registry.faults = [note_time]
    before = time.time()
    world.run(env=world.on_github())
    (path,) = world.record().iterdir()
    entry = json.loads(path.read_text())
    assert before <= entry.pop("issued_at") <= asked_at[0]
    assert entry == {"registry": world.registry.url, "token": world.registry.access_tokens[0]}
    assert (path.suffix, stat.S_IMODE(path.stat().st_mode)) == (".json", 0o600)
    assert stat.S_IMODE(world.record().stat().st_mode) == 0o700


def test_a_job_revokes_no_token_of_another(world: World) -> None:
    first, second = [world.run(env=world.on_gitlab(CI_JOB_ID=job)).token for job in ("7", "8")]
    assert world.run("post", env=world.on_gitlab(CI_JOB_ID="7")).status == 0
    assert (world.registry.revoked, world.registry.alive()) == ([first], {second})


@pytest.mark.parametrize(
    ("first", "second"),
    [("../../7/1", "../../7.1"), ("x" * 300, "x" * 301), ("\udcff", "\udcfe")],
    ids=["path", "long", "not UTF-8"],
)
def test_two_job_ids_never_share_a_record(tmp_path: Path, monkeypatch: Any, first: str, second: str) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    for job in (first, second):
        monkeypatch.setenv("CI_JOB_ID", job)
        script.Record(script.CI().record_path()).create()
    assert len(list(tmp_path.iterdir())) == 2


def test_without_a_job_id_all_jobs_of_a_user_share_a_record(tmp_path: Path, monkeypatch: Any) -> None:
    user = "" if sys.platform == "win32" else f"-{os.geteuid()}"
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("CI_JOB_ID", "")
    assert script.CI().record_path() == str(tmp_path / f"crates-io-auth{user}-no-job-id")
    monkeypatch.delenv("CI_JOB_ID")
    assert script.CI().record_path() == str(tmp_path / f"crates-io-auth{user}-no-job-id")


def test_outside_github_the_record_is_in_tmpdir_or_else_in_temp_also_if_it_can_t_be(world: World) -> None:
    missing = str(world.folder / "missing")
    assert world.run(env=world.on_gitlab(TEMP=missing)).status == 0
    assert world.run(env=world.on_gitlab(TMPDIR=None)).status == 0
    assert len(world.recorded()) == 2
    result = world.run(env=world.on_gitlab(TMPDIR=missing))
    assert result.status == 1
    assert "The environment of this step isn't usable: " in result.stderr
    assert len(world.registry.requests) == 2


@on_posix
def test_outside_github_without_tmpdir_and_temp_the_record_is_in_tmp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TMPDIR", raising=False)
    monkeypatch.delenv("TEMP", raising=False)
    assert os.path.dirname(script.CI().record_path()) == "/tmp"


def plant_folder(path: Path, mode: int) -> None:
    path.mkdir()
    path.chmod(mode)  # mkdir would leave out what the umask forbids


def plant_link(path: Path) -> None:
    (path.parent / "elsewhere").mkdir(0o700)
    path.symlink_to(path.parent / "elsewhere")


@on_posix
@pytest.mark.parametrize(
    ("plant", "user"),
    [
        pytest.param(lambda path: plant_folder(path, 0o740), None, id="readable by a group"),
        pytest.param(lambda path: plant_folder(path, 0o701), None, id="open to all"),
        pytest.param(lambda path: plant_folder(path, 0o700), 12345, id="of another user"),
        pytest.param(plant_link, None, id="link"),
        pytest.param(lambda path: path.touch(0o600), None, id="file"),
    ],
)
def test_what_is_planted_in_place_of_the_record_is_refused(
    tmp_path: Path, monkeypatch: Any, plant: Callable[[Path], None], user: int | None
) -> None:
    plant(tmp_path / "record")
    if user:
        monkeypatch.setattr(os, "geteuid", lambda: user)
    with pytest.raises(script.AuthError, match="^Can't use .*record to record access tokens: "):
        script.Record(str(tmp_path / "record")).create()


@on_posix
def test_a_planted_record_is_refused_before_a_token_is_asked_for(world: World) -> None:
    plant_link(world.record())
    result = world.run(env=world.on_github())
    assert result.status == 1
    assert result.log.startswith(f"##[error]Can't use {world.record()} to record access tokens: ")
    assert "\nIt must not be a link, and its mode must be 0700. Find out who made it, and" in result.log
    assert not world.github.requests + world.registry.requests


@on_posix
def test_post_revokes_what_is_in_a_record_that_became_a_link_and_open_to_others(world: World) -> None:
    world.hold_tokens(1)
    world.record().chmod(0o777)
    world.record().rename(world.folder / "crates-io-auth")
    world.record().symlink_to(world.folder / "crates-io-auth")
    assert world.run("post", env=world.on_github()).status == 0
    assert not world.registry.alive()
    assert not world.recorded()


@on_posix
def test_a_token_that_can_t_be_recorded_whole_is_not_handed_over(world: World) -> None:
    import resource

    env = world.on_gitlab()
    result = world.run(env=env, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20, 20)))
    assert (result.status, result.stdout) == (1, "")
    assert "The environment of this step isn't usable: [Errno 27] File too large" in result.stderr
    assert world.registry.access_tokens
    result = world.run("post", env=env)
    assert result.status == 0
    assert re.search(r"^crates-io-auth: Skipped .*\.json, which can't be read", result.stderr)
    assert result.stderr.endswith("\ncrates-io-auth: Nothing to revoke.\n")


def record_entry(**fields: object) -> bytes:
    """Return what stands in a file of the record."""
    return json.dumps(
        {"registry": "http://127.0.0.1:1", "token": "0123456789", "issued_at": 1, **fields}
    ).encode()


DAMAGES = {
    "garbage": b"\x00\xff\xfe garbage",
    "half": record_entry()[:-20],
    "another-shape": b"[1, 2]",
    "nested": b"[" * 100_000,
    "no-registry": record_entry(registry=None),
    "token-of-two-lines": record_entry(token="one-line\nanother"),
    "lone-surrogate": record_entry(token="0123456789\ud800"),
    "no-number": record_entry(issued_at="1"),
}


def test_files_that_can_t_be_read_are_told_and_the_others_are_revoked(world: World) -> None:
    world.hold_tokens(2)
    for name, content in DAMAGES.items():
        (world.record() / f"{name}.json").write_bytes(content)
    (world.record() / "folder.json").mkdir()
    result = world.run("post", env=world.on_github())
    assert result.status == 0
    told = re.findall(r"^crates-io-auth: Skipped .*[/\\](.+)\.json, which", result.log, flags=re.MULTILINE)
    assert sorted(told) == sorted([*DAMAGES, "folder"])
    assert result.log.endswith("\ncrates-io-auth: Revoked 2 access tokens.\n")
    assert not world.registry.alive()


def test_a_record_that_names_a_refused_registry_sends_nothing_there(world: World, other_world: World) -> None:
    world.hold_tokens(1)
    authority = other_world.registry.authority
    for number, url in enumerate((f"http://user@{authority}", f"http://{authority}?x")):
        (world.record() / f"{number}.json").write_bytes(record_entry(registry=url, token=new_access_token()))
    result = world.run("post", env=world.on_github())
    assert result.status == 1
    assert result.log.count("  Invalid URL: ") == 2
    assert not world.registry.alive()
    assert not other_world.registry.requests


def test_mains_and_posts_at_once_lose_no_token(world: World) -> None:
    commands = ["main", "main", "post"] * 2
    processes = [world.start(command, env=world.on_gitlab()) for command in commands]
    assert [process.finish().status for process in processes] == [0] * 6
    assert len(world.registry.access_tokens) == 4
    assert world.run("post", env=world.on_gitlab()).status == 0
    assert not world.registry.alive()
    assert not world.recorded()


ATOMS = [
    *("https://", "http://", "crates.io", "localhost", "127.0.0.1", "[::1]", "443", "::", "##[", "s3cr3t"),
    *("null", "true", "1e999", "-1", "NaN", "\\ud800", "\\u0000", "9" * 400, "٣", "𝟘", "cio_tp_", "eyJ"),
    *("already been used", "decode JWT", "JWT issuer", "Trusted Publishing config"),
    *("Mon", "GMT", "-0000", "+9999", "00:00:00", "99:99:99", "01 Jan 2001", "31 Feb 99999"),
    *":@/?#%.=-{}[]\"',0 \t\n\r\x00\x1b\x7f\x85\u2028\u202e\ud800\udcffſé",
]


def test_whatever_comes_in_only_the_script_s_own_errors_come_out(tmp_path: Path, monkeypatch: Any) -> None:
    seed = int(os.environ.get("FUZZ_SEED") or random.SystemRandom().randrange(10**9))
    print(f"FUZZ_SEED={seed}")
    dice = random.Random(seed)
    monkeypatch.setattr(script, "SECRETS", {"s3cr3t"})

    def response(text: str) -> script.Response:
        headers = http.client.HTTPMessage()
        headers["Retry-After"] = headers["Location"] = re.sub("[^ -~\xa0-\xff]", " ", text)
        body = dice.choice([text, json.dumps({"errors": [{"detail": text}]})])
        status = dice.choice([200, 204, 302, 400, 404, 429, 500, 999])
        return script.Response("host", status, headers, body.encode("utf-8", "surrogatepass"))

    def claims(text: str) -> dict[str, Any]:
        odd = dict.fromkeys(["aud", "exp", "repository", "workflow_ref", "environment"], text)
        payload = dice.choice([text, json.dumps(odd)]).encode("utf-8", "surrogatepass")
        return script.claims_of(dice.choice([text, f"x.{base64.urlsafe_b64encode(payload).decode()}.x"]))

    def recorded(text: str) -> None:
        content = dice.choice([text, f'{{"registry": "{text}", "token": "{text}", "issued_at": {text}}}'])
        (tmp_path / "x.json").write_bytes(content.encode("utf-8", "surrogatepass"))
        script.Record(str(tmp_path)).tokens()

    targets: list[Callable[[str], object]] = [
        recorded,
        script.registry_url,
        lambda text: script.entries_in(response(text)),
        lambda text: response(text).error(),
        lambda text: script.refusal(response(text), claims(text), "https://host"),
    ]
    for _ in range(4000):
        text = "".join(dice.choices(ATOMS, k=dice.randrange(12)))
        script.SECRETS.intersection_update({"s3cr3t"})
        try:
            came_out = dice.choice(targets)(text)
        except script.AuthError as error:
            came_out = error
        if isinstance(came_out, script.AuthError):
            shown = str(came_out)
            assert shown.replace("\n", "").isprintable(), text
            assert not re.search("##|s3cr3t|^::", shown, flags=re.MULTILINE), text


# Revoking


def test_nothing_to_revoke_is_a_quiet_success_also_after_a_step_that_asked_for_nothing(world: World) -> None:
    assert world.run(env=world.on_github(INPUT_URL="ftp://x")).status == 1
    for env in (world.on_github(), world.on_gitlab(CARGO_REGISTRY_TOKEN="")):
        result = world.run("post", env=env)
        assert (result.status, result.stdout) == (0, "")
        assert result.stderr == "crates-io-auth: Nothing to revoke.\n"


def test_without_the_record_post_warns_on_github_and_revokes_a_token_of_the_environment(world: World) -> None:
    token = new_access_token()
    world.registry.access_tokens.append(token)
    warning = f"##[warning]The record of this job, {world.record()}, is missing\n"
    for variable, log in ((f"{token}\n", "crates-io-auth: Revoked 1 access token.\n"), ("", "")):
        result = world.run("post", env=world.on_github(CARGO_REGISTRY_TOKEN=variable))
        assert (result.status, result.summary) == (1, "")
        assert result.log.startswith(log + warning)
        assert world.registry.revoked == [token]


def test_post_revokes_each_token_at_each_registry_that_issued_it(world: World, other_world: World) -> None:
    token, same = new_access_token(), new_access_token()
    for registry, held in ((world, token), (world, same), (other_world, same)):
        world.hold_tokens(1, registry=registry.registry.url, token=held)
    result = world.run("post", env=world.on_github())
    assert result.status == 0
    assert result.log == "crates-io-auth: Revoked 3 access tokens.\n"
    assert sorted(world.registry.revoked) == sorted([token, same])
    assert other_world.registry.revoked == [same]


def test_post_says_how_long_ago_the_token_has_expired_and_what_that_explains(world: World) -> None:
    world.hold_tokens(1, issued_at=time.time() - 50 * 60)
    world.hold_tokens(1, issued_at=time.time() - 42 * 60)
    result = world.run("post", env=world.on_github())
    assert result.status == 0
    assert result.log.count("access token expired ") == 1
    assert "The last access token expired 12 min before this step.\n" in result.log
    assert "If an upload failed with `Invalid authentication token`, this may be why.\n" in result.log


def test_post_says_nothing_of_a_token_that_was_replaced_in_time(world: World) -> None:
    world.hold_tokens(1, issued_at=time.time() - 42 * 60)
    world.hold_tokens(1, issued_at=time.time() - 29 * 60)
    assert world.run("post", env=world.on_github()).log == "crates-io-auth: Revoked 2 access tokens.\n"


def test_a_token_of_the_environment_that_is_in_the_record_too_is_revoked_once(world: World) -> None:
    world.hold_tokens(1)
    (token,) = world.registry.access_tokens
    env = world.on_github(CARGO_REGISTRY_TOKEN=token, INPUT_URL="http://127.0.0.1:1")
    assert world.run("post", env=env).status == 0
    assert world.registry.revoked == [token]


@pytest.mark.parametrize("token", [ORDINARY_TOKEN, "cio_tp_x\r\nX: y"], ids=["long-lived", "two lines"])
def test_any_other_token_of_the_environment_is_never_sent(world: World, token: str) -> None:
    world.hold_tokens(1)
    assert world.run("post", env=world.on_github(CARGO_REGISTRY_TOKEN=token)).status == 0
    assert world.registry.revoked == world.registry.access_tokens


def test_only_the_registry_s_204_revokes_and_all_else_can_be_repeated(world: World) -> None:
    world.hold_tokens(6)
    world.registry.faults = [
        respond(200, b"<html>Log in to this network</html>"),
        refuse(401, "Invalid `Authorization` header: Failed to parse token"),
        refuse(404, "Not Found"),
        respond(403, b"<html>Proxy</html>"),
    ]
    result = world.run("post", env=world.on_github())
    assert result.status == 1
    assert (
        result.log
        == """\
crates-io-auth: Revoked 2 access tokens.
##[warning]Couldn't revoke an access token
  127.0.0.1 didn't revoke an access token: HTTP 200: not the expected response
  127.0.0.1 didn't revoke an access token: HTTP 401: Invalid `Authorization` header: Failed to parse token
  127.0.0.1 didn't revoke an access token: HTTP 404: Not Found
  127.0.0.1 didn't revoke an access token: HTTP 403: <html>Proxy</html>
It expires by itself, on crates.io after 30 minutes. `crates_io_auth.py post` can be run again.
"""
    )
    assert result.summary == ""
    assert len(world.registry.alive()) == len(world.recorded()) == 4
    assert world.run("post", env=world.on_github()).status == 0
    assert not world.registry.alive()
    assert not world.recorded()


def test_the_tokens_of_one_post_share_the_time_of_the_command(world: World) -> None:
    world.hold_tokens(4)
    world.registry.faults = [None, *[never_respond] * 3]
    prelude = "script.REQUESTS_SECONDS = 0.5"
    result = world.start("post", env=world.on_github(), prelude=prelude).finish(seconds=20)
    assert result.status == 1
    assert result.log.count("\n  Couldn't get a valid response from 127.0.0.1: timed out (") == 3
    assert len(world.registry.requests) == 4
    assert len(world.recorded()) == 3


def test_a_post_whose_tokens_another_one_revokes_meanwhile_succeeds(world: World) -> None:
    world.hold_tokens(2)
    may_respond = threading.Event()

    def slow(handler: Handler) -> None:
        may_respond.wait(20)
        world.registry.behave(handler)

    world.registry.faults = [slow]
    first = world.start("post", env=world.on_github())
    wait_until(lambda: world.registry.requests)
    assert world.run("post", env=world.on_github()).status == 0
    assert not world.recorded()
    may_respond.set()
    result = first.finish()
    assert (result.status, result.stderr) == (0, "crates-io-auth: Revoked 2 access tokens.\n")


def test_a_file_that_goes_while_post_reads_the_record_is_no_failure(world: World) -> None:
    world.hold_tokens(1)
    late = "listdir = os.listdir; os.listdir = lambda path: ['revoked-meanwhile.json', *listdir(path)]"
    result = world.run("post", env=world.on_github(), prelude=late)
    assert (result.status, result.stderr) == (0, "crates-io-auth: Revoked 1 access token.\n")


def test_a_token_whose_file_can_t_be_removed_is_revoked_and_nothing_else_is_said(world: World) -> None:
    world.hold_tokens(1)
    read_only = "def unlink(path): raise OSError(30, 'Read-only file system')\nos.unlink = unlink"
    result = world.run("post", env=world.on_github(), prelude=read_only)
    assert (result.status, result.stderr) == (0, "crates-io-auth: Revoked 1 access token.\n")
    assert not world.registry.alive()
    assert len(world.recorded()) == 1


@on_linux
def test_with_stderr_full_all_is_revoked_all_the_same(world: World) -> None:
    world.hold_tokens(3)
    world.registry.faults = [None, respond(503)]
    with open("/dev/full", "wb") as full:
        world.run("post", env=world.on_github(), stderr=full, prelude=IMPATIENT)
    assert not world.registry.alive()


# Being cancelled or killed


def is_waiting(process: Process) -> bool:
    """Tell whether Linux has put a process to sleep, because it waits for something."""
    return ") S " in Path(f"/proc/{process.popen.pid}/stat").read_text(encoding="utf-8")


CANCELLED = "Cancelled. This job's access tokens, if any, stay in its record until `post` revokes them.\n"


@on_posix
@pytest.mark.parametrize(
    "number",
    [
        pytest.param(signal.SIGINT, id="SIGINT"),
        pytest.param(signal.SIGTERM, id="SIGTERM"),
        pytest.param(getattr(signal, "SIGHUP", None), id="SIGHUP"),
    ],
)
def test_cancelled_while_the_registry_is_silent_it_ends_at_once(world: World, number: signal.Signals) -> None:
    world.registry.faults = [never_respond]
    process = world.start(env=world.on_github())
    wait_until(lambda: world.registry.requests)
    process.popen.send_signal(number)
    result = process.finish(seconds=2)
    assert (result.status, result.outputs) == (1, "")
    assert result.log == f"##[error]{CANCELLED}"
    assert result.summary == summary_of(CANCELLED)


@on_linux
def test_cancelled_by_two_signals_between_two_attempts_it_ends_at_once(world: World) -> None:
    world.registry.faults = [respond(503, Retry_After="30")]
    process = world.start(env=world.on_gitlab(), bufsize=0)
    read_until(process.popen.stderr, "Retrying in 30 s")
    wait_until(lambda: is_waiting(process))
    for number in (signal.SIGSTOP, signal.SIGTERM, signal.SIGINT, signal.SIGCONT):
        process.popen.send_signal(number)
    result = process.finish(seconds=2)
    assert (result.status, result.stdout) == (1, "")
    assert result.stderr == f"crates-io-auth: error: {CANCELLED}"


@on_linux
def test_cancelled_while_nobody_reads_the_log_it_ends_at_once_and_post_revokes_it(world: World) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    os.write(writer, bytes(1024 * 1024))  # as much as the pipe takes
    os.set_blocking(writer, True)
    env = world.on_gitlab()
    process = world.start(env=env, stderr=writer)
    wait_until(world.recorded)
    wait_until(lambda: is_waiting(process))  # for the log to take a line
    process.popen.terminate()
    result = process.finish(seconds=2)
    os.close(reader)
    os.close(writer)
    assert (result.status, result.stdout) == (1, "")
    assert [request.method for request in world.registry.requests] == ["POST"]
    assert world.run("post", env=env).status == 0
    assert not world.registry.alive()


@on_posix
def test_post_cancelled_keeps_what_it_has_not_revoked(world: World) -> None:
    world.hold_tokens(3)
    world.registry.faults = [None, never_respond]
    process = world.start("post", env=world.on_github())
    wait_until(lambda: len(world.registry.requests) == 2)
    process.popen.send_signal(signal.SIGINT)
    result = process.finish(seconds=2)
    assert result.status == 1
    assert result.log.startswith("##[warning]Cancelled.")
    assert len(world.registry.alive()) == len(world.recorded()) == 2
    assert world.run("post", env=world.on_github()).status == 0
    assert not world.registry.alive()


# Python drops an exception in a finalizer, and only reports it.
CANCEL_IN_FINALIZER = """\
import signal
class Finalizer:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        print("cancelled")
connect = script.http.client.HTTPConnection.connect
def connect_after_signal(self):
    Finalizer()
    connect(self)
script.http.client.HTTPConnection.connect = connect_after_signal
"""


@on_posix
def test_cancelled_where_python_drops_exceptions_it_ends_all_the_same(world: World) -> None:
    world.registry.faults = [never_respond]
    result = world.run(env=world.on_gitlab(), prelude=CANCEL_IN_FINALIZER)
    assert (result.status, result.stdout) == (1, "")
    assert result.stderr == f"crates-io-auth: error: {CANCELLED}"


# Forks until a fork ends by itself. The Nth one is killed before the Nth line of the script that it runs
# after a function has returned. Between two lines lies at most one system call of the script's own.
KILL = """\
import itertools, signal
for lines_left in itertools.count(1):
    if os.fork() == 0:
        break
    status = os.wait()[1]
    if status != signal.SIGKILL:
        print(lines_left - 1, flush=True)
        os._exit(status >> 8)
returned = False
def trace(frame, event, argument):
    global returned, lines_left
    if frame.f_code.co_filename != script.__file__ or frame.f_code.co_name in ("printable", "<genexpr>"):
        return None
    if event == "return" and frame.f_code is script.{function}.__code__:
        returned = True
    elif event == "line" and returned:
        lines_left -= 1
        if lines_left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
    return trace
sys.settrace(trace)
"""


@on_posix
def test_killed_at_any_line_no_token_got_out_that_post_does_not_revoke(world: World) -> None:
    result = world.run(env=world.on_github(), prelude=KILL.format(function="exchange"))
    assert result.status == 0
    assert int(result.stdout) > 20
    handed_over = set(re.findall("cio_tp_[A-Za-z0-9]+", result.stderr + result.outputs))
    texts = [path.read_text() for path in world.recorded()]
    recorded = {json.loads(text)["token"] for text in texts if text}
    assert handed_over <= recorded
    assert world.run("post", env=world.on_github()).status == 0
    assert not world.registry.alive() & recorded


@on_posix
def test_post_killed_at_any_line_leaves_what_it_has_not_revoked_to_the_next(world: World) -> None:
    world.hold_tokens(2)
    result = world.run("post", env=world.on_github(), prelude=KILL.format(function="Record.tokens"))
    assert result.status == 0
    assert int(result.stdout) > 40
    assert not world.registry.alive()
    assert not world.recorded()


# The provider: cargo itself

# A build script that writes down what a thief would look at.
BUILD_SCRIPT = """\
fn main() {
    let look = r#"(env; find "$RUNNER_TEMP" -type f -exec cat {} +) > "$SEEN/$CARGO_PKG_NAME""#;
    std::process::Command::new("sh").args(["-c", look]).status().unwrap(); // a file may vanish
}
"""


def cargo_environment(world: World) -> dict[str, str | None]:
    """Return what cargo needs in its environment, to know the registry as `local`."""
    return {
        "HOME": os.environ.get("HOME"),
        "RUSTUP_HOME": os.environ.get("RUSTUP_HOME"),
        "USERPROFILE": os.environ.get("USERPROFILE"),
        "CARGO_HOME": str(world.folder / "cargo"),
        "CARGO_REGISTRIES_LOCAL_INDEX": f"sparse+{world.registry.url}/index/",
        "CARGO_TERM_COLOR": "never",
    }


METADATA = 'description = "x"\nlicense = "MIT"\n'


def write_workspace(folder: Path, crates: dict[str, str], metadata: str = METADATA) -> None:
    """Write a workspace. A manifest without a version gets 1.0.0."""
    for name, manifest in crates.items():
        (folder / name / "src").mkdir(parents=True)
        (folder / name / "src/lib.rs").write_text("")
        version = "" if "version =" in manifest.partition("[")[0] else 'version = "1.0.0"\n'
        (folder / name / "Cargo.toml").write_text(
            f'[package]\nname = "{name}"\nedition = "2021"\n{version}{metadata}{manifest}\n', encoding="utf-8"
        )
    folder.mkdir(exist_ok=True)
    (folder / "Cargo.toml").write_text(f'[workspace]\nresolver = "2"\nmembers = {json.dumps(list(crates))}\n')


class Project:
    """A workspace of crates, each of which depends on the one before."""

    def __init__(self, world: World, crates: tuple[str, ...] = ("alpha", "beta", "gamma")) -> None:
        self.world = world
        self.folder = world.folder / "workspace"
        self.seen = world.folder / "seen"
        self.seen.mkdir()
        self.cargo_environment = {
            **cargo_environment(world),
            "CARGO_PROFILE_DEV_DEBUG": "0",  # it builds a third faster so
            "CARGO_INCREMENTAL": "0",
            "SEEN": str(self.seen),
        }
        manifests = {}
        needs = ""
        for name in crates:
            manifests[name] = f'version = "0.1.0"\npublish = ["local"]\n[dependencies]\n{needs}'
            needs = f'{name} = {{ path = "../{name}", version = "0.1.0", registry = "local" }}\n'
        write_workspace(self.folder, manifests)
        for name in crates:
            (self.folder / name / "build.rs").write_text(BUILD_SCRIPT)

    def set_up_provider(self, **more: str | None) -> tuple[Result, dict[str, str]]:
        """Run the action with `credential-provider: true`. Return its result, and what the next step gets."""
        world = self.world
        world.temp = world.folder / "runner-temp"  # cargo needs a path without a space
        world.temp.mkdir()
        job = {**self.cargo_environment, "INPUT_URL": None, "RUNNER_TEMP": str(world.temp), **more}
        inputs = {"INPUT_URL": world.registry.url, "INPUT_REGISTRY": "local"}
        result = run_action(world, **{**job, **inputs, "INPUT_CREDENTIAL_PROVIDER": "true"})
        variable, _, launcher = (world.folder / "env").read_text().rstrip("\n").partition("=")
        return result, world.on_github(**{**job, variable: launcher})

    def environment(self, **more: str | None) -> dict[str, str]:
        """Return the environment of a step after the action with `credential-provider: true`."""
        result, env = self.set_up_provider(**more)
        assert (result.status, result.outputs) == (0, ""), result
        assert not self.world.registry.requests + self.world.github.requests
        return env

    def cargo(self, command: str, *arguments: str, env: dict[str, str]) -> Result:
        """Run the real cargo in the workspace."""
        arguments = (command, "--registry", "local", "--allow-dirty", *arguments)
        return self.world.run_command(["cargo", *arguments], env, cwd=self.folder)

    def seen_by_build_scripts(self) -> list[str]:
        """Return what each build script that has run could see."""
        return [path.read_text() for path in self.seen.iterdir()]

    def tokens_seen_by_build_scripts(self) -> list[str]:
        """Return the tokens, dead or alive, that a build script could see."""
        seen = "".join(self.seen_by_build_scripts())
        tokens = [*self.world.registry.access_tokens, *self.world.github.identity_tokens]
        return [token for token in tokens if token in seen]


def publish_two_crates(project: Project, env: dict[str, str]) -> Result:
    """Publish two crates, whose build scripts look at a file in RUNNER_TEMP."""
    Path(env["RUNNER_TEMP"], "file").write_text("that they can read")
    result = project.cargo("publish", "--workspace", env=env)
    assert result.status == 0, result
    reports = project.seen_by_build_scripts()
    assert ["that they can read" in report for report in reports] == [True] * 2
    return result


@pytest.fixture
def project(world: World) -> Project:
    return Project(world)


@on_posix
@needs("cargo", "bash")
def test_cargo_publishes_a_workspace_and_no_build_script_sees_a_token(world: World) -> None:
    project = Project(world, crates=("alpha", "beta"))
    env = project.environment()
    result = publish_two_crates(project, env)
    assert world.registry.published() == ["alpha", "beta"]
    assert not project.tokens_seen_by_build_scripts()
    assert world.run("post", env=env).status == 0
    assert not world.registry.alive()
    # One to see that there will be one, revoked before anything was built, and one for the uploads.
    methods = [request.method for request in world.registry.requests if request.path == TOKENS_PATH]
    assert methods == ["POST", "DELETE", "POST", "DELETE"]
    assert result.stderr.index("crates-io-auth: Preflight: ") < result.stderr.index("Compiling")


@on_posix
@needs("cargo")
def test_a_single_use_identity_token_carries_a_whole_workspace(world: World) -> None:
    project = Project(world, crates=("alpha", "beta"))
    provider = {"CARGO_REGISTRIES_LOCAL_CREDENTIAL_PROVIDER": str(SCRIPT)}
    # The build scripts look through RUNNER_TEMP: here the record is in it, too.
    folders = {"RUNNER_TEMP": str(world.temp), "TMPDIR": str(world.temp)}
    env = world.on_gitlab(**{**project.cargo_environment, **provider, **folders})
    identity_token = world.github.identity_tokens.pop()  # it is in the environment, where GitLab puts it
    result = publish_two_crates(project, env)
    assert world.registry.published() == ["alpha", "beta"]
    assert not project.tokens_seen_by_build_scripts()
    assert world.run("post", env=env).status == 0
    assert not world.registry.alive()
    assert "Preflight: the job has an identity token for octo/crate, .gitlab-ci.yml, " in result.stderr
    assert identity_token not in result.stderr
    assert len(world.registry.access_tokens) == 1


@on_posix
@needs("cargo", "bash")
def test_a_refusal_stops_cargo_before_it_builds_anything(world: World, project: Project) -> None:
    env = project.environment()
    world.registry.faults = [None, refuse(400, "No Trusted Publishing config found")]  # None: the index
    result = project.cargo("publish", "--workspace", env=env)
    assert result.status != 0
    assert "This job needs the trusted publisher octo/crate, release.yml" in result.stderr
    assert "Compiling" not in result.stderr
    assert not project.seen_by_build_scripts()


@on_posix
@needs("cargo", "bash")
def test_crate_by_crate_and_in_a_pipe_a_workspace_costs_two_exchanges(world: World, project: Project) -> None:
    # cargo ignores a token in the environment: the registry takes none but those that it has issued.
    env = project.environment(CARGO_REGISTRIES_LOCAL_TOKEN="a-long-lived-one")
    # release-plz takes the word "error:" for a failed upload.
    world.registry.faults = [None, respond(503, {"errors": [{"detail": "error:: soon"}]})]  # None: the index
    publish = "cargo publish --registry local --allow-dirty --no-verify"
    pipe = "2>&1 | sed 's/^/[log] /'"
    commands = f"set -eo pipefail; {publish} --package alpha {pipe}; {publish} --package beta {pipe}"
    result = world.run_command(["bash", "-c", commands], env, cwd=project.folder)
    assert result.status == 0, result
    assert world.registry.published() == ["alpha", "beta"]
    ours = [line for line in result.stdout.splitlines() if "crates-io-auth: " in line or "error:" in line]
    assert world.anonymous("\n".join(ours)) == (
        """\
[log] crates-io-auth: Couldn't get a valid response from 127.0.0.1: HTTP 503: error soon. \
Retrying in <seconds> s (attempt 2 of 4).
[log] crates-io-auth: Preflight: http://<registry> issues tokens for the crates with the trusted publisher \
octo/crate, release.yml, environment release.
[log] crates-io-auth: If an upload fails with `not valid for crate`, add it to that crate, and run \
the job again.
[log] crates-io-auth: Access token for alpha 0.1.0: new
[log] crates-io-auth: Preflight: an access token of this job can be used again.
[log] crates-io-auth: Access token for beta 0.1.0: reused, 0 min old"""
    )
    assert len(world.registry.access_tokens) == 2


# The provider: setting it up


def set_up_provider(world: World, **changes: str | None) -> Result:
    """Run the script as the action's step with `credential-provider: true`."""
    return world.run(env=world.on_github(**{"INPUT_CREDENTIAL_PROVIDER": "true", **changes}))


def test_cargo_s_variables_for_each_of_two_registries_are_named_after_cargo_s_name_of_it(
    world: World,
) -> None:
    temp = world.folder / "témp"
    temp.mkdir()
    registries: dict[str, dict[str, str | None]] = {
        "CARGO_REGISTRY": {"INPUT_URL": None, "INPUT_REGISTRY": None},
        "CARGO_REGISTRIES_MY_REGISTRY_B_C": {"INPUT_REGISTRY": "my-registry b=c"},
    }
    for prefix, inputs in registries.items():
        result = set_up_provider(world, RUNNER_TEMP=str(temp), **inputs, **{f"{prefix}_TOKEN": "long-lived"})
        assert result.status == 0
        assert f"##[warning]{prefix}_TOKEN is set, but cargo ignores it" in result.log
    variables = (world.folder / "env").read_text(encoding="utf-8")
    line = rf"^(.+)_CREDENTIAL_PROVIDER=({re.escape(str(temp) + os.sep)}.+)$"
    launchers = dict(re.findall(line, variables, re.MULTILINE))
    assert list(launchers) == list(registries)
    assert len(set(launchers.values())) == len(variables.splitlines()) == 2
    if sys.platform != "win32":
        assert {stat.S_IMODE(os.stat(launcher).st_mode) for launcher in launchers.values()} == {0o700}


def test_with_the_provider_the_action_says_where_cargo_gets_its_tokens_and_asks_for_none(
    world: World,
) -> None:
    (world.folder / "temp").mkdir()
    result = set_up_provider(world, RUNNER_TEMP=str(world.folder / "temp"), INPUT_REGISTRY="local")
    assert (result.status, result.outputs) == (0, "")
    assert (
        result.log
        == """\
crates-io-auth: From now on, cargo gets its tokens from crates-io-auth: \
CARGO_REGISTRIES_LOCAL_CREDENTIAL_PROVIDER is set.
crates-io-auth: They are revoked when the job ends.
"""
    )
    assert not world.github.requests + world.registry.requests


@pytest.mark.parametrize(
    ("changes", "folder", "message"),
    [
        pytest.param({"INPUT_REGISTRY": None}, "temp", "The inputs url (http://", id="url alone"),
        pytest.param({"INPUT_URL": None}, "temp", "The inputs url (https://crates.io)", id="registry alone"),
        pytest.param({"ACTIONS_ID_TOKEN_REQUEST_TOKEN": ""}, "temp", "Missing permission", id="permission"),
        pytest.param({}, "te mp", "credential-provider doesn't work here", id="space"),
        pytest.param({}, "te\nB=c", "credential-provider doesn't work here", id="line break", marks=on_posix),
        pytest.param({}, "te%mp", "credential-provider doesn't work here", id="percent", marks=on_windows),
    ],
)
def test_what_can_t_work_with_cargo_is_said_by_the_action_before_anything_is_requested(
    world: World, changes: dict[str, str | None], folder: str, message: str
) -> None:
    (world.folder / folder).mkdir()
    job = {"INPUT_REGISTRY": "local", "RUNNER_TEMP": str(world.folder / folder)}
    result = set_up_provider(world, **{**job, **changes})
    assert result.status == 1
    assert result.log.startswith(f"##[error]{message}")
    assert ("\n`registry` is cargo's name for the one at `url`." in result.log) is ("inputs" in message)
    assert (world.folder / "env").read_text() == ""
    assert not world.github.requests + world.registry.requests


@pytest.mark.parametrize(
    ("folder", "python", "problem"),
    [
        pytest.param("te%mp", "python", "the path of RUNNER_TEMP has a %, ", id="percent sign"),
        pytest.param("temp", "pythön", "the path of Python or of the action has letters ", id="letters"),
    ],
)
def test_what_cmd_exe_can_t_take_is_said_on_windows_by_the_action(
    world: World, folder: str, python: str, problem: str
) -> None:
    (world.folder / folder).mkdir()
    env = world.on_github(
        RUNNER_TEMP=str(world.folder / folder), INPUT_CREDENTIAL_PROVIDER="true", INPUT_REGISTRY="local"
    )
    prelude = f"sys.platform, sys.executable = 'win32', 'C:\\\\{python}.exe'"
    result = world.run(env=env, prelude=prelude)
    assert result.status == 1
    assert result.log.startswith(f"##[error]credential-provider doesn't work here: {problem}")
    assert "\nUse the output `token` instead, or move the runner, Python or the action to" in result.log
    assert (world.folder / "env").read_text() == ""


@on_posix
def test_the_launcher_works_from_any_path_for_its_url_and_runs_no_code_of_the_workspace(world: World) -> None:
    folder = world.folder / 'it\'s "$HOME" \\ `id`'
    folder.mkdir()
    shutil.copy(SCRIPT, folder)
    (folder / "python3").symlink_to(sys.executable)
    env = world.on_github(RUNNER_TEMP=str(world.folder))
    inputs = {"INPUT_CREDENTIAL_PROVIDER": "true", "INPUT_REGISTRY": "local"}
    command = [str(folder / "python3"), "-I", "-S", str(folder / SCRIPT.name)]
    assert world.run_command(command, {**env, **inputs}).status == 0
    plant_modules(world.folder)
    launcher = (world.folder / "env").read_text().strip().partition("=")[2]
    hostile = {**env, "INPUT_URL": "https://other.example", "PYTHONPATH": str(world.folder)}
    token = ask(world, hostile, about(world), launcher)["Ok"]["token"]
    assert token in world.registry.alive()
    assert not (world.folder / "was-here").exists()


@on_windows
def test_the_launcher_for_windows_is_one_line_that_passes_nothing_on(world: World) -> None:
    folder = world.folder / "a %PATH% (b)"
    folder.mkdir()
    shutil.copy(SCRIPT, folder)
    temp = world.folder / "temp"
    temp.mkdir()
    env = world.on_github(RUNNER_TEMP=str(temp), INPUT_CREDENTIAL_PROVIDER="true", INPUT_REGISTRY="local")
    command = [sys.executable, "-I", "-S", str(folder / SCRIPT.name)]
    assert world.run_command(command, env).status == 0
    (launcher,) = temp.glob("crates-io-auth-for-cargo-*.cmd")
    words = [*command, "--cargo-plugin", "--url", world.registry.url]
    line = "@" + " ".join(f'"{word}"' for word in words).replace("%", "%%") + "\r\n"
    assert launcher.read_bytes() == line.encode()


@needs("cargo")
def test_cargo_publishes_with_the_launcher_on_every_system(world: World) -> None:
    write_workspace(world.folder / "workspace", {"alpha": "", "beta": ""})
    (world.folder / "temp").mkdir()
    job = {**cargo_environment(world), "RUNNER_TEMP": str(world.folder / "temp")}
    assert set_up_provider(world, INPUT_REGISTRY="local", **job).status == 0
    variable, _, launcher = (world.folder / "env").read_text(encoding="utf-8").rstrip("\n").partition("=")
    env = world.on_github(**job, **{variable: launcher})
    publish = ["cargo", "publish", "--registry", "local", "--allow-dirty", "--no-verify", "--workspace"]
    result = world.run_command(publish, env, cwd=world.folder / "workspace")
    assert result.status == 0, result
    assert world.registry.published() == ["alpha", "beta"]
    assert world.run("post", env=env).status == 0
    assert not world.registry.alive()


# The provider: cargo's protocol


def answer(world: World, env: dict[str, str], request: object, *launcher: str) -> Result:
    """Send the script, or a launcher for it, one line as cargo does, and return all that it prints."""
    command = launcher or (sys.executable, "-I", "-S", str(SCRIPT))
    line = request if isinstance(request, bytes) else json.dumps(request).encode() + b"\n"
    with tempfile.TemporaryFile() as stdin:
        stdin.write(line)
        stdin.seek(0)
        token = r'"token": "[^"]*"'
        return world.run_command([*command, "--cargo-plugin"], env, stdin=stdin, token_in_stdout=token)


def ask(world: World, env: dict[str, str], request: object, *launcher: str) -> Any:
    """Send the provider one line as cargo does, and return its response."""
    result = answer(world, env, request, *launcher)
    assert result.status == 0, result
    hello, response = result.stdout.splitlines()
    assert hello == '{"v":[1]}'
    return json.loads(response)


def about(world: World, kind: str = "get", operation: str | None = "publish", **more: Any) -> dict[str, Any]:
    """Return a request of cargo about the world's registry."""
    registry = {"index-url": f"sparse+{world.registry.url}/index/", "name": "local"}
    request = {"v": 1, "registry": registry, "kind": kind, "operation": operation, **more}
    return {name: value for name, value in request.items() if value is not None}


def test_uploads_get_a_token_that_cargo_does_not_keep_and_leave_lines_in_the_summary(world: World) -> None:
    for name in ("alpha", "beta"):
        request = about(world, name=name, vers="0.1.0", cksum="0")
        response = ask(world, world.on_github(), request)["Ok"]
        (token,) = world.registry.alive()
        assert response == {"kind": "get", "token": token, "cache": "never", "operation_independent": False}
    assert len(world.github.requests) == len(world.registry.requests) == 1
    assert (world.folder / "summary").read_text() == (
        "- crates-io-auth: access token for `alpha 0.1.0`, new\n"
        "- crates-io-auth: access token for `beta 0.1.0`, reused, 0 min old\n"
    )


@pytest.mark.parametrize("path", [None, "/nowhere/summary"], ids=["not set", "not there"])
def test_a_summary_that_can_t_be_written_stops_nothing(world: World, path: str | None) -> None:
    env = world.on_github(GITHUB_STEP_SUMMARY=path)
    assert ask(world, env, about(world))["Ok"]["token"] in world.registry.alive()


@pytest.mark.parametrize(
    ("minutes", "fields", "reused"),
    [(24, {}, True), (25, {}, False), (-1, {}, False), (0, {"registry": "http://127.0.0.1:1"}, False)],
    ids=["24 minutes old", "25 minutes old", "from the future", "of another registry"],
)
def test_a_recorded_token_is_used_again_while_it_is_fresh_and_of_that_registry(
    world: World, minutes: int, fields: dict[str, object], reused: bool
) -> None:
    world.hold_tokens(1, issued_at=time.time() - minutes * 60, **fields)
    issued = script.Record(str(world.record())).fresh_token(world.registry.url)
    assert [issued.token if issued else None] == (world.registry.access_tokens if reused else [None])


@on_posix
def test_an_upload_gets_no_token_that_can_t_be_recorded(world: World) -> None:
    command = [sys.executable, "-I", "-S", str(SCRIPT)]
    no_room = ["sh", "-c", 'ulimit -f 0 && exec "$@"', "sh"]
    error = ask(world, world.on_github(), about(world), *no_room, *command)["Err"]
    assert error["message"].startswith("The environment of this step isn't usable: [Errno 27] File too large")
    assert len(world.registry.access_tokens) == 1


@pytest.mark.parametrize("ci", [World.on_github, World.on_gitlab], ids=["GitHub", "GitLab"])
def test_while_a_token_is_fresh_the_preflight_needs_no_other(world: World, ci: Any) -> None:
    token = ask(world, ci(world), about(world))["Ok"]["token"]
    no_identity = ci(world, **{"ACTIONS_ID_TOKEN_REQUEST_TOKEN": None, world.variable(): None})
    assert ask(world, no_identity, about(world, operation="read"))["Ok"]["token"] != token
    assert world.registry.alive() == {token}


def test_the_test_token_of_the_preflight_is_revoked_and_in_no_file_at_any_time(world: World) -> None:
    def look_and_revoke(handler: Handler) -> None:
        seen.extend(path.read_bytes() for path in world.folder.rglob("*") if path.is_file())
        handler.server.behave(handler)

    seen: list[bytes] = []
    world.registry.faults = [None, look_and_revoke]  # None: the exchange
    response = ask(world, world.on_github(), about(world, operation="read"))["Ok"]
    (test_token,) = world.registry.revoked
    assert world.registry.access_tokens == [test_token]
    assert response.pop("token") == "the-upload-gets-a-real-token"
    assert response == {"kind": "get", "cache": "never", "operation_independent": False}
    assert seen
    assert not any(test_token.encode() in content for content in seen)


def test_a_test_token_that_can_t_be_revoked_stops_nothing_and_is_never_handed_out(world: World) -> None:
    world.registry.faults = [None, refuse(403, "Not now")]  # None: the exchange
    result = answer(world, world.on_github(), about(world, operation="read"))
    assert '"Ok"' in result.stdout
    assert "didn't revoke an access token: HTTP 403: Not now. Nobody holds this test token" in result.log
    (test_token,) = world.registry.alive()
    assert ask(world, world.on_github(), about(world))["Ok"]["token"] != test_token


def test_the_preflight_outside_github_looks_at_the_identity_token_and_leaves_it_alone(world: World) -> None:
    assert "Ok" in ask(world, world.on_gitlab(), about(world, operation="read"))
    expired = {world.variable(): world.github.issue(world.registry.audience, exp=1_700_000_000)}
    error = ask(world, world.on_gitlab(**expired), about(world, operation="read"))["Err"]
    assert error["message"].endswith(" has expired\nRetry the job to get a new one.")
    assert not world.registry.requests


def test_logout_revokes_the_tokens_of_that_registry_alone(world: World) -> None:
    world.hold_tokens(1)
    (mine,) = world.registry.access_tokens
    world.hold_tokens(1, registry="http://127.0.0.1:1")
    world.registry.faults = [refuse(403, "Not now")]
    logout = about(world, "logout", None)
    assert "HTTP 403: Not now" in ask(world, world.on_github(), logout)["Err"]["message"]
    assert ask(world, world.on_github(), logout) == {"Ok": {"kind": "logout"}}
    assert world.registry.revoked == [mine]
    assert len(world.recorded()) == 1


ErrOf = Callable[[object, str], Any]


@pytest.fixture
def err_of(monkeypatch: Any, capsys: Any, tmp_path: Path) -> ErrOf:
    """Return a function that calls the provider with one line and a URL, and returns its Err."""

    def call(request: object, url: str) -> Any:
        line = request if isinstance(request, bytes) else json.dumps(request).encode() + b"\n"
        monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
        monkeypatch.setenv("TMPDIR", str(tmp_path))
        monkeypatch.setenv("INPUT_URL", url)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(line)))
        script.cargo_plugin(None)
        return json.loads(capsys.readouterr().out.splitlines()[1])["Err"]

    return call


@pytest.mark.parametrize(
    ("request_of_cargo", "sentence"),
    [
        pytest.param({"kind": "get", "operation": "dance"}, "", id="new operation"),
        pytest.param({"kind": "dance"}, "", id="new kind"),
        pytest.param({"kind": "login"}, "`cargo login` isn't needed: ", id="login"),
        pytest.param({"kind": "get", "operation": "yank"}, "can't be used for `cargo yank`\n", id="yank"),
        pytest.param(
            {"kind": "get", "operation": "unyank"}, "can't be used for `cargo yank --undo`\n", id="unyank"
        ),
        pytest.param(
            {"kind": "get", "operation": "owners"}, "can't be used for `cargo owner`\n", id="owners"
        ),
    ],
)
def test_what_these_access_tokens_can_t_do_is_said_and_what_is_unknown_is_not_supported(
    err_of: ErrOf, request_of_cargo: dict[str, object], sentence: str
) -> None:
    registry = {"index-url": "sparse+https://a.example/"}
    error = err_of({"v": 1, "registry": registry, **request_of_cargo}, "https://a.example")
    assert error["kind"] == ("other" if sentence else "operation-not-supported")
    assert sentence in error.get("message", "")


@pytest.mark.parametrize(
    ("url", "index", "supported"),
    [
        pytest.param("", "sparse+https://index.crates.io/", True, id="crates.io by default"),
        pytest.param("Crates.io/", "sparse+https://index.crates.io/", True, id="crates.io by name"),
        pytest.param("", "https://github.com/rust-lang/crates.io-index", True, id="crates.io with git"),
        pytest.param("", "sparse+https://index.crates.io.evil.example/", False, id="another than crates.io"),
        pytest.param(
            "https://a.example", "sparse+https://index.crates.io/", False, id="crates.io, not named"
        ),
        pytest.param("https://a.example", "sparse+https://b.example/", True, id="another, named"),
    ],
)
def test_the_provider_responds_for_the_registry_that_the_user_has_named_alone(
    err_of: ErrOf, url: str, index: str, supported: bool
) -> None:
    # The operation is one that is refused without asking anybody.
    request = {"v": 1, "registry": {"index-url": index}, "kind": "get", "operation": "yank"}
    assert err_of(request, url)["kind"] == ("other" if supported else "url-not-supported")


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b'{"v":2,"kind":"get","registry":{"index-url":"sparse+https://x/"}}\n', id="version 2"),
        pytest.param(b'{"v":1,"kind":"get","operation":"read"}\n', id="no registry"),
    ],
)
def test_a_line_that_is_no_request_gets_an_error_that_cargo_can_show(err_of: ErrOf, line: bytes) -> None:
    error = err_of(line, "https://a.example")
    assert error["kind"] == "other"
    message, _, hint = error["message"].partition("\n")
    assert message == "This is not a request in version 1 of cargo's credential provider protocol"
    assert hint.startswith("Only cargo should call `--cargo-plugin`")


def test_an_invalid_url_is_an_error_that_cargo_can_show(err_of: ErrOf) -> None:
    error = err_of(b"{}", "http://other.example")
    assert (error["kind"], error["message"].partition("\n")[0]) == (
        "other",
        "Invalid URL: http://other.example",
    )


def test_cargo_is_told_what_the_command_line_tells_the_user(world: World) -> None:
    world.registry.faults = [refuse(400, "Nope")] * 2
    error = ask(world, world.on_gitlab(), about(world))["Err"]
    assert error["kind"] == "other"
    result = world.run(env=world.on_gitlab())
    assert result.stderr == f"crates-io-auth: error: {error['message']}\n"


def test_a_token_that_cargo_does_not_take_is_used_by_the_next_upload(world: World) -> None:
    reader, writer = os.pipe()
    process = world.start("--cargo-plugin", env=world.on_github(), stdin=subprocess.PIPE, stdout=writer)
    os.close(writer)
    assert os.read(reader, 100) == b'{"v":[1]}\n'
    os.close(reader)
    process.popen.stdin.write(json.dumps(about(world)).encode() + b"\n")  # type: ignore[union-attr]
    result = process.finish()
    assert result.status == 1
    assert "::" not in result.stderr  # cargo would show a command to the runner as it is
    (token,) = world.registry.alive()
    assert ask(world, world.on_github(), about(world))["Ok"]["token"] == token


# The check


NO_PAUSE = "script.API_PAUSE_SECONDS = 0"


def check(
    world: World,
    crates: dict[str, str],
    *arguments: str,
    registry: str = "local",
    metadata: str = METADATA,
    prelude: str = "",
    **more: str | None,
) -> Result:
    """Run `check --registry local` on GitHub, in a workspace of crates with the given manifests."""
    folder = world.folder / "checked"
    if not folder.exists():
        write_workspace(folder, crates, metadata)
    env = world.on_github(**{**cargo_environment(world), **more})
    return world.run("check", "--registry", registry, *arguments, env=env, prelude=prelude, cwd=folder)


@needs("cargo")
def test_check_tells_what_is_published_what_is_left_and_how_to_publish_it(world: World) -> None:
    world.registry.add_to_index("core", "1.0.0")
    result = check(world, {"bb": "", "Core": "", "ccc": "", "d": "", "long-name": 'version = "2.0.0-rc.1"'})
    assert (result.status, result.stderr) == (0, "")
    assert (
        result.stdout
        == f"""\
Core       1.0.0         published
bb         1.0.0         to publish
ccc        1.0.0         to publish
d          1.0.0         to publish
long-name  2.0.0-rc.1    to publish

{script.NOT_CHECKED}

To publish what is left:
  cargo publish --workspace --exclude Core --registry local
"""
    )
    assert script.NOT_CHECKED.startswith("Not checked: whether each crate has a trusted publisher")
    assert result.outputs == "exclude=--exclude Core\npublish=true\n"
    assert result.summary == (
        "| Crate | Version | State |\n| --- | --- | --- |\n"
        "| `Core` | 1.0.0 | published |\n| `bb` | 1.0.0 | to publish |\n| `ccc` | 1.0.0 | to publish |\n"
        f"| `d` | 1.0.0 | to publish |\n| `long-name` | 2.0.0-rc.1 | to publish |\n\n{script.NOT_CHECKED}\n\n"
    )
    first, *others = [request.path for request in world.registry.requests]
    assert first == "/index/config.json"
    paths = ("co/re/core", "2/bb", "3/c/ccc", "1/d", "lo/ng/long-name")
    assert set(others) == {f"/index/{path}" for path in paths}


@needs("cargo")
def test_yanked_versions_and_other_build_metadata_count_as_published(world: World) -> None:
    versions: dict[str, tuple[dict[str, object], str]] = {
        "yanked": ({"vers": "1.0.0", "yanked": True}, "1.0.0"),
        "other-build": ({"vers": "1.0.0+built-once"}, "1.0.0+built-again"),
        "build-here-alone": ({"vers": "1.0.0"}, "1.0.0+built-again"),
        "pre-release": ({"vers": "1.0.0-rc.1+once"}, "1.0.0-rc.1"),
    }
    for name, (published, _) in versions.items():
        world.registry.index[name] = [{"name": name, "vers": "0.9.0"}, {"name": name, **published}]
    result = check(world, {name: f'version = "{version}"' for name, (_, version) in versions.items()})
    assert (result.status, result.stdout.count("  published\n")) == (0, 4)
    nothing = "Nothing to publish: every version is on local. If you meant to release, bump the version.\n"
    assert result.log.endswith(f"##[warning]{nothing}")
    excluded = " ".join(f"--exclude {name}" for name in sorted(versions))
    assert result.outputs == f"exclude={excluded}\npublish=false\n"


@needs("cargo")
def test_check_asks_only_about_crates_for_this_registry_without_a_secret(world: World) -> None:
    crates = {
        "alpha": 'publish = ["other", "local"]',
        "beta": 'publish = ["other"]',
        "gamma": "publish = false",
    }
    result = check(world, crates, CARGO_REGISTRIES_LOCAL_TOKEN="a-token")
    assert [request.path for request in world.registry.requests[1:]] == ["/index/al/ph/alpha"]
    for request in world.registry.requests:
        assert set(request.headers) == {"accept-encoding", "host", "user-agent", "connection"}
    assert not world.github.requests
    assert "  cargo publish --workspace --exclude beta --registry local\n" in result.stdout
    assert "gamma" not in result.stdout  # cargo leaves it out by itself


@needs("cargo")
def test_check_takes_a_root_package_and_a_renamed_dependency_for_what_they_are(world: World) -> None:
    folder = world.folder / "checked"
    write_workspace(
        folder, {"alpha": '[dependencies]\nother-name = { package = "beta", path = "../beta" }', "beta": ""}
    )
    with open(folder / "Cargo.toml", "a") as manifest:
        manifest.write('[package]\nname = "root"\nversion = "3.0.0"\n[lib]\npath = "alpha/src/lib.rs"\n')
    names = sorted(line.split()[0] for line in check(world, {}).stdout.split("\n\n")[0].splitlines())
    assert names == ["alpha", "beta", "root"]


@needs("cargo")
def test_check_finds_nothing_to_do_in_a_workspace_without_crates_to_publish(world: World) -> None:
    result = check(world, {"alpha": "publish = false"})
    assert result.log.startswith("##[warning]Nothing to publish: none of the chosen crates may go to local.")
    assert (result.status, result.outputs) == (0, "exclude=\npublish=false\n")


@on_linux
@needs("cargo")
def test_a_warning_that_can_t_be_written_changes_no_status(world: World) -> None:
    write_workspace(world.folder, {"alpha": "publish = false"})
    with open("/dev/full", "wb") as full:
        result = world.run(
            "check", "--registry", "local", env=world.base(**cargo_environment(world)), stderr=full
        )
    assert result.status == 0


@needs("cargo")
def test_check_fails_for_a_new_crate_and_says_how_to_publish_it(world: World) -> None:
    world.registry.new_crates = {"beta"}
    world.registry.add_to_index("gamma", "1.0.0")
    result = check(world, {"alpha": "", "beta": "", "gamma": ""}, prelude=NO_PAUSE)
    assert result.status == 1
    assert (
        result.log
        == """\
alpha  1.0.0         to publish
beta   1.0.0         new
gamma  1.0.0         published
##[error]Not on the registry, and a trusted publisher can't create a crate: beta
If one isn't meant for the registry, write `publish = false` into its Cargo.toml, commit, and push a new tag.
Otherwise publish an empty version 0.0.0 of it with an ordinary API token, add its trusted publisher, and run
this again. Or publish all that is left with such a token, from this commit on your own machine:
  cargo publish --workspace --exclude gamma --registry local
##[error]Stopped before any upload
  beta 1.0.0: new
If you change a file, commit it and push a new tag. If the cause was at the registry, run this again.
"""
    )
    assert "| `beta` | 1.0.0 | new |\n" in result.summary


@on_posix
@needs("cargo", "bash")
def test_the_command_for_a_new_crate_publishes_it_after_what_it_depends_on(
    world: World, project: Project
) -> None:
    world.registry.new_crates = {"beta"}
    world.registry.add_to_index("alpha", "0.0.9")
    result = world.run(
        "check", "--registry", "local", env=project.environment(), cwd=project.folder, prelude=NO_PAUSE
    )
    (command,) = set(re.findall("^  (cargo publish .*)$", result.log, re.MULTILINE))
    own_machine = world.base(**cargo_environment(world), CARGO_REGISTRIES_LOCAL_TOKEN=ORDINARY_TOKEN)
    arguments = [*command.split(), "--allow-dirty", "--no-verify"]
    assert world.run_command(arguments, own_machine, cwd=project.folder).status == 0
    assert world.registry.published() == ["alpha", "beta", "gamma"]


FLAWS = {
    "description": ('license = "MIT"', 'description: it is missing, add `description = "…"`'),
    "license": ('description = "x"', 'license: it is missing, add `license = "…"`'),
    "six-keywords": (f'{METADATA}keywords = ["a", "b", "c", "d", "e", "f"]', "keywords: 6 are too many"),
    "six-categories": (
        f'{METADATA}categories = ["a", "b", "c", "d", "e", "f"]',
        "categories: 6 are too many",
    ),
    "keyword": (
        f'{METADATA}keywords = ["ok", "two words"]',
        "keywords: `two words` is refused, use at most 20 of the characters A-Z",
    ),
    "long-keyword": (f'{METADATA}keywords = ["{"k" * 21}"]', f"keywords: `{'k' * 21}` is refused"),
    "features": (
        f"{METADATA}[features]\n" + "\n".join(f"f{n} = []" for n in range(301)),
        "features: 301 are too",
    ),
    "wildcard": (f'{METADATA}[dependencies]\nx = "*"', 'dependency x: crates.io accepts no version "*"'),
    "dev-wildcard": (
        f'{METADATA}[dev-dependencies]\nx = "*"',
        'dependency x: crates.io accepts no version "*"',
    ),
    "path-alone": (
        f'{METADATA}[dependencies]\nx = {{ package = "alpha", path = "../alpha" }}',
        'dependency x: write `version = "…"`, not `*`, beside its path',
    ),
    "git-alone": (
        f'{METADATA}[build-dependencies]\nx = {{ git = "https://x.example" }}',
        'dependency x: write `version = "…"`, not `*`, beside its path or its git repository',
    ),
    "private": (
        f'{METADATA}[dependencies]\nhidden = {{ path = "../hidden", version = "1" }}',
        "dependency hidden: it is not on the registry, and has `publish = false` or is left out here",
    ),
    "dev-cycle": (
        f'{METADATA}[dev-dependencies]\nomega = {{ path = "../omega", version = "1" }}',
        "dev-dependency omega: remove its version, which closes the cycle dev-cycle -> omega -> dev-cycle",
    ),
}


@needs("cargo")
def test_check_finds_what_would_stop_the_release_and_says_how_to_correct_it(world: World) -> None:
    world.registry.new_crates = {"hidden"}
    on_cycle = '[dependencies]\ndev-cycle = { path = "../dev-cycle", version = "1" }'
    others = {"alpha": METADATA, "hidden": f"{METADATA}publish = false", "omega": METADATA + on_cycle}
    result = check(
        world, {**others, **{name: manifest for name, (manifest, _) in FLAWS.items()}}, metadata=""
    )
    assert result.status == 1
    for name, (_, flaw) in FLAWS.items():
        path = world.folder / "checked" / name / "Cargo.toml"
        heading = f"##[error]{name} can't be published as it is. Correct {path}, commit, and push a new tag:"
        assert f"{heading}\n  {flaw}" in result.log
        assert re.search(f"(?m)^{name} +1.0.0 +to correct$", result.stdout)
        assert f"\n  {name} 1.0.0: to correct\n" in result.log
    assert result.stdout.count(" to correct\n") == len(FLAWS)


@needs("cargo")
def test_check_lists_all_flaws_of_a_crate_in_one_message_and_needs_no_index_for_them(world: World) -> None:
    world.registry.faults = [respond(404)]
    result = check(world, {"alpha": 'keywords = ["a b"]\n[dependencies]\nx = "*"'}, metadata="")
    assert "##[error]alpha can't be published as it is. If it isn't published already, correct " in result.log
    message, error = re.split("(?m)^##\\[error\\](?!alpha)", result.log)
    assert [line.split(":")[0] for line in message.splitlines()[1:]] == [
        "  description",
        "  license",
        "  keywords",
        "  dependency x",
    ]
    assert error.startswith(
        "Couldn't read the index at 127.0.0.1: HTTP 404\nIt must be readable without a token.\n"
    )


ALLOWED = {
    "dev-path": '[dev-dependencies]\nomega = { path = "../omega" }',  # which depends on it
    "dev-git": '[dev-dependencies]\nx = { git = "https://x.example" }',
    "itself": '[dev-dependencies]\nitself = { path = ".", version = "1" }',
    "on-a-private-crate-that-is-published": '[dependencies]\nhidden = { path = "../hidden", version = "1" }',
    "five-categories": 'categories = ["a", "b", "c", "d", "e"]',
    "five-keywords": 'keywords = ["a", "b", "c", "1d", "e_-+"]',
    "features": "[features]\n" + "\n".join(f"f{n} = []" for n in range(300)),
    "optional-dependencies": "[dependencies]\n"
    + "\n".join(f'd{n} = {{ version = "1", optional = true }}' for n in range(301)),
}


@needs("cargo")
def test_check_lets_pass_what_can_be_published_and_what_is_published(world: World) -> None:
    on_dev_path = '[dependencies]\ndev-path = { path = "../dev-path", version = "1" }'
    features = "[features]\n" + "\n".join(f"f{n} = []" for n in range(301))
    crates = {
        **{name: METADATA + manifest for name, manifest in ALLOWED.items()},
        "license-file": 'description = "x"\nlicense-file = "x"',
        "omega": METADATA + on_dev_path,
        "hidden": METADATA + "publish = false",
        "had-301-features": METADATA + features,
        "published": '[dev-dependencies]\non-published = { path = "../on-published", version = "1" }',
        "on-published": METADATA + '[dependencies]\npublished = { path = "../published", version = "1" }',
    }
    had: dict[str, list[str]] = {str(n): [] for n in range(151)}
    world.registry.add_to_index("had-301-features", "0.9.0", features=had, features2=had)
    world.registry.add_to_index("published", "1.0.0")
    world.registry.add_to_index("features", "0.9.0", features=5)
    result = check(world, crates, metadata="")
    assert result.status == 0, result
    assert "##[error]" not in result.log
    assert "  cargo publish --workspace --exclude published --registry local\n" in result.stdout


@on_posix
@needs("cargo")
def test_what_check_says_of_a_cycle_is_what_cargo_does(world: World) -> None:
    on_beta = '[dependencies]\nbeta = { path = "../beta", version = "1", registry = "local" }'
    on_alpha = '[dev-dependencies]\nalpha = { path = "../alpha", version = "1", registry = "local" }'
    result = check(world, {"alpha": on_beta, "beta": on_alpha})
    assert "closes the cycle beta -> alpha -> beta" in result.log
    publish = ["cargo", "publish", "--registry", "local", "--allow-dirty", "--no-verify", "--workspace"]
    env = world.base(**cargo_environment(world), CARGO_REGISTRIES_LOCAL_TOKEN=ORDINARY_TOKEN)
    assert world.run_command(publish, env, cwd=world.folder / "checked").status == 101
    manifest = world.folder / "checked/beta/Cargo.toml"
    manifest.write_text(manifest.read_text().replace(', version = "1"', ""))
    assert check(world, {}).status == 0
    assert world.run_command(publish, env, cwd=world.folder / "checked").status == 0
    assert world.registry.published() == ["beta", "alpha"]


@needs("cargo")
@pytest.mark.parametrize(
    ("arguments", "chosen"),
    [
        pytest.param(
            ["-p", "alpha", "--package=beta gamma", "--exclude", "beta"], ["alpha", "gamma"], id="both"
        ),
        pytest.param(["--exclude", "beta", "--exclude", "gamma"], ["alpha"], id="all but some"),
        pytest.param(["--package=", "--exclude="], ["alpha", "beta", "gamma"], id="empty inputs"),
    ],
)
def test_check_looks_at_the_chosen_crates_alone(
    world: World, arguments: list[str], chosen: list[str]
) -> None:
    result = check(world, {"alpha": "", "beta": "", "gamma": ""}, *arguments)
    assert [line.split()[0] for line in result.stdout.partition("\n\n")[0].splitlines()] == chosen
    left_out = [name for name in ("alpha", "beta", "gamma") if name not in chosen]
    assert result.outputs.startswith(f"exclude={' '.join(f'--exclude {name}' for name in left_out)}\n")


@needs("cargo")
def test_check_says_if_a_crate_that_is_left_out_is_needed_and_not_on_the_registry(world: World) -> None:
    on_alpha = '[dependencies]\nalpha = { path = "../alpha", version = "1" }'
    crates = {"alpha": "", "beta": on_alpha, "gamma": ""}
    result = check(world, crates, "--exclude", "alpha")
    assert result.status == 0
    assert "##[warning]beta needs alpha, of which the registry has only other versions\n" in result.log
    world.registry.new_crates = {"alpha"}
    result = check(world, crates, "-p", "beta")
    assert result.status == 1
    assert "  dependency alpha: it is not on the registry, and has `publish = false` or is left" in result.log
    world.registry.index_faults = {"alpha": respond(403)}
    result = check(world, crates, "--exclude", "alpha")
    assert result.stdout.endswith("beta   1.0.0         unknown\ngamma  1.0.0         to publish\n")
    assert result.log.endswith(
        "##[error]Stopped before any upload\n"
        "  beta 1.0.0: dependency alpha: the index gave no usable response (HTTP 403)\n"
        f"{script.AFTER_A_STOP}\n"
    )
    world.registry.add_to_index("beta", "1.0.0")
    assert check(world, crates, "-p", "beta").status == 0
    world.registry.index_faults = {}
    world.registry.new_crates = set()
    world.registry.add_to_index("alpha", "1.0.0")
    assert "needs alpha" not in check(world, crates, "--exclude", "alpha").log


@needs("cargo")
def test_check_doesn_t_ask_for_a_crate_of_another_registry_that_is_needed(world: World) -> None:
    on_alpha = '[dependencies]\nalpha = { path = "../alpha", version = "1" }'
    world.registry.new_crates = {"alpha"}
    assert check(world, {"alpha": 'publish = ["other"]', "beta": on_alpha}).status == 0
    assert not [request for request in world.registry.requests if request.path.endswith("/alpha")]


@needs("cargo")
def test_check_refuses_a_name_that_the_workspace_does_not_have(world: World) -> None:
    result = check(world, {"alpha": ""}, "-p", "alhpa", "--exclude", "$(x)")
    assert result.status == 1
    assert result.log.startswith(
        "##[error]The workspace has no crate $(x), alhpa\nCorrect --package and --exclude"
    )
    assert not world.registry.requests


@needs("cargo")
def test_a_registry_that_the_index_does_not_name_is_asked_nothing(world: World) -> None:
    world.registry.config = {"dl": f"{world.registry.url}/dl"}
    world.registry.new_crates = {"beta"}
    with contextlib.closing(Proxy(world.registry)) as proxy:
        result = check(world, {"alpha": "", "beta": ""}, HTTPS_PROXY=proxy.url)
    assert result.status == 1
    assert "##[error]Not on the registry, and a trusted publisher can't create a crate: beta\n" in result.log
    assert not proxy.tunnels


@needs("cargo")
def test_beside_a_new_crate_check_names_those_that_accept_no_ordinary_token(world: World) -> None:
    world.registry.new_crates = {"gamma"}
    world.registry.trustpub_only = {"beta"}
    crates = {"alpha": "", "beta": "", "gamma": ""}
    prelude = "script.time.sleep = lambda seconds: print('pause', seconds, flush=True)"
    result = check(world, crates, prelude=prelude)
    assert "\nFirst allow ordinary tokens in the settings of: beta\n" in result.log
    asked = [request.path for request in world.registry.requests if request.path.startswith("/api/")]
    assert asked == ["/api/v1/crates/alpha", "/api/v1/crates/beta"]
    assert result.stdout.count("pause 1\n") == 2


@needs("cargo")
def test_check_says_once_if_the_index_can_t_be_reached(world: World) -> None:
    world.registry.config = None
    world.registry.index_faults = {"config.json": respond(503)}
    result = check(world, {"alpha": "", "beta": ""}, prelude=IMPATIENT)
    assert (result.status, result.stdout, result.outputs) == (1, "", "")
    assert result.log.count(" Retrying in ") == 3
    assert "##[error]Couldn't get a valid response from 127.0.0.1: HTTP 503\n" in result.log


@needs("cargo")
def test_check_says_if_it_can_t_read_the_index(world: World) -> None:
    world.registry.index_faults = {"config.json": respond(401)}
    world.registry.config = None
    crates = {"alpha": "", "beta": '[dependencies]\nalpha = { path = "../alpha", version = "1" }'}
    result = check(world, crates, "--exclude", "alpha")
    assert (result.status, result.stdout, result.outputs) == (1, "", "")
    assert result.log.startswith("##[error]Couldn't read the index at 127.0.0.1: HTTP 401\n")
    assert len(world.registry.requests) == 1


UNUSABLE_RESPONSE = "the index gave no usable response "
INDEX_FAULTS: dict[str, tuple[Fault, str]] = {
    "secured": (respond(401), f"{UNUSABLE_RESPONSE}(HTTP 401)"),
    "denied": (refuse(403, "no"), f"{UNUSABLE_RESPONSE}(HTTP 403: no)"),
    "failing": (refuse(500, "oh | <b>"), "Couldn't get a valid response from 127.0.0.1: HTTP 500: oh | <b>"),
    "moved": (respond(300, Location="http://elsewhere"), "(HTTP 300: redirects to http://elsewhere)"),
    "portal": (
        respond(200, b"<html>Log in</html>"),
        f"{UNUSABLE_RESPONSE}(HTTP 200: not the expected response)",
    ),
    "teapot": (respond(418, b'{"vers": "0.1.0"}'), '(HTTP 418: {"vers": "0.1.0"})'),
    "empty": (respond(200), f"{UNUSABLE_RESPONSE}(HTTP 200: not the expected response)"),
    "number": (respond(200, b'{"vers": 1}'), f"{UNUSABLE_RESPONSE}(HTTP 200: not the expected response)"),
    "list": (respond(200, b'["vers"]'), f"{UNUSABLE_RESPONSE}(HTTP 200: not the expected response)"),
    "half": (respond(200, b'{"vers": "0.1.0"}\n{"vers": '), "(HTTP 200: not the expected response)"),
    "partial": (
        respond(206, b'{"vers": "0.1.0"}'),
        f"{UNUSABLE_RESPONSE}(HTTP 206: not the expected response)",
    ),
    "lost-end": (
        send_bytes(b'HTTP/1.1 200 OK\r\nContent-Length: 60\r\n\r\n{"vers": "0.1.0"}\n'),
        "the response is cut off",
    ),
    "too-long": (
        respond(200, b'{"vers": "0.1.0"}\n' + b" " * (2**24 - 18) + b'\n{"vers": "1.0.0"}'),
        "the response is too long",
    ),
    "endless": (
        send_bytes(b'HTTP/1.1 200 OK\r\n\r\n{"vers": "0.1.0"}\n' + b" " * 2**24),
        "the response is too long",
    ),
    "hostile": (refuse(500, "\n::error::owned \x1b[31m"), "HTTP 500: ::error::owned ?[31m"),
}


@needs("cargo")
def test_check_says_which_crates_it_could_not_find_out_about_and_why(world: World) -> None:
    world.registry.index_faults = {name: fault for name, (fault, _) in INDEX_FAULTS.items()}
    result = check(world, {"alpha": "", **dict.fromkeys(INDEX_FAULTS, "")}, prelude=IMPATIENT)
    assert result.status == 1
    assert "alpha     1.0.0         to publish\n" in result.stdout
    for name, (_, reason) in INDEX_FAULTS.items():
        assert f"{name:8}  1.0.0         unknown\n" in result.stdout
        (line,) = re.findall(f"^  {name} 1.0.0: (.*)$", result.log, re.MULTILINE)
        assert reason in line
    assert "| `failing` | 1.0.0 | unknown |\n" in result.summary
    assert not re.search("^::error::", result.stdout + result.stderr, flags=re.MULTILINE)


@needs("cargo")
def test_check_reads_an_index_that_is_far_longer_than_other_responses(world: World) -> None:
    world.registry.add_to_index("alpha", "0.9.0", features={"x" * 15 * 1024 * 1024: []})
    world.registry.add_to_index("alpha", "1.0.0")
    assert check(world, {"alpha": ""}).stdout.startswith("alpha  1.0.0         published\n")


@needs("cargo")
def test_a_crate_that_the_index_does_not_have_is_new(world: World) -> None:
    crates = {"c404": 404, "c410": 410, "c451": 451}
    world.registry.index_faults = {name: respond(code) for name, code in crates.items()}
    assert check(world, dict.fromkeys(crates, "")).stdout.count("  1.0.0         new\n") == 3


@needs("cargo")
def test_check_asks_about_several_crates_at_a_time(world: World) -> None:
    crates = [f"crate-{number}" for number in range(8)]
    together = threading.Barrier(len(crates))

    def wait_for_the_others(handler: Handler) -> None:
        together.wait(20)
        handler.respond(200, {"name": handler.path.rpartition("/")[2], "vers": "0.1.0"})

    world.registry.index_faults = dict.fromkeys(crates, wait_for_the_others)
    assert check(world, dict.fromkeys(crates, "")).stdout.count("  to publish\n") == 8


@on_posix
@needs("cargo")
def test_a_cancelled_check_does_not_wait_for_responses(world: World) -> None:
    world.registry.index_faults = {"alpha": never_respond, "beta": never_respond}
    write_workspace(world.folder / "checked", {"alpha": "", "beta": ""})
    env = world.on_github(**cargo_environment(world))
    process = world.start("check", "--registry", "local", env=env, cwd=world.folder / "checked")
    wait_until(lambda: len(world.registry.requests) == 3)
    process.popen.terminate()
    result = process.finish(seconds=2)
    assert (result.status, result.log) == (1, "##[error]Cancelled.\n")


@needs("cargo")
@pytest.mark.parametrize(
    "index",
    [
        pytest.param(None, id="missing"),
        pytest.param("https://127.0.0.1/index", id="of a git repository"),
    ],
)
def test_check_names_the_variable_that_does_not_hold_a_sparse_index(world: World, index: str | None) -> None:
    result = check(world, {"alpha": ""}, CARGO_REGISTRIES_LOCAL_INDEX=index)
    assert (result.status, result.stdout, world.registry.requests) == (1, "", [])
    assert "##[error]CARGO_REGISTRIES_LOCAL_INDEX does not hold the URL of a sparse index\n" in result.log
    assert "Set the variable to sparse+https://host/path/.\n" in result.log


@needs("cargo")
def test_check_asks_crates_io_s_own_index_and_links_its_crates(world: World) -> None:
    write_workspace(world.folder / "checked", {})
    write_workspace(world.folder / "a folder", {"alpha": ""})
    prelude = "assert script.CRATES_IO_INDEXES[0] == 'sparse+https://index.crates.io/'\n"
    prelude += f"script.CRATES_IO_INDEXES = ['sparse+{world.registry.url}/index/']"
    manifest = str(world.folder / "a folder/Cargo.toml")
    result = check(world, {}, "--manifest-path", manifest, registry="", prelude=prelude)
    command = f"cargo publish --workspace --registry crates-io --manifest-path '{manifest}'"
    assert result.stdout.endswith(f"\n  {command}\n")
    assert "| [`alpha`](https://crates.io/crates/alpha) | 1.0.0 | to publish |\n" in result.summary
    world.registry.add_to_index("alpha", "1.0.0")
    result = check(world, {}, "--manifest-path", manifest, registry="", prelude=prelude)
    assert "Nothing to publish: every version is on crates.io." in result.log


def test_check_says_if_cargo_is_missing(world: World) -> None:
    write_workspace(world.folder / "checked", {})
    result = check(world, {}, PATH=str(world.folder))
    assert result.status == 1
    assert "##[error]Couldn't run cargo: " in result.log
    assert (
        "\nIt knows the workspace's crates. Install it, or correct PATH, and run this again.\n" in result.log
    )


@needs("cargo")
def test_the_command_that_check_prints_is_whole(world: World) -> None:
    names = [f"crate-{number}" for number in range(10, 50)]
    for name in names[1:]:
        world.registry.add_to_index(name, "1.0.0")
    folder = world.folder / "@scope/a  folder"
    write_workspace(folder, dict.fromkeys(names, ""))
    write_workspace(world.folder / "checked", {})
    result = check(world, {}, "--manifest-path", str(folder / "Cargo.toml"))
    excluded = " ".join(f"--exclude {name}" for name in names[1:])
    manifest = shlex.quote(str(folder / "Cargo.toml"))
    command = f"cargo publish --workspace {excluded} --registry local --manifest-path {manifest}"
    assert result.stdout.endswith(f"\nTo publish what is left:\n  {command}\n")


@needs("cargo")
def test_if_cargo_fails_check_shows_what_it_says_and_that_stays_text(world: World) -> None:
    folder = world.folder / "checked"
    write_workspace(folder, {"alpha": ""})
    name = "a\\n```\\n[click](https://evil.example)\\n::error::owned\\n##[error]owned"
    (folder / "alpha/Cargo.toml").write_text(f'[package]\nname = "{name}"\nversion = "1.0.0"\n')
    result = check(world, {}, CARGO_TERM_COLOR="always")
    assert (result.status, result.outputs) == (1, "")
    assert result.log.startswith("##[error]`cargo metadata` failed\n  error: ")
    assert result.log.endswith("\nFix what cargo reports, and run this again.\n")
    assert "click" in result.summary
    assert_harmless(result)


@on_posix
@needs("cargo", "bash")
def test_a_workspace_that_stopped_half_way_is_published_by_running_the_same_steps_again(
    world: World, project: Project
) -> None:
    env = project.environment()
    publish = "cargo publish --registry local --allow-dirty --no-verify --workspace $EXCLUDE"

    def release() -> tuple[Result, Result]:
        (world.folder / "output").write_text("")
        inputs = {"MANIFEST_PATH": "", "REGISTRY": "local"}
        checked = run_step(world, HERE / "check", project.folder, **{**project.cargo_environment, **inputs})
        outputs = dict(line.split("=", 1) for line in checked.outputs.splitlines())
        step = {**env, "EXCLUDE": outputs["exclude"], "PUBLISH": outputs["publish"]}
        return checked, world.run_command(
            ["bash", "-ec", f"! $PUBLISH || {publish}"], step, cwd=project.folder
        )

    world.registry.without_publisher = {"beta"}
    checked, published = release()
    assert (checked.status, published.status) == (0, 101)
    assert "The provided access token is not valid for crate `beta`" in published.stderr
    assert world.registry.published() == ["alpha"]

    world.registry.without_publisher.clear()
    checked, published = release()
    assert (checked.status, published.status) == (0, 0)
    assert "  cargo publish --workspace --exclude alpha --registry local\n" in checked.stdout
    assert world.registry.published() == ["alpha", "beta", "gamma"]

    checked, published = release()
    assert (checked.status, published.status, published.stderr) == (0, 0, "")
    assert "Nothing to publish: every version is on local." in checked.log


# The publishers


def start_publishers(
    world: World, *arguments: str, token: str | None = ORDINARY_TOKEN, prelude: str = NO_PAUSE, **more: Any
) -> Process:
    """Start `publishers` in the repository of octo."""
    folder = repository_of_octo(world)
    env = world.base(**cargo_environment(world), CARGO_REGISTRY_TOKEN=token)
    options = ("--url", world.registry.url, "--registry", "local")
    return world.start("publishers", *options, *arguments, env=env, prelude=prelude, cwd=folder, **more)


def publishers(world: World, *arguments: str, **more: Any) -> Result:
    """Run `publishers` in the repository of octo."""
    return start_publishers(world, *arguments, **more).finish()


def repository_of_octo(world: World) -> Path:
    """Return the folder of a workspace of three crates, in a repository of octo on GitHub."""
    folder = world.folder / "workspace"
    if not folder.exists():
        write_workspace(folder, {"alpha": "", "beta": "", "gamma": "", "hidden": "publish = false"})
        (folder / ".github/workflows").mkdir(parents=True)
        (folder / ".github/workflows/ci.yml").write_text("on: push")
        (folder / ".github/workflows/release.yml").write_text("  - run: cargo publish")
        git(folder, "init", "--quiet")
        git(folder, "remote", "add", "origin", "git@github.com:octo/crate.git")
    return folder


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=folder, check=True)


def give_publisher(world: World, crate: str, **more: object) -> None:
    """Give a crate a trusted publisher, by default the one that the workspace needs."""
    parts = {"repository_owner": "octo", "repository_name": "crate", "workflow_filename": "release.yml"}
    config = {"kind": "github_configs", "crate": crate, "environment": None, **parts, **more}
    world.registry.publishers.append(config)


def created(world: World) -> list[Any]:
    """Return the bodies of the requests that add a publisher."""
    return [json.loads(request.body) for request in world.registry.requests if request.method == "POST"]


WANTED = "octo/crate, release.yml, environment (none)"


@needs("cargo", "git")
def test_publishers_shows_which_crates_have_the_trusted_publisher_and_changes_nothing(world: World) -> None:
    give_publisher(world, "alpha", repository_owner="Octo", repository_name="CRATE")
    give_publisher(world, "beta", workflow_filename="publish.yml")
    give_publisher(world, "beta", environment="x")
    result = publishers(world)
    assert result.status == 1
    assert (
        world.anonymous(result.stdout)
        == f"""\
The trusted publisher {WANTED}, on http://<registry>:

alpha  matches
beta   missing; other publishers: octo/crate, publish.yml, environment (none) and octo/crate, release.yml, \
environment x
gamma  missing
"""
    )
    lacking = f"error: Crates that lack, or may lack, the trusted publisher {WANTED}: 2 of 3\n"
    assert f"{lacking}Read the remarks above, then run this again with --add.\n" in result.stderr
    assert not created(world)


@needs("cargo", "git")
def test_publishers_adds_what_is_missing_and_nothing_else(world: World) -> None:
    give_publisher(world, "alpha")
    result = publishers(world, "--add")
    assert result.status == 0
    assert (
        "Crates: 2. For each, the registry will e-mail every owner who has a verified address.\n"
        in result.stderr
    )
    assert result.stdout.endswith("\nalpha  matches\nbeta   added\ngamma  added\n")
    assert result.stdout.count("\nbeta   added\n") == 2  # as it goes, and in the table at the end
    parts = {"repository_owner": "octo", "repository_name": "crate", "workflow_filename": "release.yml"}
    assert created(world) == [
        {"github_config": {"crate": crate, **parts, "environment": None}} for crate in ("beta", "gamma")
    ]
    again = publishers(world, "--add")
    assert (again.status, len(created(world)), "e-mail" in again.stderr) == (0, 2, False)
    assert f"When you are done, revoke the token: {world.registry.url}/settings/tokens\n" in result.stderr
    assert ORDINARY_TOKEN not in result.stdout + result.stderr


@needs("cargo", "git")
def test_publishers_reads_all_pages_of_a_long_list(world: World) -> None:
    for crate in ("alpha", "beta", "gamma"):
        for number in range(4):
            give_publisher(world, crate, workflow_filename=f"{number}.yml")
        give_publisher(world, crate)
    assert publishers(world).status == 0


@needs("cargo", "git")
def test_malformed_lists_of_publishers_are_told_and_stop_no_other_crate(world: World) -> None:
    lists: list[object] = [{"a": {}}, ["a"], None]
    world.registry.faults = [respond(200, {"github_configs": configs}) for configs in lists]
    result = publishers(world)
    problem = "Couldn't get a valid response from 127.0.0.1: HTTP 200: not the expected response"
    assert result.stdout.count(f"  {problem}\n") == 3
    assert len(world.registry.requests) == 3


@needs("cargo", "git")
def test_a_list_that_goes_on_at_an_unusable_address_is_not_followed(world: World) -> None:
    pages = ["@example.com/", "?a=1 HTTP/1.1", 7]
    world.registry.faults = [
        respond(200, {"github_configs": [], "meta": {"next_page": page}}) for page in pages
    ]
    result = publishers(world)
    assert result.stdout.count("  the registry's list of trusted publishers has an invalid next_page\n") == 3
    assert len(world.registry.requests) == 3


@needs("cargo", "git")
def test_a_list_that_never_ends_is_given_up(world: World) -> None:
    page = {"github_configs": [], "meta": {"next_page": "?page=1"}}
    world.registry.faults = [respond(200, page)] * 100_000
    result = publishers(world, prelude=f"{NO_PAUSE}; script.REQUESTS_SECONDS = 0.3")
    assert result.status == 1
    assert len(re.findall("from 127.0.0.1: (no time is left|timed out)", result.stdout)) == 3


@needs("cargo", "git")
def test_a_list_of_publishers_is_asked_for_again_after_a_transient_failure(world: World) -> None:
    for crate in ("alpha", "beta", "gamma"):
        give_publisher(world, crate)
    world.registry.faults = [respond(503)] * 3
    result = publishers(world, prelude=f"{NO_PAUSE}\n{IMPATIENT}")
    assert result.status == 0
    assert result.stderr.count(" Retrying in ") == 3


@needs("cargo", "git")
def test_publishers_asks_for_one_crate_a_second_also_if_the_registry_fails(world: World) -> None:
    world.registry.faults = [respond(503)] * 12
    sleep = "script.time.sleep = lambda seconds: print('pause', seconds)"
    result = publishers(world, prelude=f"{IMPATIENT}\n{sleep}")
    assert result.stdout.count("pause 1\n") == 3


@needs("cargo", "git")
def test_publishers_takes_as_long_as_its_crates_take(world: World) -> None:
    for crate in ("alpha", "beta", "gamma"):
        give_publisher(world, crate)
    result = publishers(world, prelude=f"{NO_PAUSE}; script.COMMAND_SECONDS = 0.01")
    assert (result.status, result.stdout.count("  matches\n")) == (0, 3)


@on_posix
@needs("cargo", "git")
def test_cancelled_publishers_speaks_of_no_access_tokens(world: World) -> None:
    world.registry.faults = [never_respond]
    process = start_publishers(world)
    wait_until(lambda: world.registry.requests)
    process.popen.terminate()
    result = process.finish(seconds=2)
    assert (result.status, result.stderr) == (1, "crates-io-auth: error: Cancelled.\n")


@needs("cargo", "git")
def test_what_the_registry_says_of_publishers_stays_text(world: World) -> None:
    give_publisher(world, "alpha", workflow_filename=HOSTILE, environment=HOSTILE)
    give_publisher(world, "beta", repository_name=HOSTILE)
    world.registry.faults = [None, None, refuse(400, HOSTILE)]
    result = publishers(world)
    assert result.status == 1
    assert result.stdout.count("::stop-commands::x") == 4
    _, _, *states = result.stdout.splitlines()
    assert [state.split()[0] for state in states] == ["alpha", "beta", "gamma"]
    assert_harmless(result)


@needs("cargo", "git")
def test_with_an_environment_the_match_is_exact_and_one_without_is_named(world: World) -> None:
    give_publisher(world, "alpha", environment="RELEASE")
    give_publisher(world, "beta")
    for environment in ("release", None):
        give_publisher(world, "gamma", environment=environment)
    result = publishers(world, "--environment", "release")
    others = (
        f"; other publishers: {WANTED}. "
        "Don't keep the one without an environment: it accepts jobs that are not protected\n"
    )
    assert result.stdout.endswith(f"alpha  matches\nbeta   missing{others}gamma  matches{others}")
    result = publishers(world, "--environment", "release", "--add")
    assert result.stdout.endswith(f"alpha  matches\nbeta   added{others}gamma  matches{others}")


@needs("cargo", "git")
def test_one_refusal_stops_no_other_and_says_what_to_do(world: World) -> None:
    world.registry.new_crates = {"alpha"}
    world.registry.not_owned = {"beta"}
    for number in range(5):
        give_publisher(world, "gamma", workflow_filename=f"{number}.yml", environment="x")
    result = publishers(world, "--add")
    assert result.status == 1
    *_, alpha, beta, gamma = result.stdout.splitlines()
    assert (
        alpha
        == "alpha  refused (HTTP 404: crate `alpha` does not exist). Publish a first version of the crate"
    )
    assert beta.startswith(
        "beta   refused (HTTP 400: You are not an owner of this crate). An owner must do this; belonging"
    )
    assert gamma.startswith("gamma  refused (HTTP 409: This crate already has the maximum number")
    assert gamma.endswith("). Remove one of the crate's publishers first")
    assert result.stderr.endswith("\nSee the reasons above, then run this again.\n")
    assert publishers(world).stderr.endswith("\nRead the remarks above, then run this again with --add.\n")
    world.registry.new_crates = {"alpha", "beta", "gamma"}
    assert publishers(world).stderr.endswith("\nSee the reasons above, then run this again.\n")


@needs("cargo", "git")
def test_a_response_that_is_not_the_registry_s_asks_for_the_url(world: World) -> None:
    world.registry.faults = [respond(404, b"<html>Not found")]
    result = publishers(world)
    refused = (
        "alpha  refused (HTTP 404: <html>Not found). These are not the registry's own words: check --url"
    )
    assert refused in result.stdout


@needs("cargo", "git")
def test_publishers_fails_if_no_crate_may_go_to_the_registry(world: World) -> None:
    write_workspace(world.folder / "workspace", {"alpha": 'publish = ["other"]'})
    result = publishers(world, "--repository", "octo/crate", "--workflow", "release.yml")
    assert (result.status, result.stdout, world.registry.requests) == (1, "", [])
    assert result.stderr.startswith(
        "crates-io-auth: error: No crate of the workspace may go to local\nName the registry with --registry"
    )


@needs("cargo", "git")
def test_the_token_for_another_registry_is_not_sent_to_crates_io(world: World) -> None:
    result = publishers(world, "--url", "https://crates.io")
    assert (result.status, result.stdout) == (1, "")
    assert (
        result.stderr
        == "crates-io-auth: error: --registry local needs --url\nPass the URL of that registry.\n"
    )


@needs("cargo", "git")
def test_an_owner_is_told_to_verify_the_address_or_to_link_the_account_first(world: World) -> None:
    give_publisher(world, "alpha")
    email = "You must verify your email address to create a Trusted Publishing config"
    account = "Your account is not linked to a GitHub account"
    world.registry.faults = [None, None, None, refuse(403, email), refuse(403, account)]
    result = publishers(world, "--add")
    assert f"beta   refused (HTTP 403: {email}). Do this in your settings on 127.0.0.1\n" in result.stdout
    assert f"gamma  refused (HTTP 403: {account}). Do this in your settings on 127.0.0.1\n" in result.stdout


@needs("cargo", "git")
def test_a_lost_response_to_an_addition_is_not_repeated(world: World) -> None:
    for crate in ("alpha", "beta"):
        give_publisher(world, crate)
    world.registry.faults = [None, None, None, lose_response]
    assert publishers(world, "--add").status == 1
    assert len(created(world)) == 1
    assert publishers(world, "--add").status == 0
    assert len(created(world)) == 1


@needs("cargo", "git")
def test_a_registry_that_is_too_busy_to_add_a_publisher_has_not_refused_it(world: World) -> None:
    for crate in ("alpha", "beta"):
        give_publisher(world, crate)
    world.registry.faults = [None, None, None, respond(503)]
    result = publishers(world, "--add")
    assert "gamma  Couldn't get a valid response from 127.0.0.1: HTTP 503\n" in result.stdout


@needs("cargo", "git")
@pytest.mark.parametrize(
    ("command", "variables"),
    [
        ("post", {"CARGO_REGISTRY_TOKEN": new_access_token(), "INPUT_URL": None}),
        ("publishers", {"CARGO_REGISTRY_TOKEN": ORDINARY_TOKEN, "INPUT_URL": "https://other.invalid"}),
    ],
    ids=["post", "publishers"],
)
def test_a_token_of_the_environment_is_for_crates_io_unless_another_registry_is_named(
    tls_world: World, command: str, variables: dict[str, str | None]
) -> None:
    world = tls_world
    folder = repository_of_octo(world)
    with contextlib.closing(Proxy(world.registry)) as proxy:
        env = world.on_github(HTTPS_PROXY=proxy.url, **cargo_environment(world), **variables)
        result = world.run(command, env=env, cwd=folder)
    assert "The certificate of crates.io is not trusted: Hostname mismatch" in result.log
    assert set(proxy.tunnels) == {"crates.io:443"}


@pytest.mark.parametrize(
    ("token", "what"),
    [
        pytest.param(None, "is not set", id="no token"),
        pytest.param(
            "cio_tp_0000000000000000000000000000000w", "holds a temporary token", id="temporary token"
        ),
    ],
)
@needs("git")
def test_publishers_says_how_to_make_the_token_that_it_needs(
    world: World, token: str | None, what: str
) -> None:
    result = publishers(world, token=token)
    assert result.status == 1
    assert f"error: CARGO_REGISTRY_TOKEN {what}, and `publishers` needs an API token" in result.stderr
    assert (
        f"Make one at {world.registry.url}/settings/tokens/new: scope `trusted-publishing`" in result.stderr
    )
    assert not world.registry.requests


@needs("cargo", "git")
def test_a_token_without_the_scope_is_told_so_and_never_shown(world: World) -> None:
    result = publishers(world, token="cioATokenWithoutTheScope")
    assert result.stdout.count("The token needs the scope `trusted-publishing`, for this crate\n") == 3
    assert "cioATokenWithoutTheScope" not in result.stdout + result.stderr


@needs("cargo", "git")
def test_on_gitlab_project_and_ci_file_make_the_publisher(world: World) -> None:
    git(repository_of_octo(world), "remote", "set-url", "origin", "https://gitlab.com/group/sub/crate")
    assert publishers(world, "--gitlab", "--add", "--environment", "release").status == 0
    path = ("--workflow", "ci/release.yml")
    assert " group/sub/crate, ci/release.yml, " in publishers(world, "--gitlab", *path).stdout
    config = {"namespace": "group/sub", "project": "crate", "workflow_filepath": ".gitlab-ci.yml"}
    expected = {"crate": "alpha", **config, "environment": "release"}
    assert created(world)[0] == {"gitlab_config": expected}
    assert world.registry.requests[0].path.startswith(
        "/api/v1/trusted_publishing/gitlab_configs?crate=alpha&"
    )


@needs("git")
def test_what_publishers_can_t_find_out_it_asks_for(world: World) -> None:
    folder = repository_of_octo(world)

    def wanted(workflow: str = "", environment: str | None = None, repository: str = "") -> str:
        manifest = str(folder / "Cargo.toml")
        options = {"workflow": workflow, "environment": environment, "repository": repository}
        try:
            namespace = argparse.Namespace(gitlab=False, manifest_path=manifest, **options)
            return str(script.wanted_publisher(namespace))
        except script.AuthError as error:
            return str(error)

    workflows = folder / ".github/workflows"
    (workflows / "reusable.yml").write_text("on: workflow_call\n  release:\n - uses: x/crates-io-auth@v1")
    (workflows / "test.yml").write_bytes(b"  - run: cargo publish --workspace --dry-run # \xff")
    dry_runs = "cargo publish -n", "cargo publish-all", "cargo publish \\\n      --dry-run"
    (workflows / "dry.yml").write_text("\n  - run: ".join(["on: push", *dry_runs]))
    (workflows / "lint.yml").write_text(
        "on: push\n  # not: cargo publish\n  - run: cargo test # cargo publish"
    )
    assert wanted() == WANTED
    (folder / "crates").mkdir()
    assert script.workflow_texts(str(folder / "crates")) == script.workflow_texts(str(folder))
    (workflows / "release.yml").write_text("on: push\n  cargo +stable publish\n    environment: release")
    assert wanted().startswith("release.yml has an `environment`\nPass it as --environment NAME, or")
    assert wanted(environment="release") == "octo/crate, release.yml, environment release"
    assert wanted(environment="") == WANTED
    (workflows / "release.yml").write_text("cargo publish\n    'environment' : release")
    assert wanted().startswith("release.yml has an `environment`\n")
    (workflows / "release.yml").write_text("cargo publish\n  # no environment:\n    deploy-environment: x")
    assert wanted() == WANTED
    (workflows / "ci.yml").write_text("on: push")
    assert wanted("relase.yml").startswith("There is no relase.yml in .github/workflows\n")
    assert wanted("relase.yml", repository="a/b") == "a/b, relase.yml, environment (none)"
    for environment in (None, "release"):
        assert wanted("a/b.yml", environment).startswith("a/b.yml is a path\n")
    (workflows / "ci.yml").write_text("uses: x/crates-io-auth@v1")
    assert wanted().startswith(
        "2 workflow files seem to publish crates: ci.yml, release.yml\nName it with --workflow"
    )
    for repository in ("a/b.git", "a/b/c", "https://github.com/a/b"):
        error = f"{repository} is not a repository\nWrite it as OWNER/NAME."
        assert wanted("x.yml", repository=repository) == error


@needs("git")
def test_outside_a_repository_publishers_reads_no_workflow_of_the_current_folder(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repository_of_octo(world))
    assert script.workflow_texts(str(world.folder)) == {}


@needs("cargo", "git")
def test_what_publishers_is_told_it_need_not_find_out(world: World) -> None:
    git(repository_of_octo(world), "remote", "remove", "origin")
    (repository_of_octo(world) / ".github/workflows/release.yml").unlink()
    result = publishers(world, "--workflow", "x.yml", "--repository", "a/b", "--environment", "")
    assert result.stdout.startswith("The trusted publisher a/b, x.yml, environment (none), on http")


@needs("git")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(
            lambda folder: (folder / ".github/workflows/release.yml").unlink(),
            "Found no workflow file that clearly publishes crates\nName it with --workflow FILE.\n",
            id="workflow",
        ),
        pytest.param(
            lambda folder: git(folder, "remote", "remove", "origin"),
            "git has no remote origin on github.com\nName the repository with --repository OWNER/NAME.\n",
            id="remote",
        ),
    ],
)
def test_without_a_workflow_or_a_remote_publishers_asks_for_the_option_and_sends_nothing(
    world: World, change: Callable[[Path], None], message: str
) -> None:
    change(repository_of_octo(world))
    result = publishers(world)
    assert (result.status, result.stdout) == (1, "")
    assert result.stderr == f"crates-io-auth: error: {message}"
    assert not world.registry.requests


@needs("git")
def test_the_repository_is_that_of_an_origin_on_github(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "remote", "add", "origin", "")
    for url, repository in (
        ("git@github.com:octo/crate.git", "octo/crate"),
        ("git@github.com:22/crate.git", "22/crate"),
        ("git@github.com:/octo/crate", "octo/crate"),
        ("https://token@github.com/octo/crate", "octo/crate"),
        ("ssh://git@github.com:22/octo/crate.git/", "octo/crate"),
        ("git://GitHub.com/octo/crate", "octo/crate"),
    ):
        git(tmp_path, "remote", "set-url", "origin", url)
        assert script.repository_of_origin(str(tmp_path), "github.com") == repository
    error = "^git has no remote origin on github.com\nName the repository with --repository OWNER/NAME.$"
    for url in (
        "https://github.com.evil.example/octo/crate",
        "https://gitea.example/github.com/octo/crate",
        "/srv/github.com/octo/crate",
    ):
        git(tmp_path, "remote", "set-url", "origin", url)
        with pytest.raises(script.AuthError, match=error):
            script.repository_of_origin(str(tmp_path), "github.com")


def test_without_git_the_repository_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(script.AuthError, match="Name the repository with --repository OWNER/NAME.$"):
        script.repository_of_origin(str(tmp_path), "github.com")


@on_posix
@needs("cargo", "git")
@pytest.mark.parametrize(("answer", "count"), [("y", 3), ("", 0)], ids=["yes", "no"])
def test_on_a_terminal_publishers_asks_once_before_it_adds(world: World, answer: str, count: int) -> None:
    controller, terminal = os.openpty()
    os.write(controller, f"{answer}\n".encode())
    result = publishers(world, "--add", stdin=terminal)
    os.close(terminal)
    os.close(controller)
    assert result.stderr.count("Go on? [y/N]") == 1
    assert len(created(world)) == count
    assert result.stderr.endswith("crates-io-auth: error: Nothing was added\n") is (count == 0)


# The action and its hook


def composite_steps(folder: Path = HERE) -> list[str]:
    """Return the steps of an action, as they stand in its action.yml."""
    return (folder / "action.yml").read_text().partition("  steps:\n")[2].split("    - ")[1:]


def action_command(folder: Path = HERE) -> str:
    """Return the command line of an action's last step."""
    (command,) = re.findall(r"^      run: (.+)$", composite_steps(folder)[-1], flags=re.MULTILINE)
    return str(command)


def start_step(world: World, action: Path, cwd: Path, **changes: str | None) -> Process:
    """Start an action's own command line the way the runner does for `shell: bash`."""
    step = world.folder / "step.sh"
    step.write_text(action_command(action))
    bash = ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", str(step)]
    return world.start_command(bash, world.on_github(GITHUB_ACTION_PATH=str(action), **changes), cwd=cwd)


def run_step(world: World, action: Path, cwd: Path, **changes: str | None) -> Result:
    return start_step(world, action, cwd, **changes).finish()


def run_action(world: World, **changes: str | None) -> Result:
    return run_step(world, HERE, world.folder, **changes)


def run_hook(world: World, phase: str, **changes: str | None) -> Result:
    """Run main or post of the JavaScript action with the real node."""
    (name,) = re.findall(rf"^  {phase}: (.+)$", (HERE / "post/action.yml").read_text(), flags=re.MULTILINE)
    node = str(shutil.which("node"))  # by its path: a test may take PATH away
    return world.run_command([node, str(HERE / "post" / name)], world.on_github(**changes))


def plant_modules(folder: Path) -> None:
    """Put modules into a folder that leave a file in it if they are imported."""
    for name in ("json", "sitecustomize", "usercustomize", "urllib"):
        (folder / f"{name}.py").write_text(f"open({str(folder / 'was-here')!r}, 'w'); raise SystemExit(1)")


@on_posix
@needs("node", "bash")
def test_the_action_gets_a_token_that_post_revokes_and_runs_no_code_of_the_workspace(world: World) -> None:
    plant_modules(world.folder)
    workspace = {"PYTHONPATH": str(world.folder), "PYTHONSTARTUP": str(world.folder / "json.py")}
    started = run_hook(world, "main", **workspace)
    assert (started.status, started.stdout, started.stderr) == (0, "", "")
    assert run_action(world, **workspace).token in world.registry.alive()
    ended = run_hook(world, "post", **workspace)
    assert (ended.status, ended.log) == (0, "crates-io-auth: Revoked 1 access token.\n")
    assert not world.registry.alive()
    assert not (world.folder / "was-here").exists()


@on_posix
@needs("cargo", "bash")
@pytest.mark.parametrize("folder", [HERE, HERE / "check"], ids=["action.yml", "check/action.yml"])
def test_the_action_s_process_gets_the_runner_s_signals(world: World, project: Project, folder: Path) -> None:
    world.registry.faults = [never_respond]
    inputs = {"MANIFEST_PATH": "", "REGISTRY": "local"}
    process = start_step(world, folder, project.folder, **{**project.cargo_environment, **inputs})
    wait_until(lambda: world.registry.requests)
    process.popen.send_signal(signal.SIGINT)  # as the runner sends it, to bash alone
    result = process.finish(seconds=10)
    assert result.status == 1
    assert result.log.startswith("##[error]Cancelled.")


def test_the_action_schedules_the_revocation_before_it_asks_for_a_token() -> None:
    first, second = composite_steps()
    assert "uses: $/post\n" in first
    assert "crates_io_auth.py" in second


def test_the_revocation_is_scheduled_and_done_whatever_happens_in_the_job() -> None:
    # The runner's own rule for a post step is always().
    assert not re.search(r"\bif:", (HERE / "post/action.yml").read_text() + composite_steps()[0])


def step_environment(action: Path, **inputs: str) -> dict[str, str]:
    """Return what the last step of an action gets in its environment, with inputs or their defaults."""
    text = (action / "action.yml").read_text()
    default = r'^  ([a-z-]+):\n    description: .+\n    default: "?(.*?)"?$'
    given = {name.replace("_", "-"): value for name, value in inputs.items()}
    values = {**dict(re.findall(default, text, re.MULTILINE)), **given}
    variable = r"^        ([A-Z_]+): \$\{\{ inputs\.([a-z-]+) \}\}$"
    return {name: values[value] for name, value in re.findall(variable, text, re.MULTILINE)}


@on_posix
@needs("bash")
@pytest.mark.parametrize("registry", [None, "local"], ids=["crates.io by default", "another"])
def test_the_inputs_of_the_action_say_for_which_registry_cargo_gets_tokens(
    world: World, registry: str | None
) -> None:
    (world.folder / "temp").mkdir()
    url = world.registry.url if registry else "https://crates.io"
    inputs = {"url": url, "registry": registry} if registry else {}
    env = step_environment(HERE, credential_provider="true", **inputs)
    result = run_action(world, RUNNER_TEMP=str(world.folder / "temp"), **env)
    assert (result.status, result.outputs) == (0, "")
    variable, _, launcher = (world.folder / "env").read_text().strip().partition("=")
    prefix = "CARGO_REGISTRIES_LOCAL" if registry else "CARGO_REGISTRY"
    assert variable == f"{prefix}_CREDENTIAL_PROVIDER"
    assert Path(launcher).read_text().endswith(f" --cargo-plugin --url {url}\n")


@on_posix
@needs("bash")
def test_by_default_the_action_hands_over_a_token(world: World) -> None:
    result = run_action(world, **step_environment(HERE, url=world.registry.url))
    assert result.token in world.registry.alive()
    assert (world.folder / "env").read_text() == ""


@on_posix
@needs("cargo", "bash")
def test_the_inputs_of_check_choose_the_workspace_the_registry_and_the_crates(world: World) -> None:
    write_workspace(world.folder / "workspace", {"alpha": "", "beta": "", "gamma": ""})
    defaults = step_environment(HERE / "check")
    assert defaults == {"MANIFEST_PATH": "", "REGISTRY": "crates-io", "PACKAGES": "", "EXCLUDE": ""}
    inputs = {"registry": "local", "packages": "alpha  beta", "exclude": "beta"}
    env = step_environment(HERE / "check", manifest_path="workspace/Cargo.toml", **inputs)
    result = run_step(world, HERE / "check", world.folder, **cargo_environment(world), **env)
    assert result.stdout.startswith("alpha  1.0.0         to publish\n\n")
    assert (result.status, result.outputs) == (0, "exclude=--exclude beta --exclude gamma\npublish=true\n")


@pytest.mark.parametrize(
    ("folder", "names"),
    [(HERE, ["token"]), (HERE / "check", ["exclude", "publish"])],
    ids=["action.yml", "check/action.yml"],
)
def test_the_outputs_of_an_action_are_those_that_its_step_sets(folder: Path, names: list[str]) -> None:
    (step,) = re.findall("^      id: (.+)$", composite_steps(folder)[-1], flags=re.MULTILINE)
    outputs = (folder / "action.yml").read_text().partition("\noutputs:\n")[2].partition("\nruns:\n")[0]
    assert re.findall("^  ([a-z]+):$", outputs, flags=re.MULTILINE) == names
    values = [f"${{{{ steps.{step}.outputs.{name} }}}}" for name in names]
    assert re.findall("^    value: (.+)$", outputs, flags=re.MULTILINE) == values


@on_posix
@needs("node", "bash")
@pytest.mark.parametrize(
    ("process", "log"),
    [
        ("main hook", ""),
        ("post hook", "##[warning]The record of this job, "),
        ("action.yml", "crates-io-auth: Got an access token "),
        ("check/action.yml", "##[error]"),
    ],
    ids=["main hook", "post hook", "action.yml", "check/action.yml"],
)
def test_no_process_of_an_action_runs_code_from_pythonpath_or_site_packages(
    world: World, process: str, log: str
) -> None:
    plant_modules(world.folder)
    venv.create(world.folder / "venv", symlinks=True)
    (installed,) = world.folder.glob("venv/lib/python*/site-packages")
    plant = f"import sys; open({str(world.folder / 'was-here')!r}, 'w')\n"
    (installed / "planted.pth").write_text(plant)
    path = os.pathsep.join([str(world.folder / "venv/bin"), world.base()["PATH"]])
    for hostile in {"PATH": path}, {"PYTHONPATH": str(world.folder)}:
        subprocess.run(["python3", "-c", ""], env=world.base(**hostile), stderr=subprocess.DEVNULL)
        (world.folder / "was-here").unlink()  # any other Python runs it
        if process.endswith("hook"):
            result = run_hook(world, process.partition(" ")[0], **hostile)
        else:
            action = (HERE / process).parent
            env = step_environment(action, url=world.registry.url)
            result = run_step(world, action, world.folder, **env, **hostile)
        assert result.log.startswith(log)  # it has done its work, as far as it can here
        assert not (world.folder / "was-here").exists()


def test_no_action_puts_an_expression_into_a_command_line() -> None:
    assert "${{" not in action_command(HERE) + action_command(HERE / "check")


@on_posix
@needs("node")
def test_the_post_hook_warns_of_a_failure_and_leaves_the_result_of_the_job_alone(world: World) -> None:
    world.hold_tokens(1)
    world.registry.faults = [refuse(403, "Not now")]
    result = run_hook(world, "post")
    assert result.status == 0
    assert result.log.startswith("##[warning]Couldn't revoke an access token\n")


def plant_python(world: World, text: str) -> None:
    """Put a program of the name python3 into the folder that the step starts in."""
    planted = world.folder / "python3"
    planted.write_text(f"#!/bin/sh\n{text}\n")
    planted.chmod(0o755)


@on_posix
@needs("node")
@pytest.mark.parametrize("phase", ["main", "post"])
def test_the_hook_takes_no_python_from_a_relative_folder_of_path(world: World, phase: str) -> None:
    plant_python(world, f"touch {shlex.quote(str(world.folder / 'was-here'))}")
    path = os.pathsep.join([".", "", world.base()["PATH"]])
    assert run_hook(world, phase, PATH=path).status == 0
    assert not (world.folder / "was-here").exists()


@on_posix
@needs("bash")
def test_the_action_takes_no_python_from_a_relative_folder_of_path(world: World) -> None:
    plant_python(world, f"touch {shlex.quote(str(world.folder / 'was-here'))}")
    path = os.pathsep.join([".", "", world.base()["PATH"]])
    assert run_action(world, PATH=path).token in world.registry.alive()
    assert not (world.folder / "was-here").exists()


# The real Python, which says that it is 3.7.
OLD = f'exec {shlex.quote(sys.executable)} -I -S -c "import sys; sys.version_info = (3, 7, 99)\n$4"'


@on_posix
@needs("node")
@pytest.mark.parametrize(
    ("phase", "python", "status", "log"),
    [
        pytest.param("main", "", 1, r"##\[error\]crates-io-auth needs python3, ", id="main, missing"),
        pytest.param("main", OLD, 1, r"##\[error\]crates-io-auth needs python3, ", id="main, too old"),
        pytest.param("post", "", 0, r"##\[warning\].+ to its end \(ENOENT\)", id="post, missing"),
        pytest.param("post", "kill -9 $$", 0, r"##\[warning\].+ to its end \(SIGKILL\)", id="post, killed"),
    ],
)
def test_a_python_that_can_t_do_it_is_said_and_fails_the_main_hook_alone(
    world: World, phase: str, python: str, status: int, log: str
) -> None:
    if python:
        plant_python(world, python)
    result = run_hook(world, phase, PATH=str(world.folder))
    assert result.status == status
    assert re.match(log, result.log)


# The documentation


def examples() -> list[str]:
    """Return the YAML of the README and of docs/, with values instead of its placeholders."""
    blocks = []
    for path in [HERE / "README.md", *sorted((HERE / "docs").glob("*.md"))]:
        text = path.read_text(encoding="utf-8")
        for block in re.findall("^```yaml\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
            block = block.replace("<owner>", "example").replace("<checksum>", "0" * 64)
            blocks.append(textwrap.dedent(block.replace("<full-commit-hash>", "0" * 40)))
    return blocks


def whole_workflow(example: str) -> str:
    """Return an example with all that a workflow needs around it."""
    if example.startswith("- "):
        example = "steps:\n" + textwrap.indent(example, "  ")
    if example.startswith(("steps:", "permissions:\n", "env:\n")):
        example = "jobs:\n  publish:\n    runs-on: ubuntu-latest\n" + textwrap.indent(example, "    ")
    if "jobs:\n" not in example:
        example += "jobs:\n  publish:\n    runs-on: ubuntu-latest\n    steps:\n      - run: cargo publish\n"
    if not re.search("^on:", example, re.MULTILINE):
        example = "on: push\n" + example
    if not re.search("^permissions:", example, re.MULTILINE):
        example = "permissions: {}\n" + example
    return example


def write_examples(folder: Path) -> int:
    """Write each example into a file of its own: workflows where GitHub has them, and GitLab's jobs."""
    (folder / ".github/workflows").mkdir(parents=True)
    for number, example in enumerate(examples()):
        if "\n  script:\n" in example:
            (folder / f"gitlab-{number}.yml").write_text(example, encoding="utf-8")
        else:
            path = folder / f".github/workflows/{number}.yml"
            path.write_text(whole_workflow(example), encoding="utf-8")
    return 0


def uses_of_the_actions(example: str) -> list[tuple[str, str, set[str]]]:
    """Return for each use of an action of ours: its folder, what pins it, and the inputs that it is given."""
    step = r"^( *)- uses: example/crates-io-auth(\S*)@(.*)\n((?:\1  .*\n)*)"
    return [
        (folder, pin, set(re.findall(r"^ *([a-z-]+):", rest.partition("with:\n")[2], re.MULTILINE)))
        for _, folder, pin, rest in re.findall(step, example, re.MULTILINE)
    ]


def test_every_example_pins_this_version_and_gives_inputs_that_exist() -> None:
    uses = [use for example in examples() for use in uses_of_the_actions(example)]
    assert len(uses) == "".join(examples()).count("uses: example/crates-io-auth") > 10
    for folder, pin, inputs in uses:
        assert re.fullmatch("0{40} # v" + re.escape(script.__version__) + "(,.*)?", pin)
        action = (HERE / folder.strip("/") / "action.yml").read_text().partition("\ninputs:")[2]
        assert inputs <= set(re.findall("^  ([a-z-]+):", action.partition("\noutputs:")[0], re.MULTILINE))


def test_the_examples_are_written_for_linters(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    subprocess.run([*WITHOUT_PYTEST, "examples", str(folder)], check=True)
    assert len(list(folder.glob("gitlab-*.yml"))) == 3
    workflows = [path.read_text(encoding="utf-8") for path in (folder / ".github/workflows").iterdir()]
    assert len(workflows) == len(examples()) - 3
    for workflow in workflows:
        keys = re.findall("^([a-z]+):", workflow, re.MULTILINE)
        assert sorted(set(keys) - {"name"}) == ["jobs", "on", "permissions"]


@on_posix
@needs("cargo", "bash")
def test_the_gitlab_job_of_the_recipes_publishes_what_is_left_when_it_is_run_again(
    world: World,
) -> None:
    write_workspace(world.folder / "workspace", {"alpha": "", "beta": ""})
    (job,) = [example for example in examples() if "PLAN=" in example]
    section = job.partition("  script:\n")[2].partition("  after_script:\n")[0]
    commands = "\n".join(re.findall("^    - (.+)$", section, re.MULTILINE))
    check_command = f"{shlex.quote(str(SCRIPT))} check --registry local"
    commands = commands.replace("crates_io_auth.py check", check_command)

    def run_job(number: str) -> Result:
        provider = {"CARGO_REGISTRIES_LOCAL_CREDENTIAL_PROVIDER": str(SCRIPT), "CI_JOB_ID": number}
        env = world.on_gitlab(**cargo_environment(world), **provider)
        bash = ["bash", "-eo", "pipefail", "-c", commands]
        return world.run_command(bash, env, cwd=world.folder / "workspace")

    world.registry.without_publisher = {"beta"}
    assert run_job("1").status == 101
    assert world.registry.published() == ["alpha"]
    world.registry.without_publisher.clear()
    assert run_job("2").status == 0
    assert world.registry.published() == ["alpha", "beta"]
    assert "Nothing to publish: every version is on local." in run_job("3").stderr


# Where the calls that show a message have it.
MESSAGE_ARGUMENTS = {"AuthError": 0, "__init__": 0, "annotate": 1, "report_failure": 2}


def messages_of_the_script() -> Iterator[str]:
    """Return the first line of each error and warning in the script, with `…` for what changes."""
    nodes = list(ast.walk(ast.parse(SCRIPT.read_text(encoding="utf-8"))))
    assigned: dict[str, list[ast.expr]] = {}  # to variables, wherever they have the name
    messages: list[ast.expr] = []
    for node in nodes:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            assigned.setdefault(node.targets[0].id, []).append(node.value)
        elif isinstance(node, ast.Call):
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            if name in MESSAGE_ARGUMENTS and node.args:
                messages.append(node.args[MESSAGE_ARGUMENTS[name]])
        elif isinstance(node, ast.FunctionDef) and node.name == "explain":
            messages += [each.value for each in ast.walk(node) if isinstance(each, ast.Return) and each.value]
    while messages:
        message = messages.pop()
        if isinstance(message, ast.IfExp):
            messages += [message.body, message.orelse]
        elif isinstance(message, ast.Name):
            messages += assigned.get(message.id, [])
        elif isinstance(message, (ast.JoinedStr, ast.Constant)):
            yield text_of(message, assigned).partition("\n")[0]


def text_of(node: ast.expr, assigned: dict[str, list[ast.expr]]) -> str:
    """Return the text of a string in a source, with `…` for what changes."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part, assigned) for part in node.values)
    if isinstance(node, ast.FormattedValue) and isinstance(node.value, ast.Name):
        values = assigned.get(node.value.id, [])
        if len(values) == 1 and isinstance(values[0], ast.JoinedStr):
            return text_of(values[0], assigned)
    return "…"


def test_troubleshooting_has_every_message() -> None:
    documented = (HERE / "docs/troubleshooting.md").read_text(encoding="utf-8")
    cells = re.findall(r"^\| (.+?) \|", documented, re.MULTILINE)
    patterns = [".*".join(map(re.escape, cell.replace("`", "").split("…"))) for cell in cells]
    messages = list(messages_of_the_script())
    assert len(messages) > 20
    for name in ("main.js", "post.js"):
        (message,) = re.findall("::crates-io-auth (.+)", (HERE / "post" / name).read_text())
        messages.append(f"crates-io-auth {message}")
    missing = [
        message
        for message in messages
        if not any(re.match(pattern, message.replace("`", "")) for pattern in patterns)
    ]
    assert not missing


def test_troubleshooting_has_no_message_that_nothing_says() -> None:
    documented = (HERE / "docs/troubleshooting.md").read_text(encoding="utf-8")
    ours = documented.partition("\n## What cargo, crates.io and the runner say\n")[0]
    cells = re.findall(r"^\| (?!Message|---)(.+?) \|", ours, re.MULTILINE)
    assert len(cells) > 50
    files = [SCRIPT, HERE / "post/main.js", HERE / "post/post.js"]
    text = "".join(path.read_text(encoding="utf-8") for path in files).replace("`", "")
    said = re.sub('"\\n *f?"', "", text)  # a string can go on in the next line
    parts = [part for cell in cells for part in re.split(r" ?… ?|(?<=\.) ", cell.replace("`", ""))]
    assert not [part for part in parts if part not in said]


# The project's own workflows, and the demo


# Without site-packages: demo and fakes need nothing but Python.
WITHOUT_PYTEST = [sys.executable, "-S", str(Path(__file__).resolve())]


class ServedFakes(NamedTuple):
    """The fakes that `serve` runs in a process of their own, and what that has printed."""

    url: str
    settings: str


def serve_fakes(world: World, *options: str) -> ServedFakes:
    """Start the fakes, and wait until they listen."""
    process = world.start_command([*WITHOUT_PYTEST, "serve", "0", *options], world.base())
    settings = read_until(process.popen.stdout, "/tokens\n")
    return ServedFakes(settings.partition(" listen at ")[2].split()[0], settings)


def get(url: str, token: str = "") -> tuple[int, bytes]:
    """Return the status and the body of a response."""
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc)
    connection.request("GET", parts.path, headers={"Authorization": token, "User-Agent": "test"})
    response = connection.getresponse()
    return response.status, response.read()


def pasted(world: World, settings: str, title: str, command: str) -> Result:
    """Run a command in a shell into which one of the blocks that `serve` prints was pasted."""
    block = settings.partition(f"{title}")[2].partition(":\n")[2].partition("\n\n")[0]
    env = world.base(HOME=os.environ.get("HOME"), RUSTUP_HOME=os.environ.get("RUSTUP_HOME"))
    env["CARGO_HOME"] = str(world.folder / "cargo")
    return world.run_command(["bash", "-ec", f"{block}\n{command}"], env)


RUN = f"{shlex.quote(sys.executable)} {shlex.quote(str(SCRIPT))}"


@on_posix
@needs("node", "bash")
def test_the_served_fakes_tell_whether_a_token_is_alive(world: World) -> None:
    served = serve_fakes(world)
    check = [str(shutil.which("node")), str(HERE / ".github/check-revoked/post.js")]
    env_of_check = world.base(INPUT_REGISTRY=served.url)
    assert world.run_command(check, env_of_check).status == 1  # none was issued
    result = pasted(world, served.settings, "A step of a GitHub job", f'{RUN} && cat "$GITHUB_OUTPUT"')
    token = result.stdout.strip().partition("=")[2]
    assert get(f"{served.url}/api/v1/me", token)[0] == 200
    assert get(f"{served.url}/api/v1/me", new_access_token())[0] == 403
    assert world.run_command(check, env_of_check).status == 1
    assert pasted(world, served.settings, "A step of a GitHub job", f"{RUN} post").status == 0
    result = world.run_command(check, env_of_check)
    assert (result.status, result.stdout) == (0, "access tokens issued: 1, alive: 0\n")


@on_posix
@needs("curl", "bash")
def test_the_served_fakes_make_a_shell_a_gitlab_job(world: World) -> None:
    served = serve_fakes(world)
    command = f'test "$({RUN})" && {RUN} post'
    result = pasted(world, served.settings, "A GitLab job", command)
    assert result.status == 0
    assert json.loads(get(f"{served.url}/tokens")[1]) == {"issued": 1, "alive": 0}


@on_posix
@needs("cargo", "bash")
def test_the_served_fakes_refuse_the_crates_that_they_are_told_to(world: World, project: Project) -> None:
    served = serve_fakes(world, "--no-publisher", "beta", "--new", "gamma")
    github = served.settings.partition("A step of a GitHub job:\n")[2].partition("\n\n")[0]
    publish = "cargo publish --registry local --no-verify --allow-dirty --package"
    command = f"{github}\ncd {project.folder}; {publish} alpha; ! {publish} beta; ! {publish} gamma"
    result = pasted(world, served.settings, "A user of cargo", command)
    assert result.status == 0, result
    assert "The provided access token is not valid for crate `beta`" in result.stderr
    assert get(f"{served.url}/index/ga/mm/gamma")[0] == 404
    assert get(f"{served.url}/dl/alpha/0.1.0/download")[0] == 200


@on_posix
@needs("bash")
def test_the_served_fakes_refuse_an_exchange_if_they_are_told_to(world: World) -> None:
    served = serve_fakes(world, "--refuse", "environment")
    result = pasted(world, served.settings, "A step of a GitHub job", RUN)
    assert result.status == 1
    assert "127.0.0.1 refused the identity token: HTTP 400: " in result.stderr
    assert "Expected environments: `production`" in result.stderr
    assert (
        "This job needs the trusted publisher octo/crate, release.yml, environment release." in result.stderr
    )


def test_without_cargo_the_demo_leaves_its_second_scene_out_and_says_why(world: World) -> None:
    result = world.run_command(WITHOUT_PYTEST, world.base(PATH=str(world.folder)))
    assert result.status == 0, result
    assert result.stdout.startswith("A fake GitHub and a fake registry")
    assert "The second scene is left out: " in result.stdout
    assert re.findall(r"access tokens alive: ([0-9]+)", result.stdout) == ["1", "0"]


@on_posix
@needs("cargo", "bash")
def test_the_demo_shows_cargo_at_work(world: World) -> None:
    env = world.base(HOME=os.environ.get("HOME"), RUSTUP_HOME=os.environ.get("RUSTUP_HOME"))
    result = world.run_command(WITHOUT_PYTEST, env)
    assert result.status == 0, result
    assert "crates published: alpha, beta\n" in result.stdout
    assert "tokens that the build scripts saw: 0\n" in result.stdout
    assert re.findall(r"access tokens alive: ([0-9]+)", result.stdout) == ["1", "0"] * 2


# The demo, and the fakes alone


def demo() -> int:
    """Show the script at work, as a workflow's log would show it."""
    print("A fake GitHub and a fake registry listen on this machine. Nothing else is contacted.\n")
    scenes = [scene_of_an_output]
    if sys.platform == "win32":
        print("The second scene is left out: its build scripts need a shell of Linux or macOS.\n")
    elif not shutil.which("cargo"):
        print("The second scene is left out: it needs cargo, and there is none in PATH.\n")
    else:
        scenes.append(scene_of_cargo)
    for scene in scenes:
        with tempfile.TemporaryDirectory() as folder, World(Path(folder)) as world:
            statuses = scene(world)
            print("$ crates_io_auth.py post                (the action's post step, at the end of the job)")
            post = world.run("post", env=world.on_github())
            print_log(post)
            print(f"  access tokens alive: {len(world.registry.alive())}\n")
            if any(statuses) or post.status or world.registry.alive() or not world.registry.access_tokens:
                return 1
    return 0


def scene_of_an_output(world: World) -> list[int]:
    """Get an access token as the action does."""
    print("1. A token for one step\n")
    print("$ crates_io_auth.py                     (the action's step in a workflow)")
    result = world.run(env=world.on_github())
    print_log(result)
    if result.status == 0:
        print(f"  the output `token`:  {result.token[:7]}{'*' * 32}\n")
    print("What reached the registry:")
    for request in world.registry.requests:
        print(f"  {request.method} {request.path}  ({request.headers['user-agent']})")
    print(f"  access tokens alive: {len(world.registry.alive())}\n")
    return [result.status]


def scene_of_cargo(world: World) -> list[int]:
    """Let the real cargo publish a workspace of two crates."""
    print("2. Tokens on demand: cargo publishes two crates, each with a build script that looks for tokens\n")
    print("$ crates_io_auth.py                     (the action's step, with `credential-provider: true`)")
    project = Project(world, crates=("alpha", "beta"))
    set_up, env = project.set_up_provider()
    print_log(set_up)
    print("\n$ cargo publish --workspace             (the next step: no token in any variable)")
    result = project.cargo("publish", "--workspace", env=env)
    print_log(result)
    print(f"\n  crates published: {', '.join(world.registry.published())}")
    print(f"  tokens that the build scripts saw: {len(project.tokens_seen_by_build_scripts())}")
    print(f"  access tokens alive: {len(world.registry.alive())}\n")
    return [set_up.status, result.status]


def print_log(result: Result) -> None:
    for line in result.log.splitlines():
        print(f"  {line}")


SETTINGS = """\
A fake GitHub and a fake registry listen at {url}

A step of a GitHub job:
  export GITHUB_ACTIONS=true RUNNER_TEMP={folder}
  export GITHUB_OUTPUT={folder}/output GITHUB_ENV={folder}/env
  export GITHUB_STEP_SUMMARY={folder}/summary
  export ACTIONS_ID_TOKEN_REQUEST_URL='{url}/identity?api-version=2.0'
  export ACTIONS_ID_TOKEN_REQUEST_TOKEN={request_token}
  export INPUT_URL={url}

A GitLab job, a new one each time:
  export CI_JOB_ID=$RANDOM {variable}="$(curl -s {url}/gitlab-identity)"
  export INPUT_URL={url}

A user of cargo, in either of them, for `cargo publish --registry local`:
  export CARGO_REGISTRIES_LOCAL_INDEX=sparse+{url}/index/
  export CARGO_REGISTRIES_LOCAL_CREDENTIAL_PROVIDER={script}

A maintainer in a workspace, for `python3 {script} publishers --url {url}` (and --add):
  export CARGO_REGISTRY_TOKEN={ordinary_token}

Then, in a workspace whose crates depend on each other with `registry = "local"`:
  python3 {script}; cargo publish --registry local; python3 {script} post

How many access tokens are alive:
  curl {url}/tokens
"""


def serve(options: argparse.Namespace) -> int:
    """Be GitHub and a registry until killed."""
    fakes = FakeGitHubAndRegistry(options.port)
    fakes.new_crates.update(options.new)
    fakes.without_publisher.update(options.no_publisher)
    fakes.refusal = REFUSALS.get(options.refuse, "")
    fakes.expired = options.expired
    folder = tempfile.mkdtemp(prefix="crates-io-auth-job-")
    for name in ("output", "env", "summary"):
        Path(folder, name).touch()
    settings = {"url": fakes.url, "variable": variable_of(fakes.audience), "folder": folder}
    tokens = {"request_token": REQUEST_TOKEN, "ordinary_token": ORDINARY_TOKEN}
    print(SETTINGS.format(**settings, **tokens, script=SCRIPT), flush=True)
    threading.Event().wait()
    return 0


def run_without_pytest(arguments: list[str]) -> int:
    """Do what the command line says: the demo, `serve` or `examples`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    commands = parser.add_subparsers(dest="command")
    serve_parser = commands.add_parser("serve", help="be a fake GitHub and a fake registry")
    serve_parser.add_argument("port", type=int)
    serve_parser.add_argument(
        "--new", action="append", default=[], metavar="CRATE", help="does not exist yet"
    )
    serve_parser.add_argument(
        "--no-publisher", action="append", default=[], metavar="CRATE", help="has no trusted publisher"
    )
    serve_parser.add_argument("--refuse", choices=REFUSALS, help="refuse every exchange because of its ...")
    serve_parser.add_argument("--expired", action="store_true", help="issue tokens that have expired")
    examples_parser = commands.add_parser("examples", help="write the documentation's YAML into files")
    examples_parser.add_argument("folder", type=Path)
    options = parser.parse_args(arguments)
    if options.command == "examples":
        return write_examples(options.folder)
    if options.command == "serve":
        return serve(options)
    return demo()


if __name__ == "__main__":
    sys.exit(run_without_pytest(sys.argv[1:]))
