"""The tests of crates_io_auth.py and, run by itself, a demo.

    python3 test_crates_io_auth.py              the demo: the script at work against a fake GitHub and a
                                                fake registry on this machine
    python3 test_crates_io_auth.py serve PORT   the fakes alone, to try things out by hand
    python3 test_crates_io_auth.py examples DIR write the documentation's YAML into files for linters
    python -m pytest                            the tests

The tests run the shipped file as a process, over real sockets. The fakes do what the real servers do:
each identity token is new, works once and is made for one audience; the registry asks for a User-Agent,
checks the form of an access token, and responds to a revocation with 204.

The file has the fakes first, then a job (its environment and its processes), the demo, and the tests: a
section for each thing that a user knows, with its helpers beside it.
"""

from __future__ import annotations

import argparse
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
        elif endpoint == ("GET", "/index/config.json") and self.config is not None:
            handler.respond(200, self.config)
        elif handler.path.startswith("/index/"):
            self.show_index(handler)
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
        if not ordinary and handler.headers["Authorization"] not in self.alive():
            return handler.refuse(403, "authentication failed")
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

    def add_to_index(self, name: str, version: str, **more: object) -> None:
        line = {"name": name, "vers": version, "deps": [], "cksum": "0" * 64, "features": {}, "yanked": False}
        self.index.setdefault(name, []).append({**line, **more})

    def show_index(self, handler: Handler) -> None:
        name = handler.path.rpartition("/")[2]
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
    """Respond with a status. Retry-After lets the next attempt follow at once, unless it is given."""
    return lambda handler: handler.respond(status, body, **{"Retry_After": "0", **headers})


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
script.REQUEST_SECONDS /= 60
script.LATE_SECONDS /= 60
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
        return self.temp / "crates-io-auth.jsonl"

    def records(self) -> list[Path]:
        """Return the records that hold something."""
        return sorted(path for path in self.folder.glob("**/*.jsonl") if path.read_bytes().strip())

    def anonymous(self, text: str) -> str:
        """Return what a user saw, without the parts that change from run to run."""
        for token in [*self.github.identity_tokens, *self.registry.access_tokens]:
            text = text.replace(token, "<token>")
        text = text.replace(self.registry.authority, "<registry>").replace(str(self.folder), "<folder>")
        text = re.sub(r"[0-9-]{10} [0-9]{2}:[0-9]{2} UTC", "<time>", text)
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


def variable_of(audience: str) -> str:
    """Return the name of the variable with an identity token for an audience."""
    return re.sub("[^A-Z0-9_]|^[0-9]", "_", audience.upper()) + "_ID_TOKEN"


# Fixtures and marks


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


def needs(program: str) -> Any:
    """Skip a test where it can't find a program. In CI the test fails instead."""
    missing = shutil.which(program) is None and "CI" not in os.environ
    return pytest.mark.skipif(missing, reason=f"{program} is not installed")


on_posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has none of it")
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="it needs /dev/full or /proc")

each_signal = pytest.mark.parametrize(
    "number",
    [
        pytest.param(signal.SIGINT, id="SIGINT"),
        pytest.param(signal.SIGTERM, id="SIGTERM"),
        pytest.param(getattr(signal, "SIGHUP", None), id="SIGHUP"),
    ],
)


# The beginning of a request that takes 30 seconds; its end is the last test


class SlowRequest(NamedTuple):
    """A process whose first request gets no response."""

    world: World
    process: Process
    started: float


@pytest.fixture(scope="module")
def slow_request(tmp_path_factory: Any) -> Iterator[SlowRequest]:
    """Start a process that really waits out a whole request; the tests between the two that use it go on."""
    with World(tmp_path_factory.mktemp("slow")) as world:
        world.registry.faults = [never_respond]
        yield SlowRequest(world, world.start(env=world.on_github()), time.monotonic())


def test_a_request_without_a_response_is_waited_for(slow_request: SlowRequest) -> None:
    wait_until(lambda: slow_request.world.registry.requests)
    assert slow_request.process.popen.poll() is None


# The command line


def test_an_argument_in_an_error_can_t_start_a_line(world: World) -> None:
    result = world.run("post", "x\n::error::owned", env=world.on_github())
    assert result.status == 2
    assert result.stderr.endswith("unrecognized arguments: x ::error::owned\n")


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version_are_printed_and_nothing_is_sent(world: World, option: str) -> None:
    result = world.run(option, env=world.on_github())
    assert result.status == 0
    assert result.stdout
    assert not world.github.requests


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["mint"], id="unknown command"),
        pytest.param(["--token", "x"], id="unknown option"),
        pytest.param(["--ur", "https://crates.io"], id="abbreviated option"),
        pytest.param(["main", "post"], id="two commands"),
        pytest.param(["--url"], id="option without a value"),
        pytest.param(["--"], id="no command"),
        pytest.param(["post", "--url", "https://crates.io"], id="post with a URL"),
        pytest.param(["--\n::add-mask::x"], id="workflow command"),
    ],
)
def test_a_wrong_command_line_gets_a_usage_line_and_status_2(world: World, arguments: list[str]) -> None:
    result = world.run(*arguments, env=world.on_github())
    assert result.status == 2
    assert result.stderr.startswith("usage: crates_io_auth.py ")
    assert "\n::" not in result.stderr
    assert not world.github.requests + world.registry.requests


# Getting a token


def test_on_github_the_action_hands_over_a_token_and_post_revokes_it(world: World) -> None:
    result = world.run(env=world.on_github())
    assert result.status == 0
    assert result.outputs == f"token={world.registry.access_tokens[0]}\n"
    assert result.stdout == ""
    assert (
        world.anonymous(result.log)
        == """\
crates-io-auth: Got an access token from http://<registry>, valid for 30 minutes (until <time>).
crates-io-auth: It is masked in this log, set as the output `token`, and revoked when the job ends.
"""
    )
    assert result.summary == ""
    post = world.run("post", env=world.on_github())
    assert post.status == 0
    assert world.anonymous(post.log) == "crates-io-auth: Revoked 1 access token.\n"
    assert not world.registry.alive()
    assert not world.records()


def test_outside_github_stdout_has_the_token_alone_and_nothing_a_workflow_command(world: World) -> None:
    env = world.on_gitlab()
    result = world.run(env=env)
    assert result.status == 0
    assert result.stdout == f"{world.registry.access_tokens[0]}\n"
    assert (
        world.anonymous(result.stderr)
        == """\
crates-io-auth: Got an access token from http://<registry>, valid for 30 minutes (until <time>).
crates-io-auth: It is on stdout, and nothing masks it: keep it out of the log.
crates-io-auth: Revoke it at the end of the job: python3 crates_io_auth.py post
"""
    )
    assert world.run("post", env=env).status == 0
    assert not world.registry.alive()


def test_both_tokens_are_masked_before_anything_else_is_printed(world: World) -> None:
    lines = world.run("main", env=world.on_github()).stderr.splitlines()
    assert lines[:2] == [
        f"::add-mask::{world.github.identity_tokens[0]}",
        f"::add-mask::{world.registry.access_tokens[0]}",
    ]


@on_posix
@needs("bash")
def test_the_line_for_other_ci_sets_the_variable_in_a_real_shell(world: World) -> None:
    line = f'export CARGO_REGISTRY_TOKEN="$({shlex.quote(sys.executable)} {shlex.quote(str(SCRIPT))})"'
    check = 'test "${#CARGO_REGISTRY_TOKEN}" = 39'
    assert world.run_command(["bash", "-ec", f"{line}; {check}"], world.on_gitlab()).status == 0


def test_the_exchange_names_this_tool_and_its_version_and_sends_json(world: World) -> None:
    version = world.run("--version", env=world.base()).stdout.strip()
    world.run(env=world.on_github())
    request = world.registry.requests[0]
    assert (request.method, request.path) == ("POST", TOKENS_PATH)
    assert request.headers["user-agent"] == f"crates-io-auth/{version}"
    assert json.loads(request.body) == {"jwt": world.github.identity_tokens[0]}
    assert "authorization" not in request.headers


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("{url}", id="as it is"),
        pytest.param("{url}///", id="slashes at the end"),
        pytest.param("HTTP://{authority}", id="upper case"),
        pytest.param("{url}/some/registry/", id="path"),
    ],
)
def test_a_registry_s_audience_is_its_url_without_the_scheme(world: World, url: str) -> None:
    world.registry.audience += "/some/registry" if "some" in url else ""
    url = url.format(url=world.registry.url, authority=world.registry.authority)
    assert world.run("--url", url, env=world.on_github(INPUT_URL=None)).status == 0
    assert world.run("post", env=world.on_github()).status == 0
    assert not world.registry.alive()


def test_the_audience_is_percent_encoded_once(world: World) -> None:
    world.run(env=world.on_github())
    audience = world.registry.audience.replace(":", "%3A")
    assert world.github.requests[0].path == f"/token?api-version=2.0&audience={audience}"


def test_plain_http_reaches_localhost_by_name(world: World) -> None:
    world.registry.audience = f"localhost:{world.registry.port}"
    env = world.on_github(INPUT_URL=f"http://LocalHost:{world.registry.port}")
    assert world.run(env=env).status == 0


@pytest.mark.parametrize("value", ["yes", "1", "True ", "on"])
def test_a_value_that_is_neither_true_nor_false_is_refused(world: World, value: str) -> None:
    result = world.run(env=world.on_github(INPUT_CREDENTIAL_PROVIDER=value))
    assert result.status == 1
    assert result.log.startswith("##[error]The input credential-provider must be true or false, and is ")
    assert not world.registry.requests


@pytest.mark.parametrize("value", ["false", "False", "FALSE", ""])
def test_false_has_the_spellings_of_yaml(world: World, value: str) -> None:
    assert world.run(env=world.on_github(INPUT_CREDENTIAL_PROVIDER=value)).token in world.registry.alive()


def test_an_input_without_effect_is_a_warning(world: World) -> None:
    result = world.run(env=world.on_github(INPUT_REGISTRY="local"))
    assert result.status == 0
    assert "##[warning]The input registry has no effect without credential-provider." in result.log
    changes = {"INPUT_CREDENTIAL_PROVIDER": "TRUE", "RUNNER_TEMP": str(world.folder)}
    result = world.run(env=world.on_github(**changes))
    assert "##[warning]The input url has no effect with credential-provider." in result.log


def test_the_option_url_comes_before_the_input(world: World) -> None:
    env = world.on_github(INPUT_URL="https://registry.invalid")
    assert world.run("main", "--url", world.registry.url, env=env).status == 0


@pytest.mark.parametrize("url", [pytest.param(None, id="unset"), pytest.param("", id="empty")])
def test_without_a_url_the_registry_is_crates_io(world: World, url: str | None) -> None:
    result = world.run(env=world.base(INPUT_URL=url))
    assert result.status == 1
    assert "CRATES_IO_ID_TOKEN" in result.stderr
    assert "aud: crates.io" in result.stderr


def test_a_bare_host_means_https(tls_world: World) -> None:
    world = tls_world
    result = world.run(env=world.on_github(INPUT_URL=world.registry.authority))
    assert result.status == 0
    assert f"from {world.registry.url}," in result.log
    assert world.run("post", env=world.on_github()).status == 0
    assert not world.registry.alive()


REFUSED_URLS = {
    "empty": "",
    "another scheme": "ftp://crates.io",
    "file": "file:///etc/passwd",
    "no slashes": "mailto:crates.io",
    "user info": "https://user:secret-of-the-user@crates.io",
    "user info with a slash": "https://user:/secret-of-the-user@crates.io",
    "user info with an at sign": "https://user:secret-of-the-user@@crates.io",
    "user info of a bare host": "user:secret-of-the-user@crates.io",
    "user": "https://user@crates.io",
    "query": "https://crates.io?x=1",
    "fragment": "https://crates.io#x",
    "space": "https://crates.io/a b",
    "leading space": " https://crates.io",
    "line break": "https://crates.io\n",
    "tab that urlsplit drops": "https://crates.\tio",
    "control character": "https://crates.io/\x1b[31m",
    "letter that is not ASCII": "https://crätes.io",
    "letter that looks like ASCII": "https://crates.iο",
    "letter that is ASCII in lower case": "httpſ://crates.io",
    "backslash": "https://crates.io\\@evil.example",
    "port 0": "https://crates.io:0",
    "port too high": "https://crates.io:65536",
    "port that is no number": "https://crates.io:https",
    "port missing": "https://crates.io:",
    "no host": "https://",
    "no host but a path": "https:///path",
    "empty label": "https://crates..io",
    "long label": f"https://{'a' * 64}.io",
    "plain http": "http://crates.io",
    "plain http to a name that begins like this machine": "http://localhost.evil.example",
    "plain http to a name that begins like its address": "http://127.0.0.1.evil.example",
    "plain http to no address": "http://127.999.0.1",
    "plain http to a name that looks like an address": "http://127.08.0.1",
    "label that begins with a hyphen": "https://-crates.io",
    "label that ends with a hyphen": "https://crates-.io",
    "plain http to every address": "http://0.0.0.0",
}


@pytest.mark.parametrize("url", REFUSED_URLS.values(), ids=REFUSED_URLS.keys())
def test_a_url_that_can_t_be_a_registry_s_is_refused_before_anything_is_sent(world: World, url: str) -> None:
    result = world.run("--url", url, env=world.on_github())
    assert result.status == 1
    assert "Nothing was sent" in result.log
    assert "secret-of-the-user" not in result.stderr + result.summary
    assert len(result.stderr.splitlines()) == 1
    assert not world.github.requests + world.registry.requests
    assert not world.records()


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("http://evil.example/?x=1", id="plain http"),
        pytest.param("https://user@evil.example/", id="user"),
        pytest.param("file:///etc/passwd", id="file"),
    ],
)
def test_github_s_endpoint_passes_the_same_gate(world: World, url: str) -> None:
    result = world.run(env=world.on_github(ACTIONS_ID_TOKEN_REQUEST_URL=url))
    assert result.status == 1
    assert "Invalid URL: " in result.stderr


@pytest.mark.parametrize(
    ("url", "variable"),
    [
        pytest.param("https://crates.io", "CRATES_IO_ID_TOKEN", id="crates.io"),
        pytest.param("staging.crates.io", "STAGING_CRATES_IO_ID_TOKEN", id="staging"),
        pytest.param(
            "https://4crates.example:8080/a-b", "_CRATES_EXAMPLE_8080_A_B_ID_TOKEN", id="digit first"
        ),
    ],
)
def test_outside_github_the_variable_is_named_after_the_audience(
    world: World, url: str, variable: str
) -> None:
    result = world.run("--url", url, env=world.base())
    assert result.status == 1
    assert result.stderr.startswith(f"crates-io-auth: error: There is no identity token in {variable}\n")


@pytest.mark.parametrize(
    "token",
    [
        pytest.param("a\nb", id="two lines"),
        pytest.param("a b", id="space"),
        pytest.param("tökén", id="not ASCII"),
        pytest.param("a\x1bb", id="control character"),
        pytest.param('"a"', id="quotation marks"),
        pytest.param("a\\b", id="backslash"),
    ],
)
def test_an_identity_token_that_is_not_a_line_of_visible_ascii_is_not_sent(world: World, token: str) -> None:
    result = world.run("--url", "crates.io", env=world.base(CRATES_IO_ID_TOKEN=token))
    assert result.status == 1
    assert "CRATES_IO_ID_TOKEN does not hold a token" in result.stderr
    assert token not in result.stderr


@on_linux
def test_a_token_that_the_runner_does_not_take_is_revoked_at_once(world: World) -> None:
    result = world.run(env=world.on_github(GITHUB_OUTPUT="/dev/full"))
    assert result.status == 1
    assert "Revoked 1 access token" in result.log
    assert "GITHUB_OUTPUT: No space left on device" in result.log
    assert world.registry.access_tokens
    assert not world.registry.alive()
    assert world.run("post", env=world.on_github()).status == 0


@on_linux
def test_a_token_that_stdout_does_not_take_is_revoked_at_once(world: World) -> None:
    with open("/dev/full", "wb") as full:
        result = world.run(env=world.on_gitlab(), stdout=full)
    assert result.status == 1
    assert "stdout: No space left on device" in result.stderr
    assert world.registry.access_tokens
    assert not world.registry.alive()


def test_a_token_that_no_process_reads_from_stdout_any_more_is_revoked_at_once(world: World) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    result = world.run(env=world.on_gitlab(), stdout=writer)
    os.close(writer)
    assert result.status == 1
    assert "Broken pipe" in result.stderr
    assert world.registry.access_tokens
    assert not world.registry.alive()


def close_stdout() -> None:
    os.close(1)


def close_stderr() -> None:
    os.close(2)


@on_posix
def test_with_stdout_closed_no_token_is_asked_for(world: World) -> None:
    result = world.run(env=world.on_gitlab(), stdout=None, preexec_fn=close_stdout)
    assert result.status == 1
    assert "Bad file descriptor" in result.stderr
    assert not world.registry.requests


@on_posix
def test_with_stderr_closed_on_github_nothing_could_be_masked_and_no_token_is_asked_for(
    world: World,
) -> None:
    result = world.run(env=world.on_github(), stderr=None, preexec_fn=close_stderr)
    assert result.status == 1
    assert result.outputs == ""
    assert not world.registry.requests


@on_linux
def test_with_stderr_full_on_github_nothing_could_be_masked_and_no_token_is_handed_over(
    world: World,
) -> None:
    with open("/dev/full", "wb") as full:
        result = world.run(env=world.on_github(), stderr=full)
    assert result.status == 1
    assert result.outputs == ""
    assert not world.registry.alive()


UNUSABLE = "The environment of this step isn't usable"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param(
            {"GITHUB_OUTPUT": None},
            f"{UNUSABLE}: GITHUB_OUTPUT is not set",
            id="GITHUB_OUTPUT unset",
        ),
        pytest.param(
            {"GITHUB_OUTPUT": "/nowhere/output"},
            f"{UNUSABLE}: [Errno 2] No such file or directory: '/nowhere/output'",
            id="GITHUB_OUTPUT missing",
        ),
        pytest.param(
            {"GITHUB_OUTPUT": "output"},
            f"{UNUSABLE}: GITHUB_OUTPUT must be an absolute path, and is output",
            id="GITHUB_OUTPUT relative",
        ),
        pytest.param(
            {"RUNNER_TEMP": None},
            f"{UNUSABLE}: RUNNER_TEMP is not set",
            id="RUNNER_TEMP unset",
        ),
        pytest.param(
            {"RUNNER_TEMP": "temp"},
            f"{UNUSABLE}: RUNNER_TEMP must be an absolute path, and is temp",
            id="RUNNER_TEMP relative",
        ),
        pytest.param(
            {"RUNNER_TEMP": "/nowhere"},
            f"{UNUSABLE}: [Errno 2] No such file or directory: '/nowhere/crates-io-auth.jsonl'",
            id="RUNNER_TEMP missing",
        ),
    ],
)
def test_a_step_that_can_t_hand_over_or_record_fails_before_it_asks_for_a_token(
    world: World, changes: dict[str, str | None], message: str
) -> None:
    result = world.run(env=world.on_github(**changes))
    assert result.status == 1
    assert result.log.startswith(f"##[error]{message}")
    assert not world.registry.requests


def test_a_relative_temporary_folder_is_refused_outside_github(world: World) -> None:
    result = world.run(env=world.on_gitlab(TMPDIR="tmp"))
    assert result.status == 1
    assert "TMPDIR (or TEMP) must be an absolute path, and is tmp" in result.stderr
    assert not world.registry.requests


@on_linux
@pytest.mark.parametrize("folder", ["/proc", "{folder}/tls.pem"], ids=["read-only folder", "file"])
def test_a_temporary_folder_that_takes_no_file_fails_before_a_token_is_asked_for(
    world: World, folder: str
) -> None:
    folder = folder.format(folder=world.folder)
    result = world.run(env=world.on_github(RUNNER_TEMP=folder))
    assert result.status == 1
    assert f"{folder}/crates-io-auth.jsonl" in result.log.partition("\n")[0]
    assert not world.registry.requests


@on_posix
def test_in_an_ascii_locale_other_letters_are_escaped(world: World) -> None:
    world.registry.faults = [refuse(400, "für crätes")]
    env = world.on_gitlab(LC_ALL="C", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    result = world.run_command([sys.executable, str(SCRIPT)], env)
    assert result.status == 1
    assert "f\\xfcr cr\\xe4tes" in result.stderr


# Refusals


def test_without_the_permission_the_message_shows_what_to_write(world: World) -> None:
    env = world.on_github(ACTIONS_ID_TOKEN_REQUEST_URL=None, ACTIONS_ID_TOKEN_REQUEST_TOKEN=None)
    result = world.run(env=env)
    assert result.status == 1
    message = """\
Missing permission: id-token: write
Add it to the job and run the job again. Permissions that you don't list are set to none:
  permissions:
    contents: read
    id-token: write
"""
    assert result.log == f"##[error]{message}"
    assert result.summary == "### crates-io-auth failed\n\n" + textwrap.indent(message, "    ") + "\n"
    assert not world.records()


def job_without_permission(world: World, event: object) -> dict[str, str]:
    """Return the environment of a job that an event started, and that may not ask for identity tokens."""
    path = world.folder / "event.json"
    path.write_text(json.dumps(event))
    return world.on_github(
        ACTIONS_ID_TOKEN_REQUEST_URL=None,
        ACTIONS_ID_TOKEN_REQUEST_TOKEN=None,
        GITHUB_EVENT_NAME="pull_request",
        GITHUB_EVENT_PATH=str(path),
    )


def test_a_pull_request_from_a_fork_is_told_that_it_never_gets_one(world: World) -> None:
    result = world.run(
        env=job_without_permission(world, {"pull_request": {"head": {"repo": {"fork": True}}}})
    )
    assert result.status == 1
    assert result.log.startswith("##[error]A pull request from a fork can't get an identity token\n")


@pytest.mark.parametrize(
    "event",
    [
        pytest.param({"pull_request": {"head": {"repo": {"fork": False}}}}, id="no fork"),
        pytest.param({"pull_request": {"head": {"repo": None}}}, id="deleted fork"),
        pytest.param(
            {"pull_request": {"head": {"repo": {"fork": True, "id": 1}}, "base": {"repo": {"id": 1}}}},
            id="within a repository that is a fork",
        ),
        pytest.param({"ref": "refs/heads/main"}, id="push"),
        pytest.param([1, "x"], id="another shape"),
    ],
)
def test_any_other_event_is_told_of_the_permission(world: World, event: object) -> None:
    assert "id-token: write" in world.run(env=job_without_permission(world, event)).log


def test_a_missing_variable_shows_how_to_set_it_on_gitlab(world: World) -> None:
    result = world.run(env=world.base())
    assert result.status == 1
    assert (
        result.stderr
        == """\
crates-io-auth: error: There is no identity token in CRATES_IO_ID_TOKEN
On GitLab, add this to the job:
  id_tokens:
    CRATES_IO_ID_TOKEN:
      aud: crates.io
In any other CI system, set CRATES_IO_ID_TOKEN to an OIDC token for the audience crates.io.
"""
    )
    assert result.stdout == ""


def test_a_refusal_on_github_shows_what_to_compare_and_where(world: World) -> None:
    detail = (
        "The Trusted Publishing config for repository `octo/crate` does not match the workflow filename "
        "`release.yml` in the JWT. Expected workflow filenames: `publish.yml`"
    )
    world.registry.faults = [refuse(400, detail)]
    result = world.run(env=world.on_github())
    assert result.status == 1
    assert result.outputs == ""
    assert len(world.registry.requests) == 1
    message = f"""\
127.0.0.1 refused the identity token: HTTP 400: {detail}
  A trusted publisher of the crate must match what the identity token claims:
  - repository: octo/crate
  - workflow file: release.yml
  - environment: release
  Compare this with the crate's settings, http://<registry>/crates/<crate>/settings.
  A refused identity token isn't used up: you can correct the settings and run this again.
"""
    assert world.anonymous(result.log) == f"##[error]{message}"
    summary = "### crates-io-auth failed\n\n" + textwrap.indent(message, "    ") + "\n"
    assert world.anonymous(result.summary) == summary


def test_a_refusal_on_gitlab_shows_project_file_and_environment(world: World) -> None:
    world.registry.faults = [refuse(400, "No Trusted Publishing config found.")]
    result = world.run(env=world.on_gitlab())
    assert result.status == 1
    assert (
        world.anonymous(result.stderr)
        == """\
crates-io-auth: error: 127.0.0.1 refused the identity token: HTTP 400: No Trusted Publishing config found.
  A trusted publisher of the crate must match what the identity token claims:
  - project: octo/crate
  - CI file: .gitlab-ci.yml
  - environment: release
  Compare this with the crate's settings, http://<registry>/crates/<crate>/settings.
  The first version of a crate must be published with an ordinary API token.
  A refused identity token isn't used up: you can correct the settings and run this again.
"""
    )


USED = "An identity token can be exchanged only once. Start a new job to get a new one."
SUPPORTED = "GitHub Actions (https://token.actions.githubusercontent.com) and GitLab (https://gitlab.com)"
TRIGGER = (
    "Trusted Publishing does not support the `workflow_run` event trigger. Please use a different trigger"
)


@pytest.mark.parametrize(
    ("detail", "claims", "explanation"),
    [
        pytest.param("JWT has already been used", {}, USED, id="used before"),
        pytest.param(
            "Failed to decode JWT",
            {"exp": 1},
            "It expired at 1970-01-01 00:00 UTC. Start a new job",
            id="expired",
        ),
        pytest.param(
            "Failed to decode JWT", {"aud": "sts"}, "It is for the audience sts, not for", id="audience"
        ),
        pytest.param(
            "Failed to decode JWT", {}, "its signature, or another claim, must be wrong", id="signature"
        ),
        pytest.param(
            "Unsupported JWT issuer: https://ci.example",
            {"iss": "https://ci.example"},
            f"It is from the issuer https://ci.example. crates.io supports {SUPPORTED}.",
            id="issuer",
        ),
        pytest.param(TRIGGER, {"event_name": "workflow_run"}, "- event: workflow_run", id="trigger"),
    ],
)
def test_a_refusal_is_explained_by_its_cause_and_by_nothing_else(
    world: World, detail: str, claims: dict[str, object], explanation: str
) -> None:
    world.github.claims.update(claims)
    world.registry.faults = [refuse(400, detail)]
    first, second = world.run(env=world.on_github()).log.splitlines()
    assert first == f"##[error]127.0.0.1 refused the identity token: HTTP 400: {detail}"
    assert explanation in second


@pytest.mark.parametrize(
    ("claims", "line"),
    [
        pytest.param(
            {"job_workflow_ref": "octo/shared/x.yml@v1"}, "The job is in a reusable workflow", id="caller"
        ),
        pytest.param({"iss": "https://ci.example"}, "- issuer: https://ci.example", id="issuer"),
        pytest.param({"aud": "sts"}, "- audience: sts", id="audience"),
        pytest.param({"environment": None}, "- environment: (none)", id="no environment"),
    ],
)
def test_what_is_unusual_in_a_refused_identity_token_is_shown(
    world: World, claims: dict[str, object], line: str
) -> None:
    world.github.claims.update(claims)
    world.registry.faults = [refuse(400, "No Trusted Publishing config found for repository `octo/crate`.")]
    assert f"\n  {line}" in world.run(env=world.on_github()).log


@pytest.mark.parametrize(
    ("token", "message"),
    [
        pytest.param("not-a-jwt", "does not hold an identity token", id="not a JWT"),
        pytest.param({"aud": "crates.io"}, "is for the audience crates.io, not for 127.0.0.1", id="audience"),
        pytest.param({"aud": ["a", "b"]}, "is for the audience a, b, not for", id="audiences"),
        pytest.param({"aud": []}, "is for the audience (none), not for", id="no audience"),
        pytest.param(
            {"exp": 1_700_000_000}, "has expired\nIt was valid until 2023-11-14 22:13 UTC.", id="expired"
        ),
        pytest.param({"exp": 10**15}, None, id="valid for ever"),
        pytest.param({"exp": 1e308}, None, id="odd expiry"),
    ],
)
def test_an_identity_token_of_a_variable_is_checked_before_it_is_sent(
    world: World, token: str | dict[str, Any], message: str | None
) -> None:
    if isinstance(token, dict):
        token = world.github.issue(**{"audience": world.registry.audience, **token})
    result = world.run(env=world.on_gitlab(**{world.variable(): token}))
    if message:
        assert result.status == 1
        assert message in result.stderr
        assert not world.registry.requests
    else:
        assert result.status == 0


def test_one_of_several_audiences_is_enough(world: World) -> None:
    token = world.github.issue(world.registry.audience, aud=["sts", world.registry.audience])
    world.registry.faults = [refuse(400, "It was sent")]
    assert "It was sent" in world.run(env=world.on_gitlab(**{world.variable(): token})).stderr


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"<html><h1>Blocked</h1></html>", id="HTML"),
        pytest.param(b"Blocked", id="text"),
        pytest.param(b'[{"errors": 1}]', id="list"),
        pytest.param(b"403", id="number"),
    ],
)
def test_a_refusal_without_detail_shows_the_beginning_of_the_response(world: World, body: bytes) -> None:
    world.registry.faults = [respond(403, body)]
    result = world.run(env=world.on_github())
    assert result.status == 1
    assert f"HTTP 403: {body.decode()}" in result.log


def test_outside_github_a_lost_response_ends_in_a_message_that_explains_it(world: World) -> None:
    world.registry.faults = [lose_response]
    result = world.run(env=world.on_gitlab(), prelude=IMPATIENT)
    assert result.status == 1
    assert "HTTP 400: JWT has already been used\n" in result.stderr
    assert USED in result.stderr


HOSTILE = (
    "\r\n::stop-commands::x\n::add-mask::a\u2028::error::b\u0085##[error]c\x1b[31m\x1b]0;d\x07\x00 \u202e"
    "</code><b>e</b> [f](https://evil.example) ![g](https://evil.example/h.png)\n"
    "```\n# i\n<script>j</script>\n"
)


def assert_harmless(result: Result) -> None:
    """Fail if a line of the log or the summary is not one of ours, or anything in it is active."""
    for text in (result.stdout, result.stderr, result.summary):
        assert all(character.isprintable() for character in text.replace("\n", "")), result
        assert "##[" not in text, result
    for line in result.stderr.splitlines():
        if line.lstrip().startswith("::"):
            assert line.startswith(("::add-mask::", "::error title=")), result
    heading, _, code = result.summary.partition("\n\n")
    assert heading in ("", "### crates-io-auth failed"), result
    assert all(line.startswith("    ") for line in code.rstrip("\n").splitlines()), result


HOSTILE_REGISTRY = [
    pytest.param(refuse(400, HOSTILE), id="detail"),
    pytest.param(respond(418, HOSTILE.encode()), id="body"),
    pytest.param(respond(503, {"errors": [{"detail": HOSTILE}]}), id="detail before a retry"),
    pytest.param(send_bytes(b"HTTP/1.1 400 ::error::x\r\n\r\n"), id="status line"),
    pytest.param(send_bytes(HOSTILE.encode()), id="not HTTP"),
    pytest.param(
        send_bytes(
            b"HTTP/1.1 302 x\r\nLocation: ::add-mask::\x1b[31m##[error]\xe2\x80\xa8<b>\r\n\r\n",
        ),
        id="redirect",
    ),
]


@pytest.mark.parametrize("fault", HOSTILE_REGISTRY)
@pytest.mark.parametrize("ci", [World.on_github, World.on_gitlab], ids=["GitHub", "GitLab"])
def test_text_from_the_registry_stays_text(
    world: World, ci: Callable[[World], dict[str, str]], fault: Fault
) -> None:
    world.registry.faults = [fault]
    assert_harmless(world.run(env=ci(world), prelude=IMPATIENT))


def test_text_from_github_stays_text(world: World) -> None:
    world.github.faults = [respond(403, HOSTILE.encode())] * 4
    result = world.run(env=world.on_github())
    assert result.status == 1
    assert_harmless(result)


def test_claims_stay_text(world: World) -> None:
    world.github.claims = dict.fromkeys(world.github.claims, HOSTILE)
    world.registry.faults = [respond(400)]
    result = world.run(env=world.on_github())
    assert "repository: ::stop-commands::x" in result.log
    assert_harmless(result)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"INPUT_URL": f"https://{HOSTILE}"}, id="URL"),
        pytest.param({"ACTIONS_ID_TOKEN_REQUEST_URL": HOSTILE}, id="endpoint"),
        pytest.param({"RUNNER_TEMP": f"/nowhere/{HOSTILE}"}, id="folder"),
        pytest.param({"GITHUB_OUTPUT": f"/nowhere/{HOSTILE}"}, id="file"),
        pytest.param({"INPUT_URL": "https://\udcff\udcfe"}, id="bytes that are no text"),
    ],
)
def test_text_from_the_environment_stays_text(world: World, changes: dict[str, str]) -> None:
    changes = {name: value.replace("\x00", "") for name, value in changes.items()}
    result = world.run(env=world.on_github(**changes))
    assert result.status == 1
    assert_harmless(result)
    assert not world.registry.requests


def test_a_registry_that_repeats_the_identity_token_does_not_get_it_shown(world: World) -> None:
    world.registry.faults = [
        lambda handler: handler.refuse(403, f"You sent {handler.request_read.body.decode()}")
    ]
    assert 'You sent {"jwt": "***"}' in world.run(env=world.on_gitlab()).stderr


def repeat_bearer(handler: Handler) -> None:
    """Refuse a request, and repeat the secret that it carried."""
    handler.respond(403, f"You sent {handler.headers['Authorization']}".encode(), Retry_After="0")


def test_a_registry_that_repeats_the_access_token_does_not_get_it_shown(world: World) -> None:
    env = world.on_gitlab()
    world.run(env=env)
    world.registry.faults = [repeat_bearer]
    assert "You sent Bearer ***" in world.run("post", env=env).stderr


def test_an_endpoint_that_repeats_the_request_token_does_not_get_it_shown(world: World) -> None:
    world.github.faults = [repeat_bearer] * 4
    assert "You sent Bearer ***" in world.run(env=world.on_github()).log


def test_a_status_line_that_repeats_the_request_token_does_not_get_it_shown(world: World) -> None:
    world.github.faults = [send_bytes(f"Bearer {REQUEST_TOKEN}\r\n\r\n".encode())]
    assert "Bearer *** (BadStatusLine)" in world.run(env=world.on_github(), prelude=IMPATIENT).log


def test_an_error_response_with_an_access_token_does_not_get_it_shown(world: World) -> None:
    token = new_access_token()
    world.registry.access_tokens.append(token)
    world.registry.faults = [respond(500, {"token": token})]
    assert world.run(env=world.on_gitlab()).status == 0


def test_a_secret_that_a_cut_goes_through_is_hidden_whole(world: World) -> None:
    env = world.on_gitlab()
    world.run(env=env)
    world.registry.faults = [
        lambda handler: handler.respond(
            400, b"<html>" + b"\n" * 456 + handler.headers["Authorization"].encode(), Retry_After="0"
        )
    ]
    result = world.run("post", env=env)
    assert "<html> Bearer ***. Retrying" in result.stderr


def test_a_text_made_for_a_secret_is_redacted_at_once() -> None:
    # With a regular expression made of the secret, this took longer than a job lasts.
    assert script.sanitize("e" * 1_000_000, ["e" * 16_000 + "x"]) == "***"


def test_a_response_made_to_keep_the_redaction_busy_does_not_hang_the_job(world: World) -> None:
    world.registry.faults = [respond(400, b"eyJ" * 349_000)]
    result = world.run(env=world.on_github())
    assert result.status == 1
    assert "HTTP 400: ***" in result.log


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param("http://user:secret@proxy", "***@proxy", id="password"),
        pytest.param("user:se cr@et@host and more", "***@host and more", id="odd password"),
        pytest.param("##[error]x", "# #[error]x", id="GitHub"),
        pytest.param("###[error]x", "# # #[error]x", id="GitHub, three signs"),
        pytest.param("##vso[task.x]", "# #vso[task.x]", id="Azure"),
        pytest.param("##teamcity[x]", "# #teamcity[x]", id="TeamCity"),
        pytest.param("a cio_tp_abceyJdef.x b", "a *** b", id="two tokens"),
        pytest.param("eyJhbGci-_é.x.y", "***", id="JWT"),
        pytest.param("a se-cret b", "a *** b", id="known"),
        pytest.param("a se\n-cr\r\net b", "a *** b", id="known, over lines"),
        pytest.param("a s\u200be - c r\u200de t b", "a *** b", id="known, with invisible characters"),
        pytest.param("a\n::b\x1b[31m\u202ec", "a ::b?[31m?c", id="control characters"),
        pytest.param("x" * 501, "x" * 500 + "...", id="long"),
    ],
)
def test_text_from_outside_is_sanitized(text: str, shown: str) -> None:
    assert script.sanitize(text, secrets=["se-cret", ""]) == shown


def test_an_unexpected_failure_names_its_places_and_shows_no_traceback() -> None:
    try:
        script.render("{place}")
    except KeyError as error:
        first, second = script.explain(error).split("\n")
    place = r"(crates_io_auth|test_crates_io_auth)\.py:[0-9]+"
    assert re.fullmatch(rf"crates_io_auth\.py failed unexpectedly: KeyError at {place}, {place}", first)
    assert "post" in second


# The wire


def test_the_limits_in_seconds_and_bytes_are_these() -> None:
    assert script.REQUEST_SECONDS == 30
    assert script.BACKOFF_SECONDS == (1, 2, 4)
    assert script.RETRY_AFTER_SECONDS == 30
    assert script.LIFETIME_SECONDS == 30 * 60
    assert script.FRESH_SECONDS == 25 * 60
    assert script.CLOCK_SKEW_SECONDS == 60
    assert script.LATE_SECONDS == 6
    assert script.ISSUE_SECONDS == 114
    assert script.REVOKE_SECONDS == 150
    assert script.CLEANUP_SECONDS == 30
    assert script.CHECK_SECONDS == 150
    assert script.RESPONSE_BYTES == 1024 * 1024
    assert script.INDEX_BYTES == 16 * 1024 * 1024


TRANSIENT = {
    **{str(code): respond(code) for code in (408, 429, 500, 502, 503, 599)},
    "reset": reset,
    "closed": send_bytes(b""),
    "not HTTP": send_bytes(b"SSH-2.0-OpenSSH\r\n"),
    "not JSON": respond(200, b"<html>"),
    "JSON of another shape": respond(200, ["token"]),
    "token of another type": respond(200, {"token": 1, "value": 1}),
    "token of two lines": respond(200, {"token": "cio_tp_a\nb", "value": "a\nb"}),
    "empty token": respond(200, {"token": "", "value": ""}),
    "half a body": send_bytes(b'HTTP/1.1 200 OK\r\nContent-Length: 60\r\n\r\n{"token": "cio_tp_'),
    "length too short": send_bytes(b'HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"token": "cio_tp_"}'),
    "length that is no number": send_bytes(b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n{}"),
    "half a header": send_bytes(b"HTTP/1.1 200 OK\r\nContent-Le"),
    "status that is no number": send_bytes(b"HTTP/1.1 ok OK\r\n\r\n"),
    "status 100 and no more": send_bytes(b"HTTP/1.1 100 Continue\r\n\r\n"),
    "status 999": send_bytes(b"HTTP/1.1 999 Odd\r\n\r\n"),
    "header line without end": send_bytes(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000),
    "headers without end": send_bytes(b"HTTP/1.1 200 OK\r\n" + b"X: x\r\n" * 1000),
    "negative chunk": send_bytes(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n{}"),
    "chunk of no size": send_bytes(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}"),
    "chunk that ends early": send_bytes(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n{"),
    "nested arrays": respond(200, b"[" * 200_000),
    "nested objects": respond(200, b'{"token":' * 100_000),
    "null": respond(200, b"null"),
    "number": respond(200, b"1" * 5000),
    "lone surrogate": respond(200, b'{"token": "\\ud800", "value": "\\ud800"}'),
    "not UTF-8": respond(200, b'{"token": "\xff\xfe", "value": "\xff"}'),
    "UTF-16": respond(200, '{"tok'.encode("utf-16")),
    "header in a token": respond(200, {"token": "x\r\nX: y", "value": "x\r\nX: y"}),
    "percent sign in a token": respond(200, {"token": "a%0Ab", "value": "a%0Ab"}),
    "token that is too long": respond(200, {"token": "a" * 16_001, "value": "a" * 16_001}),
    "space in a token": respond(200, {"token": "a b", "value": "a b"}),
    "quotation mark in a token": respond(200, {"token": 'a"b', "value": 'a"b'}),
    "token that is not ASCII": respond(200, {"token": "tökén", "value": "tökén"}),
    "headers that trickle": trickle(b"HTTP/1.1 200 OK\r\nX-Slow: "),
    "body that trickles": trickle(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"),
    "silence": never_respond,
}


@pytest.mark.parametrize("fault", TRANSIENT.values(), ids=TRANSIENT.keys())
def test_a_transient_failure_of_the_registry_is_retried_with_a_new_identity_token(
    world: World, fault: Fault
) -> None:
    world.registry.faults = [fault]
    result = world.run(env=world.on_github(), prelude=IMPATIENT)
    assert result.status == 0
    assert result.token in world.registry.alive()
    assert "Retrying in" in result.log
    first, second = [json.loads(request.body)["jwt"] for request in world.registry.requests]
    assert first != second


# The same code reads the responses of both servers: of the broken ones, one of each kind is enough here.
KINDS = ("503", "reset", "not HTTP", "not JSON", "token of another type", "token of two lines", "silence")
GITHUB_TRANSIENT = {
    **{name: TRANSIENT[name] for name in KINDS},
    **{str(code): respond(code) for code in (301, 400, 401, 403, 404, 418)},
}


@pytest.mark.parametrize("fault", GITHUB_TRANSIENT.values(), ids=GITHUB_TRANSIENT.keys())
def test_whatever_github_s_endpoint_responds_but_a_token_is_retried(world: World, fault: Fault) -> None:
    world.github.faults = [fault]
    result = world.run(env=world.on_github(), prelude=IMPATIENT)
    assert result.status == 0
    assert result.token in world.registry.alive()
    assert "Retrying in" in result.log
    assert len(world.registry.requests) == 1


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(reset, id="reset"),
        pytest.param(respond(503), id="503"),
        pytest.param(lose_response, id="lost response"),
    ],
)
def test_a_revocation_is_retried(world: World, fault: Fault) -> None:
    world.run(env=world.on_github())
    world.registry.faults = [fault]
    assert world.run("post", env=world.on_github(), prelude=IMPATIENT).status == 0
    assert not world.registry.alive()


def test_on_github_a_lost_response_is_retried_with_a_new_identity_token(world: World) -> None:
    world.registry.faults = [lose_response]
    result = world.run(env=world.on_github(), prelude=IMPATIENT)
    assert result.status == 0
    assert len(world.github.identity_tokens) == 2
    assert len(world.registry.access_tokens) == 2
    assert result.token == world.registry.access_tokens[1]


@pytest.mark.parametrize("code", [400, 401, 403, 404, 405, 415, 422])
def test_a_refusal_of_the_registry_is_final(world: World, code: int) -> None:
    world.registry.faults = [respond(code)]
    assert world.run(env=world.on_github()).status == 1
    assert len(world.registry.requests) == 1


def test_no_attempt_begins_after_the_deadline_of_the_command(world: World) -> None:
    world.registry.faults = [respond(503), respond(503, Retry_After="10")]
    result = world.run(env=world.on_github(), prelude="script.ISSUE_SECONDS = 5")
    assert result.status == 1
    assert "Couldn't get a valid response from 127.0.0.1 (attempt 2 of 4): HTTP 503" in result.log


def test_a_request_ends_at_the_deadline_of_the_command(world: World) -> None:
    world.registry.faults = [never_respond]
    prelude = "script.ISSUE_SECONDS = 0.3; script.LATE_SECONDS = 0.1"
    result = world.run(env=world.on_github(), prelude=prelude)
    assert result.status == 1
    assert (
        "Couldn't get a valid response from 127.0.0.1 (attempt 1 of 4): no response within 0 s" in result.log
    )


def test_after_four_attempts_the_last_response_is_shown(world: World) -> None:
    world.registry.faults = [respond(503, {"errors": [{"detail": "In maintenance"}]})] * 9
    result = world.run(env=world.on_gitlab())
    assert result.status == 1
    assert len(world.registry.requests) == 4
    retrying = (
        "crates-io-auth: No valid response from 127.0.0.1: HTTP 503: In maintenance. Retrying in <seconds> s"
    )
    assert (
        world.anonymous(result.stderr)
        == f"""\
{retrying} (attempt 2 of 4).
{retrying} (attempt 3 of 4).
{retrying} (attempt 4 of 4).
crates-io-auth: error: Couldn't get a valid response from 127.0.0.1 (attempt 4 of 4): HTTP 503: In maintenance
Find out whether 127.0.0.1 has an outage, and check this machine's network and proxy (HTTPS_PROXY, NO_PROXY).
Then run this again.
"""
    )


def first_pause(world: World, retry_after: str) -> float:
    """Return the seconds that the script says it waits after a 503 with a Retry-After header."""
    world.registry.faults = [respond(503, Retry_After=retry_after)]
    process = world.start(env=world.on_github(), bufsize=0)
    output = read_until(process.popen.stderr, "Retrying in")
    match = re.search("Retrying in ([0-9.]+) s", output)
    assert match
    return float(match[1])


@pytest.mark.parametrize(
    "retry_after",
    [
        pytest.param("", id="none"),
        pytest.param("Mon, 01 Jan 2001 00:00:00 GMT", id="past"),
        pytest.param("-5", id="negative"),
        pytest.param("soon", id="no number or date"),
        pytest.param("01 Jan 2001 00.00.00.00 GMT", id="odd date"),
        pytest.param("\u0663".encode().decode("latin-1"), id="other digits"),
    ],
)
def test_without_a_usable_retry_after_the_first_pause_is_about_a_second(
    world: World, retry_after: str
) -> None:
    assert 0.7 <= first_pause(world, retry_after) <= 1.3


def test_retry_after_sets_the_pause(world: World) -> None:
    assert first_pause(world, "2") == 2


@pytest.mark.parametrize(
    "retry_after",
    [
        pytest.param("86400", id="seconds"),
        pytest.param("Fri, 01 Jan 2999 00:00:00 GMT", id="date"),
        pytest.param("9" * 400, id="endless number"),
    ],
)
def test_a_long_retry_after_is_cut_to_30_seconds(world: World, retry_after: str) -> None:
    assert first_pause(world, retry_after) == 30


def redirect(code: int, url: str) -> Fault:
    return respond(code, Location=url)


@pytest.mark.parametrize(
    ("step", "code"),
    [
        *(("exchange", code) for code in (301, 302, 303, 307, 308)),
        *(("identity token", code) for code in (302, 307)),
        *(("revocation", code) for code in (302, 307)),
    ],
)
def test_a_redirect_is_never_followed(world: World, other_world: World, step: str, code: int) -> None:
    there = f"{other_world.registry.url}/there"
    if step == "identity token":
        world.github.faults = [redirect(code, there)] * 4
        result = world.run(env=world.on_github())
    elif step == "exchange":
        world.registry.faults = [redirect(code, there)]
        result = world.run(env=world.on_github())
    else:
        hold_tokens(world, 1)
        world.registry.faults = [redirect(code, there)]
        result = world.run("post", env=world.on_github())
    assert result.status == 1
    assert f"redirects to {there}" in result.log
    assert not other_world.registry.requests


def late_response(seconds: float) -> Fault:
    """Respond as the registry does, but late."""

    def fault(handler: Handler) -> None:
        time.sleep(seconds)
        handler.server.behave(handler)

    return fault


# A request gets 0.3 s, so that the next attempt succeeds before the response of the first one comes.
HURRIED = "script.REQUEST_SECONDS = 0.3; script.BACKOFF_SECONDS = (0.01, 0.01, 0.01)"


def test_a_token_that_comes_late_is_recorded_and_revoked_by_post(world: World) -> None:
    world.registry.faults = [late_response(0.6)]
    assert world.run(env=world.on_github(), prelude=HURRIED).status == 0
    assert len(world.registry.alive()) == 2
    assert world.run("post", env=world.on_github()).status == 0
    assert not world.registry.alive()


def test_a_token_that_comes_late_is_revoked_before_the_preflight_says_so(world: World) -> None:
    world.registry.faults = [None, late_response(0.6)]
    assert "Ok" in ask(world, world.on_github(), about(world, operation="read"), prelude=HURRIED)
    assert len(world.registry.access_tokens) == 2
    assert not world.registry.alive()


def test_a_token_that_comes_late_is_revoked_if_the_step_fails(world: World) -> None:
    world.registry.faults = [late_response(0.6), refuse(400, "No")]
    assert world.run(env=world.on_github(), prelude=HURRIED).status == 1
    assert world.registry.access_tokens
    assert not world.registry.alive()


@on_posix
def test_cancelled_while_a_late_token_is_waited_for_it_is_recorded_all_the_same(world: World) -> None:
    may_respond = threading.Event()

    def late(handler: Handler) -> None:
        may_respond.wait(20)
        world.registry.behave(handler)

    world.registry.faults = [late]
    process = world.start(env=world.on_github(), prelude=HURRIED)
    read_until(process.popen.stderr, "Got an access token")
    process.popen.send_signal(signal.SIGINT)
    may_respond.set()
    process.finish()
    assert len(world.registry.access_tokens) == 2
    assert world.run("post", env=world.on_github()).status == 0
    assert not world.registry.alive()


def test_a_token_that_may_still_come_is_spoken_of(world: World) -> None:
    world.registry.faults = [never_respond]
    result = world.run(env=world.on_github(), prelude=f"{HURRIED}; script.LATE_SECONDS = 0.1")
    assert result.status == 0
    assert "hasn't responded to a request for an access token, and may still issue one" in result.log
    assert "expires by itself after 30 minutes" in result.log


def test_over_tls_a_token_is_issued_and_revoked(tls_world: World) -> None:
    world = tls_world
    assert world.run(env=world.on_github()).status == 0
    assert world.run("post", env=world.on_github()).status == 0
    assert not world.registry.alive()


def test_a_certificate_that_is_not_trusted_is_final_and_nothing_is_sent(tls_world: World) -> None:
    result = tls_world.run(env=tls_world.on_gitlab(SSL_CERT_FILE=None))
    assert result.status == 1
    assert result.stderr.startswith(
        "crates-io-auth: error: The certificate of 127.0.0.1 is not trusted: self"
    )
    assert "SSL_CERT_FILE" in result.stderr
    assert not tls_world.registry.requests


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with contextlib.closing(Proxy()) as proxy:
        yield proxy


def test_a_certificate_for_another_host_is_final_too(tls_world: World) -> None:
    token = tls_world.github.issue("crates.io")
    with contextlib.closing(Proxy(tls_world.registry)) as proxy:
        env = tls_world.on_gitlab(HTTPS_PROXY=proxy.url, CRATES_IO_ID_TOKEN=token)
        result = tls_world.run("--url", "crates.io", env=env)
    assert result.status == 1
    assert result.stderr.startswith(
        "crates-io-auth: error: The certificate of crates.io is not trusted: Hostname mismatch"
    )
    assert not tls_world.registry.requests


def test_https_goes_through_the_proxy_of_the_environment(tls_world: World, proxy: Proxy) -> None:
    assert tls_world.run(env=tls_world.on_github(HTTPS_PROXY=proxy.url)).status == 0
    assert proxy.tunnels == [tls_world.github.authority, tls_world.registry.authority]


def test_no_proxy_is_respected(tls_world: World, proxy: Proxy) -> None:
    env = tls_world.on_github(HTTPS_PROXY=proxy.url, NO_PROXY="127.0.0.1")
    assert tls_world.run(env=env).status == 0
    assert not proxy.tunnels


def test_plain_http_to_this_machine_never_goes_through_a_proxy(world: World, proxy: Proxy) -> None:
    proxies = {"HTTP_PROXY": proxy.url, "http_proxy": proxy.url, "HTTPS_PROXY": proxy.url}
    env = world.on_github(**proxies, ALL_PROXY=proxy.url)
    assert world.run(env=env).status == 0
    assert not proxy.requests


def test_no_other_variable_sends_plain_http_through_a_proxy(world: World, proxy: Proxy) -> None:
    env = world.on_github(DEFAULT_PROXY=proxy.url, default_proxy=proxy.url, HTTPS_PROXY=proxy.url)
    assert world.run(env=env).status == 0
    assert not proxy.requests + proxy.tunnels


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("http://user:pass word-of-user@proxy.example:3128", id="space in the password"),
        pytest.param("http://user:p#word-of-user@proxy.example:3128:x", id="odd port"),
        pytest.param("socks5://user:word-of-user@proxy.example:1080", id="another scheme"),
        pytest.param("//user:word-of-user@", id="no host"),
    ],
)
def test_a_proxy_url_that_is_refused_is_not_shown(tls_world: World, url: str) -> None:
    result = tls_world.run(env=tls_world.on_github(HTTPS_PROXY=url))
    assert result.status == 1
    assert result.log.startswith("##[error]HTTPS_PROXY does not hold the URL of a proxy\n")
    assert "word-of-user" not in result.stderr + result.summary
    assert not tls_world.github.requests


def test_a_proxy_may_have_a_user_and_a_password(tls_world: World, proxy: Proxy) -> None:
    url = proxy.url.replace("http://", "http://user:p%40ss!word@")
    assert tls_world.run(env=tls_world.on_github(HTTPS_PROXY=url)).status == 0
    assert proxy.tunnels == [tls_world.github.authority, tls_world.registry.authority]


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\n", id="without a length"),
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n", id="a chunk of size -1"),
    ],
)
def test_an_endless_response_is_not_read_beyond_a_mebibyte(world: World, head: bytes) -> None:
    sent = [0]

    def endless(handler: Handler) -> None:
        handler.wfile.write(head)
        with contextlib.suppress(OSError):
            while sent[0] < 64 * 1024 * 1024:
                sent[0] += handler.wfile.write(b" " * 65536)

    world.registry.faults = [endless]
    assert world.run(env=world.on_github(), prelude="script.BACKOFF_SECONDS = (0, 0, 0)").status == 0
    # Beyond what was read, only the sockets' buffers can hold any.
    assert sent[0] < 16 * 1024 * 1024


def test_a_password_is_not_sent_to_a_proxy_that_would_need_tls(tls_world: World, proxy: Proxy) -> None:
    url = proxy.url.replace("http://", "https://user:word-of-user@")
    result = tls_world.run(env=tls_world.on_github(HTTPS_PROXY=url))
    assert result.log.startswith("##[error]HTTPS_PROXY does not hold the URL of a proxy\n")
    assert not proxy.requests + proxy.tunnels


def test_a_proxy_that_repeats_its_password_does_not_get_it_shown(tls_world: World) -> None:
    def listen(server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = server.accept()
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 407 your password is word-of-user\r\n\r\n")
                connection.close()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=listen, args=[server], daemon=True).start()
        url = f"http://user:word-of-user@127.0.0.1:{server.getsockname()[1]}"
        result = tls_world.run(env=tls_world.on_github(HTTPS_PROXY=url), prelude=IMPATIENT)
    assert "Tunnel connection failed: 407 (OSError)" in result.log
    assert "word-of-user" not in result.log + result.summary


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


def record_line(**entry: object) -> str:
    """Return a line of the record."""
    line = {
        "registry": "https://crates.io",
        "token": "x",
        "issued_at": 1_700_000_000,
        "reusable": True,
        **entry,
    }
    return json.dumps(line) + "\n"


def hold_tokens(world: World, count: int) -> None:
    """Leave a record with access tokens that are alive, as if a step on GitHub had got them."""
    for _ in range(count):
        token = new_access_token()
        world.registry.access_tokens.append(token)
        with open(os.open(world.record(), os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600), "a") as record:
            record.write(record_line(registry=world.registry.url, token=token))


@on_posix
def test_the_record_holds_a_line_of_json_that_only_its_owner_can_read(world: World) -> None:
    before = int(time.time())
    world.run(env=world.on_github())
    (line,) = world.record().read_text().split("\n")[1:-1]
    entry = json.loads(line)
    assert before <= entry.pop("issued_at") <= time.time()
    assert entry == {
        "registry": world.registry.url,
        "token": world.registry.access_tokens[0],
        "reusable": True,
    }
    assert stat.S_IMODE(world.record().stat().st_mode) == 0o600


@on_posix
def test_outside_github_each_job_has_a_record_in_a_folder_of_the_user(world: World) -> None:
    first = world.run(env=world.on_gitlab(CI_JOB_ID="1")).token
    second = world.run(env=world.on_gitlab(CI_JOB_ID="2")).token
    assert len(world.records()) == 2
    assert len({record.parent for record in world.records()}) == 1
    assert stat.S_IMODE(world.records()[0].parent.stat().st_mode) == 0o700
    assert world.run("post", env=world.on_gitlab(CI_JOB_ID="1")).status == 0
    assert world.registry.alive() == {second} != {first}


def test_a_job_id_can_t_lead_out_of_the_folder(world: World) -> None:
    env = world.on_gitlab(CI_JOB_ID="../../evil")
    assert world.run(env=env).status == 0
    assert [record.parent for record in world.records()] == [folder_of_user(world)]
    assert world.run("post", env=env).status == 0
    assert not world.registry.alive()


def folder_of_user(world: World) -> Path:
    """Return the folder for the records of this user's jobs outside GitHub."""
    user = "" if sys.platform == "win32" else f"-{os.geteuid()}"
    return world.folder / f"crates-io-auth{user}"


@on_posix
@pytest.mark.parametrize("mode", [0o755, 0o770], ids=oct)
def test_a_folder_that_is_open_to_others_is_refused(world: World, mode: int) -> None:
    folder_of_user(world).mkdir()
    folder_of_user(world).chmod(mode)
    result = world.run(env=world.on_gitlab())
    assert result.status == 1
    assert (
        world.anonymous(result.stderr)
        == f"""\
crates-io-auth: error: Can't use <folder>/{folder_of_user(world).name} to record access tokens: \
it is open to others
It must belong to you and be open to nobody else: a folder of mode 0700, or a regular file of mode 0600 that
is not a link. If somebody else put it there, find out who. Remove it, and run this again.
"""
    )
    assert not world.registry.requests


@on_posix
def test_a_folder_of_someone_else_is_refused(world: World) -> None:
    # A folder that root gave away or, for anybody else, a link to a folder of root's.
    if os.geteuid() == 0:
        folder_of_user(world).mkdir(mode=0o700)
        os.chown(folder_of_user(world), 12345, 12345)
    else:
        folder_of_user(world).symlink_to("/")
    result = world.run(env=world.on_gitlab())
    assert result.status == 1
    assert "to record access tokens: " in result.stderr
    assert not world.registry.requests


def plant_link(path: Path) -> None:
    (path.parent / "victim").touch(mode=0o600)
    path.symlink_to(path.parent / "victim")


def plant_hard_link(path: Path) -> None:
    (path.parent / "victim").touch(mode=0o600)
    os.link(path.parent / "victim", path)


@on_posix
@pytest.mark.parametrize(
    "plant",
    [
        pytest.param(plant_link, id="link"),
        pytest.param(plant_hard_link, id="hard link"),
        pytest.param(lambda path: os.mkfifo(path, 0o600), id="pipe"),
        pytest.param(lambda path: path.mkdir(), id="folder"),
    ],
)
def test_what_is_planted_in_place_of_the_record_is_refused_before_a_token_is_asked_for(
    world: World, plant: Callable[[Path], None]
) -> None:
    plant(world.record())
    result = world.run(env=world.on_github())
    assert result.status == 1
    assert "##[error]Can't use " in result.log
    assert not world.github.requests + world.registry.requests
    post = world.run("post", env=world.on_github())
    assert post.status == 1
    assert "to record access tokens: " in post.stderr


@on_posix
def test_a_file_that_is_not_the_record_keeps_its_mode(world: World) -> None:
    (world.temp / "script").touch()
    (world.temp / "script").chmod(0o755)
    os.link(world.temp / "script", world.record())
    assert world.run(env=world.on_github()).status == 1
    assert world.run("post", env=world.on_github()).status == 1
    assert stat.S_IMODE((world.temp / "script").stat().st_mode) == 0o755


def test_the_record_is_there_before_anything_is_read_or_sent(world: World) -> None:
    world.run(env=world.on_github(INPUT_URL="ftp://x"))
    assert world.record().read_bytes() == b""


@pytest.mark.parametrize(
    ("first", "second"), [("7/1", "7.1"), ("a", "A"), ("x" * 300, "x" * 301), ("\udcff", "\udcfe")]
)
def test_two_job_ids_never_share_a_record(world: World, first: str, second: str) -> None:
    tokens = [world.run(env=world.on_gitlab(CI_JOB_ID=job)).token for job in (first, second)]
    assert len(world.records()) == 2
    assert world.run("post", env=world.on_gitlab(CI_JOB_ID=first)).status == 0
    assert world.registry.alive() == {tokens[1]}


def test_without_a_job_id_all_jobs_of_a_user_share_a_record(world: World) -> None:
    world.run(env=world.on_gitlab(CI_JOB_ID=None))
    assert [record.name for record in world.records()] == ["no-job-id.jsonl"]


@on_posix
def test_a_record_that_is_open_to_others_is_closed_before_a_token_gets_in(world: World) -> None:
    world.record().touch()
    world.record().chmod(0o666)
    assert world.run(env=world.on_github()).status == 0
    assert stat.S_IMODE(world.record().stat().st_mode) == 0o600


def limit_file_size(size: int) -> Any:
    """Return arguments of a process that can't make a file larger than `size` bytes."""
    import resource

    return {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))}


@on_posix
def test_a_token_that_can_t_be_recorded_whole_is_revoked_at_once(world: World) -> None:
    result = world.run(env=world.on_gitlab(), **limit_file_size(20))
    assert result.status == 1
    assert result.stdout == ""
    assert ".jsonl: only a part of a line could be written" in result.stderr
    assert world.registry.access_tokens
    assert not world.registry.alive()
    # What was cut off does not spoil the line after it. Whether it was a whole token can't be known.
    env = world.on_gitlab()
    assert world.run(env=env).status == 0
    result = world.run("post", env=env)
    assert result.status == 1
    assert ".jsonl is damaged" in result.stderr
    assert not world.registry.alive()


DAMAGED_LINES = {
    "garbage": b"\x00\xff\xfe garbage\n",
    "half a line": b'{"registry": "http://127.0.0.1", "tok\n',
    "half a line without an end": b'{"registry": "http://127.0.0.1", "tok',
    "another shape": b"[1, 2]\n",
    "nested arrays": b"[" * 100_000 + b"\n",
    "null": b'{"registry": null, "token": null, "issued_at": null, "reusable": null}\n',
    "token of two lines": record_line(token="a\nb").encode(),
    "lone surrogate": record_line(token="\ud800").encode(),
    "text instead of a number": record_line(issued_at="1700000000").encode(),
    "number instead of a truth": record_line(reusable=1).encode(),
    "unknown field": record_line(unknown=1).encode(),
}


@pytest.mark.parametrize("damage", DAMAGED_LINES.values(), ids=DAMAGED_LINES.keys())
def test_good_lines_of_a_damaged_record_are_revoked_and_the_damage_is_reported(
    world: World, damage: bytes
) -> None:
    hold_tokens(world, 2)
    first, second = world.record().read_bytes().splitlines(keepends=True)
    world.record().write_bytes(first + damage + b"\n" + second)
    result = world.run("post", env=world.on_github())
    assert result.status == 1
    assert f"The record {world.record()} is damaged" in result.log
    assert not world.registry.alive()
    assert len(world.registry.revoked) == 2
    assert script.Record(str(world.record())).tokens() == []


def test_a_record_that_names_a_refused_registry_sends_nothing_there(world: World, other_world: World) -> None:
    hold_tokens(world, 1)
    authority = other_world.registry.authority
    for url in (f"http://user@{authority}", f"http://{authority}?x", "http://127.0.0.1.evil.example/"):
        line = record_line(registry=url, token=new_access_token())
        world.record().write_text(line + world.record().read_text())
    result = world.run("post", env=world.on_github())
    assert result.status == 1
    assert result.stderr.count("Invalid URL: ") == 3
    assert not world.registry.alive()
    assert not other_world.registry.requests


def test_a_token_that_is_a_part_of_another_takes_only_its_own_line_out(
    world: World, other_world: World
) -> None:
    hold_tokens(world, 1)
    part = record_line(registry=other_world.registry.url, token="cio_tp_")
    world.record().write_text(part + world.record().read_text())
    other_world.registry.faults = [respond(204)]
    world.registry.faults = [refuse(400, "Not now")]
    assert world.run("post", env=world.on_github()).status == 1
    assert world.run("post", env=world.on_github()).status == 0
    assert not world.registry.alive()
    assert len(other_world.registry.requests) == 1


def test_the_same_token_of_two_registries_is_revoked_at_each(world: World, other_world: World) -> None:
    hold_tokens(world, 1)
    (token,) = world.registry.access_tokens
    other_world.registry.access_tokens.append(token)
    twin = record_line(registry=other_world.registry.url, token=token)
    world.record().write_text(twin + world.record().read_text())
    world.registry.faults = [refuse(400, "Not now")]
    assert world.run("post", env=world.on_github()).status == 1
    assert not other_world.registry.alive()
    assert world.run("post", env=world.on_github()).status == 0
    assert not world.registry.alive()


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("[" * 100_000, id="nested arrays"),
        pytest.param('{"a":' * 100_000, id="nested objects"),
        pytest.param("[" * 101 + "]" * 101, id="one too deep"),
        pytest.param("[", id="no end"),
        pytest.param('"', id="no end of a string"),
    ],
)
def test_json_that_is_nested_too_deeply_or_has_no_end_is_not_parsed(text: str) -> None:
    assert script.parse_json(text) is None


def test_a_long_number_is_read_as_a_float_which_takes_no_time() -> None:
    assert script.parse_json("9" * 1_000_000) == float("inf")


def test_json_is_counted_as_deep_by_its_brackets_outside_strings() -> None:
    text = json.dumps(["[" * 1000, '"\\{"', [{"a": [0]}] * 200])
    assert script.parse_json(text) == json.loads(text)
    assert script.parse_json("[" * 100 + "]" * 100)


def test_sixteen_mains_and_several_posts_at_once_lose_no_token(world: World) -> None:
    processes = []
    for number in range(16):
        processes.append(world.start(env=world.on_gitlab()))
        if number % 4 == 3:
            processes.append(world.start("post", env=world.on_gitlab()))
    assert [process.finish().status for process in processes] == [0] * 20
    assert len(world.registry.access_tokens) == 16
    lines = "".join(record.read_text() for record in world.records()).splitlines()
    recorded = {json.loads(line)["token"] for line in lines if line.strip()}
    assert world.registry.alive() <= recorded
    posts = [world.start("post", env=world.on_gitlab()) for _ in range(3)]
    assert [post.finish().status for post in posts] == [0, 0, 0]
    assert not world.records()
    assert sorted(world.registry.access_tokens) == sorted(set(world.registry.revoked))


ATOMS = [
    *(
        "https://",
        "http://",
        "crates.io",
        "localhost",
        "127.0.0.1",
        "[::1]",
        "443",
        "::",
        "##[",
        "cio_tp_",
        "eyJ",
    ),
    *("null", "true", "1e999", "-1", "NaN", "\\ud800", "\\u0000", "9" * 400, "٣", "𝟘"),
    *('"registry"', '"token"', '"issued_at"', '"errors"', '"detail"', '"value"'),
    *("Mon", "GMT", "-0000", "+9999", "00:00:00", "99:99:99", "01 Jan 2001", "31 Feb 99999"),
    *":@/?#%.=-{}[]\"',0 \t\n\r\x00\x1b\x7f\x85\u2028\u202e\ud800\udcffſé",
]


def test_whatever_comes_in_only_the_script_s_own_errors_come_out(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("RUNNER_TEMP", str(tmp_path))
    record = script.Record(str(tmp_path / "record"))
    seed = int(os.environ.get("FUZZ_SEED") or random.SystemRandom().randrange(10**9))
    print(f"FUZZ_SEED={seed}")
    dice = random.Random(seed)

    def response(text: str) -> Any:
        headers = http.client.HTTPMessage()
        line = re.sub("[\r\n]", " ", text).encode("latin-1", "replace").decode("latin-1")
        headers["Retry-After"] = headers["Location"] = line
        status = dice.choice([200, 204, 302, 400, 404, 429, 500, 999])
        request = script.Request("POST", "https://host", bearer="secret")
        return script.Response(request, status, headers, text.encode("utf-8", "surrogatepass"))

    def claims(text: str) -> Any:
        payload = base64.urlsafe_b64encode(text.encode("utf-8", "replace")).decode()
        return script.claims_of(f"x.{payload}.x")

    def refusal(text: str) -> Any:
        odd = dict.fromkeys([*script.CLAIMS, "aud", "iss", "job_workflow_ref"], text)
        detail = dice.choice(
            [
                "decode JWT",
                "JWT issuer",
                "event trigger",
                "already been used",
                "No Trusted Publishing config",
            ]
        )
        explanation = script.explain_refusal(detail, odd, "https://host")
        return script.AuthError(script.REFUSED, host="host", problem=text, explanation=explanation)

    def recorded(text: str) -> None:
        content = text.encode("utf-8", "surrogatepass")
        Path(record.path).write_bytes(content)
        for issued in record.tokens():
            assert script.is_secret(issued.token), (seed, text)
            record.remove(issued)
        assert not record.tokens(), (seed, text)
        assert len(Path(record.path).read_bytes()) == len(content), (seed, text)

    targets: list[Callable[[str], object]] = [
        recorded,
        script.registry_url,
        script.parse_url,
        lambda text: response(text).unexpected_error(),
        lambda text: script.parse_json(text.encode("utf-8", "surrogatepass"), "errors", 0, "detail"),
        claims,
        refusal,
        script.parse_retry_after,
    ]
    for _ in range(4000):
        text = "".join(dice.choices(ATOMS, k=dice.randrange(12)))
        if dice.random() < 0.3:
            text = '{"registry": "' + text + '", "token": "' + text + '", "issued_at": 1, "reusable": true}'
        try:
            came_out = dice.choice(targets)(text)
        except script.AuthError as error:
            came_out = error
        if isinstance(came_out, (script.AuthError, script.TransientError)):
            shown = str(came_out)
            assert all(character.isprintable() for character in shown.replace("\n", "")), (seed, text)
            assert "##[" not in shown, (seed, text)
            assert not re.search(r"^\s*(::|```)", shown, flags=re.MULTILINE), (seed, text)


# Revoking


def test_revoking_sends_the_token_as_bearer_and_no_body(world: World) -> None:
    hold_tokens(world, 1)
    world.run("post", env=world.on_github())
    (request,) = world.registry.requests
    assert (request.method, request.path, request.body) == ("DELETE", TOKENS_PATH, b"")
    assert request.headers["authorization"] == f"Bearer {world.registry.access_tokens[0]}"
    assert request.headers["user-agent"].startswith("crates-io-auth/")


def test_nothing_to_revoke_is_a_quiet_success(world: World) -> None:
    world.record().touch()
    for env in (world.on_github(), world.on_gitlab(), world.base(CARGO_REGISTRY_TOKEN="")):
        result = world.run("post", env=env)
        assert (result.status, result.stdout) == (0, "")
        assert result.stderr == "crates-io-auth: Nothing to revoke.\n"


def test_with_a_missing_record_on_github_post_warns_and_does_not_say_that_there_was_nothing(
    world: World,
) -> None:
    result = world.run("post", env=world.on_github())
    assert result.status == 0
    assert result.log.startswith(f"##[warning]The record of this job, {world.record()}, is missing\n")
    assert "Nothing to revoke" not in result.log


@on_posix
@pytest.mark.parametrize("place", ["relative", "open to others", "missing"])
def test_post_revokes_the_token_of_the_environment_though_the_record_has_no_safe_place(
    world: World, place: str
) -> None:
    token = world.run(env=world.on_gitlab()).stdout.strip()
    if place == "relative":
        env = world.on_gitlab(CARGO_REGISTRY_TOKEN=token, TMPDIR="tmp")
    elif place == "open to others":
        folder_of_user(world).chmod(0o755)
        env = world.on_gitlab(CARGO_REGISTRY_TOKEN=token)
    else:
        env = world.on_github(CARGO_REGISTRY_TOKEN=token, RUNNER_TEMP=None)
    result = world.run("post", env=env)
    assert result.status == 1
    assert "Revoked 1 access token." in result.log
    assert not world.registry.alive()


def test_post_revokes_each_token_at_the_registry_that_issued_it(world: World, other_world: World) -> None:
    hold_tokens(world, 2)
    assert other_world.run(env=other_world.on_github(RUNNER_TEMP=str(world.temp))).status == 0
    result = world.run("post", env=world.on_github())
    assert result.status == 0
    assert "Revoked 3 access tokens." in result.log
    assert sorted(world.registry.revoked) == sorted(world.registry.access_tokens)
    assert other_world.registry.revoked == other_world.registry.access_tokens


def test_post_also_revokes_a_temporary_token_of_the_environment(world: World) -> None:
    token = world.run(env=world.on_github()).token
    world.record().unlink()
    assert world.run("post", env=world.on_github(CARGO_REGISTRY_TOKEN=token)).status == 0
    assert world.registry.revoked == [token]


@on_posix
def test_an_unsafe_record_does_not_keep_post_from_revoking_the_token_of_the_environment(world: World) -> None:
    token = world.run(env=world.on_github()).token
    world.record().unlink()
    world.record().symlink_to("victim")
    result = world.run("post", env=world.on_github(CARGO_REGISTRY_TOKEN=token))
    assert result.status == 1
    assert "##[error]Can't use " in result.log
    assert world.registry.revoked == [token]


def test_a_token_of_the_environment_that_is_in_the_record_too_is_revoked_once(world: World) -> None:
    token = world.run(env=world.on_github()).token
    env = world.on_github(CARGO_REGISTRY_TOKEN=token, INPUT_URL="http://127.0.0.1:1")
    assert world.run("post", env=env).status == 0
    assert world.registry.revoked == [token]


@pytest.mark.parametrize("end", ["", "\n"], ids=["alone", "with a line break"])
def test_a_long_lived_token_of_the_user_is_never_sent(world: World, end: str) -> None:
    env = world.on_github(CARGO_REGISTRY_TOKEN="cioAbCdEf0123456789" + end)
    assert world.run("post", env=env).status == 0
    assert not world.registry.requests


def test_a_damaged_token_of_the_environment_is_not_sent_and_stops_no_other(world: World) -> None:
    hold_tokens(world, 1)
    result = world.run("post", env=world.on_github(CARGO_REGISTRY_TOKEN="cio_tp_x\r\nX: y"))
    assert result.status == 1
    assert "CARGO_REGISTRY_TOKEN does not hold a token" in result.stderr
    assert not world.registry.alive()


@pytest.mark.parametrize("code", [401, 404])
def test_a_token_that_the_registry_does_not_know_is_as_good_as_revoked(world: World, code: int) -> None:
    hold_tokens(world, 1)
    world.registry.faults = [refuse(code, "Invalid `Authorization` header: Failed to parse token")]
    assert world.run("post", env=world.on_github()).status == 0
    assert not world.records()


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(respond(200, b"<html>Log in to this network</html>"), id="captive portal"),
        pytest.param(respond(200, {"ok": True}), id="JSON"),
        pytest.param(respond(202), id="202"),
        pytest.param(respond(401, b"<html>Proxy</html>"), id="401 of a proxy"),
        pytest.param(respond(404, b"no backend"), id="404 of a load balancer"),
        pytest.param(respond(404, {"errors": []}), id="404 without an error"),
        pytest.param(respond(404, {"errors": "proxy says no"}), id="404 with a text"),
        pytest.param(
            respond(401, {"errors": [{"status": 401, "message": "no"}]}), id="401 of another server"
        ),
        pytest.param(refuse(401, "Missing `Authorization` header"), id="401 for a header that got lost"),
    ],
)
def test_only_the_registry_s_own_response_counts_as_revoked(world: World, fault: Fault) -> None:
    hold_tokens(world, 1)
    world.registry.faults = [fault] * 4
    result = world.run("post", env=world.on_github())
    assert result.status == 1
    assert result.log.endswith("it expires by itself, on crates.io 30 minutes after it was issued.\n")
    assert "Revoked" not in result.log
    assert len(world.records()) == 1
    assert world.run("post", env=world.on_github()).status == 0
    assert not world.registry.alive()


def test_a_revocation_that_fails_stops_no_other_and_can_be_repeated(world: World) -> None:
    hold_tokens(world, 3)
    world.registry.faults = [refuse(403, "Not now")]
    result = world.run("post", env=world.on_github())
    assert result.status == 1
    assert (
        world.anonymous(result.log)
        == """\
crates-io-auth: Revoked 2 access tokens.
##[warning]Couldn't revoke an access token
  127.0.0.1 refused to revoke an access token: HTTP 403: Not now
You can leave it: it expires by itself, on crates.io 30 minutes after it was issued.
"""
    )
    assert len(world.registry.alive()) == 1
    assert world.run("post", env=world.on_github()).status == 0
    assert not world.registry.alive()
    assert not world.records()


def test_post_four_times_at_once_is_harmless(world: World) -> None:
    hold_tokens(world, 3)
    posts = [world.start("post", env=world.on_github()) for _ in range(4)]
    assert [post.finish().status for post in posts] == [0, 0, 0, 0]
    assert not world.registry.alive()
    assert not world.records()


@on_linux
@pytest.mark.parametrize("closed", [True, False], ids=["closed", "full"])
def test_without_stderr_all_is_revoked_all_the_same(world: World, closed: bool) -> None:
    hold_tokens(world, 3)
    world.registry.faults = [None, respond(503)]
    with open("/dev/full", "wb") as full:
        stderr = {"stderr": None, "preexec_fn": close_stderr} if closed else {"stderr": full}
        assert world.run("post", env=world.on_github(), **stderr).status == 0
    assert not world.registry.alive()


@on_posix
def test_a_record_that_became_open_to_others_is_revoked_all_the_same(world: World) -> None:
    hold_tokens(world, 1)
    world.record().chmod(0o644)
    assert world.run("post", env=world.on_github()).status == 0
    assert not world.registry.alive()


@on_posix
@pytest.mark.parametrize("ci", [World.on_github, World.on_gitlab], ids=["GitHub", "GitLab"])
def test_on_a_disk_that_takes_nothing_any_more_all_is_revoked(
    world: World, ci: Callable[[World], dict[str, str]]
) -> None:
    world.run(env=ci(world))
    world.run(env=ci(world))
    assert len(world.registry.alive()) == 2
    result = world.run("post", env=ci(world), **limit_file_size(0))
    assert result.status == 1
    assert ".jsonl: File too large" in result.stderr
    assert not world.registry.alive()
    assert world.run("post", env=ci(world)).status == 0
    assert not world.records()


# Being cancelled or killed

SHORT_WAIT = "script.LATE_SECONDS /= 60"


def request_in_flight(fake: Fake) -> threading.Event:
    """Return an event for a request that reaches a fake, which then never responds."""
    reached = threading.Event()

    def fault(handler: Handler) -> None:
        reached.set()
        never_respond(handler)

    fake.faults.append(fault)
    return reached


@on_posix
@each_signal
def test_cancelled_while_the_registry_responds_the_token_is_revoked(
    world: World, number: signal.Signals
) -> None:
    asked, may_respond = threading.Event(), threading.Event()

    def slow(handler: Handler) -> None:
        asked.set()
        may_respond.wait()
        world.registry.behave(handler)

    world.registry.faults = [slow]
    process = world.start(env=world.on_github())
    assert asked.wait(20)
    process.popen.send_signal(number)
    process.popen.send_signal(number)
    may_respond.set()
    result = process.finish()
    assert result.status == 1
    assert result.outputs == ""
    assert "##[error]Cancelled. " in result.log
    assert len(world.registry.access_tokens) == 1
    assert not world.registry.alive()


@on_posix
@each_signal
def test_cancelled_while_github_does_not_respond(world: World, number: signal.Signals) -> None:
    reached = request_in_flight(world.github)
    process = world.start(env=world.on_github(), prelude=SHORT_WAIT)
    assert reached.wait(20)
    process.popen.send_signal(number)
    result = process.finish()
    assert (result.status, result.outputs) == (1, "")
    assert result.log.startswith("##[error]Cancelled. ")
    assert not world.registry.requests


@on_posix
@each_signal
def test_cancelled_between_two_attempts(world: World, number: signal.Signals) -> None:
    world.registry.faults = [respond(503, Retry_After="30")]
    process = world.start(env=world.on_gitlab())
    read_until(process.popen.stderr, "Retrying in")
    process.popen.send_signal(number)
    result = process.finish()
    assert (result.status, result.stdout) == (1, "")
    assert result.stderr.startswith("crates-io-auth: error: Cancelled. ")


@on_posix
@each_signal
def test_cancelled_while_nobody_reads_the_token(world: World, number: signal.Signals) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b"x" * 65536)
    os.set_blocking(writer, True)
    process = world.start(env=world.on_gitlab(), stdout=writer)
    wait_until(world.records)
    process.popen.send_signal(number)
    result = process.finish()
    os.close(reader)
    os.close(writer)
    assert result.status == 1
    assert "Revoked 1 access token" in result.stderr
    assert world.registry.access_tokens
    assert not world.registry.alive()


@on_posix
@each_signal
def test_cancelled_while_the_registry_is_silent_it_says_what_may_still_happen(
    world: World, number: signal.Signals
) -> None:
    reached = request_in_flight(world.registry)
    process = world.start(env=world.on_github(), prelude=SHORT_WAIT)
    assert reached.wait(20)
    process.popen.send_signal(number)
    result = process.finish()
    assert result.status == 1
    assert (
        "127.0.0.1 hasn't responded to a request for an access token, and may still issue one." in result.log
    )
    assert "Nobody holds that token, and it expires by itself after 30 minutes." in result.log


@on_posix
@each_signal
def test_cancelled_the_response_is_waited_for_and_its_token_revoked(
    world: World, number: signal.Signals
) -> None:
    asked = threading.Event()

    def slow(handler: Handler) -> None:
        asked.set()
        time.sleep(0.3)
        world.registry.behave(handler)

    world.registry.faults = [slow]
    process = world.start(env=world.on_github(), prelude="script.LATE_SECONDS = 3")
    assert asked.wait(20)
    process.popen.send_signal(number)
    assert process.finish().status == 1
    assert len(world.registry.access_tokens) == 1
    assert not world.registry.alive()


@on_posix
@each_signal
def test_post_cancelled_keeps_what_it_has_not_revoked(world: World, number: signal.Signals) -> None:
    hold_tokens(world, 3)
    world.registry.faults = [None]
    reached = request_in_flight(world.registry)
    process = world.start("post", env=world.on_github(), prelude=SHORT_WAIT)
    assert reached.wait(20)
    process.popen.send_signal(number)
    result = process.finish()
    assert result.status == 1
    assert "##[error]Cancelled. " in result.log
    assert len(world.registry.alive()) == 2
    assert world.run("post", env=world.on_github()).status == 0
    assert not world.registry.alive()


@on_posix
def test_cancelled_while_it_revokes_a_token_that_is_in_no_record_it_goes_on(world: World) -> None:
    world.registry.faults = [None, respond(503, Retry_After="1")]
    process = world.start(env=world.on_gitlab(), **limit_file_size(20))
    read_until(process.popen.stderr, "Retrying in")
    process.popen.send_signal(signal.SIGINT)
    assert process.finish().status == 1
    assert world.registry.access_tokens
    assert not world.registry.alive()


@on_posix
def test_a_token_that_can_be_neither_masked_nor_revoked_at_once_is_left_to_post(world: World) -> None:
    reader, writer = os.pipe()

    def nobody_reads_any_more(handler: Handler) -> None:
        os.close(reader)
        world.registry.behave(handler)

    world.registry.faults = [nobody_reads_any_more, *[respond(503)] * 4]
    process = world.start(env=world.on_github(), prelude=IMPATIENT, stderr=writer)
    os.close(writer)
    assert process.finish().status == 1
    assert world.registry.alive()
    assert world.run("post", env=world.on_github()).status == 0
    assert not world.registry.alive()


@on_posix
def test_both_signals_at_once_are_one(world: World) -> None:
    reached = request_in_flight(world.registry)
    process = world.start(env=world.on_github(), prelude=SHORT_WAIT)
    assert reached.wait(20)
    for number in (signal.SIGSTOP, signal.SIGTERM, signal.SIGINT, signal.SIGCONT):
        process.popen.send_signal(number)
    result = process.finish()
    assert result.status == 1
    assert "race condition" not in result.stderr  # as Python says for SIG_IGN with a signal pending


# Kills the process before the Nth line of the script that it runs after a function has returned, in
# whatever thread. Between two lines lies at most one system call of the script's own.
KILL = """\
import signal, threading
returned, lines = [], []
def trace(frame, event, argument):
    if frame.f_code.co_filename != script.__file__:
        return None
    if event == "return" and frame.f_code is script.{function}.__code__:
        returned.append(1)
    elif returned and event == "line":
        lines.append(1)
        if len(lines) == {count}:
            os.kill(os.getpid(), signal.SIGKILL)
    return trace
threading.settrace(trace)
sys.settrace(trace)
"""


def killed(world: World, function: Any, count: int, *arguments: str) -> bool:
    """Run the script, and tell whether it was killed after that many lines, before it ended by itself."""
    prelude = KILL.format(function=function.__qualname__, count=count)
    return world.run(*arguments, env=world.on_github(), prelude=prelude).status == -signal.SIGKILL


@on_posix
@pytest.mark.parametrize("count", range(1, 41, 4))
def test_killed_at_any_line_after_the_token_was_recorded_post_revokes_it(world: World, count: int) -> None:
    assert killed(world, script.Record.add, count) or count > 10
    assert world.registry.access_tokens
    assert world.run("post", env=world.on_github()).status == 0
    assert not world.registry.alive()


@on_posix
@pytest.mark.parametrize("count", range(1, 121, 12))
def test_post_killed_at_any_line_leaves_what_it_has_not_revoked_to_the_next(world: World, count: int) -> None:
    hold_tokens(world, 1)
    assert killed(world, script.Record.lines, count, "post") or count > 60
    assert world.run("post", env=world.on_github()).status == 0
    assert not world.registry.alive()


# The provider: cargo itself

# A build script that writes down what a thief would look at.
BUILD_SCRIPT = """\
fn look(folder: &std::path::Path, seen: &mut String) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { look(&path, seen) } else {
            let bytes = std::fs::read(&path).unwrap_or_default();
            seen.push_str(&format!("{}={}\\n", path.display(), String::from_utf8_lossy(&bytes)));
        }
    }
}
fn main() {
    let mut seen = String::new();
    for (name, value) in std::env::vars() { seen.push_str(&format!("{name}={value}\\n")); }
    look(std::path::Path::new(&std::env::var("RUNNER_TEMP").unwrap()), &mut seen);
    let folder = std::env::var("SEEN").unwrap();
    let file = std::path::Path::new(&folder).join(std::env::var("CARGO_PKG_NAME").unwrap());
    std::fs::write(file, seen).unwrap();
}
"""


def cargo_environment(world: World) -> dict[str, str | None]:
    """Return what cargo needs in its environment, to know the registry as `local`."""
    return {
        "HOME": os.environ.get("HOME"),
        "RUSTUP_HOME": os.environ.get("RUSTUP_HOME"),
        "CARGO_HOME": str(world.folder / "cargo"),
        "CARGO_REGISTRIES_LOCAL_INDEX": f"sparse+{world.registry.url}/index/",
        "CARGO_TERM_COLOR": "never",
    }


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
        needs = ""
        for name in crates:
            (self.folder / name / "src").mkdir(parents=True)
            (self.folder / name / "src/lib.rs").write_text("")
            (self.folder / name / "build.rs").write_text(BUILD_SCRIPT)
            (self.folder / name / "Cargo.toml").write_text(
                f'[package]\nname = "{name}"\nversion = "0.1.0"\nedition = "2021"\ndescription = "x"\n'
                f'license = "MIT"\npublish = ["local"]\n[dependencies]\n{needs}'
            )
            needs = f'{name} = {{ path = "../{name}", version = "0.1.0", registry = "local" }}\n'
        members = f'[workspace]\nresolver = "2"\nmembers = {json.dumps(crates)}\n'
        (self.folder / "Cargo.toml").write_text(members)

    def set_up_provider(self, **more: str | None) -> tuple[Result, dict[str, str]]:
        """Run the action with `credential-provider: true`. Return its result, and what the next step gets."""
        world = self.world
        world.temp = world.folder / "runner-temp"  # cargo needs a path without a space
        world.temp.mkdir()
        job = {**self.cargo_environment, "INPUT_URL": None, "RUNNER_TEMP": str(world.temp), **more}
        step = {**job, "INPUT_CREDENTIAL_PROVIDER": "true", "INPUT_REGISTRY": "local"}
        result = run_action(world, **step)
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


def assert_no_token_was_seen(project: Project) -> None:
    """Fail if a build script saw an identity token or an access token, dead or alive."""
    reports = project.seen_by_build_scripts()
    assert len(reports) == 3
    for report in reports:
        assert "RUNNER_TEMP=" in report
        assert not any(token in report for token in project.world.registry.access_tokens)
        assert not any(token in report for token in project.world.github.identity_tokens)


@pytest.fixture
def project(world: World) -> Project:
    return Project(world)


@on_posix
@needs("cargo")
@needs("bash")
def test_cargo_publishes_a_workspace_and_no_build_script_sees_a_token(world: World, project: Project) -> None:
    env = project.environment()
    launcher = env["CARGO_REGISTRIES_LOCAL_CREDENTIAL_PROVIDER"]
    assert stat.S_IMODE(os.stat(launcher).st_mode) == 0o700
    result = project.cargo("publish", "--workspace", env=env)
    assert result.status == 0, result
    assert world.registry.published() == ["alpha", "beta", "gamma"]
    assert_no_token_was_seen(project)
    # One to see that there will be one, revoked before anything was built, and one for the uploads.
    methods = [request.method for request in world.registry.requests if request.path == TOKENS_PATH]
    assert methods == ["POST", "DELETE", "POST"]
    assert result.stderr.index("crates-io-auth: Preflight: got a test token") < result.stderr.index(
        "Compiling"
    )
    assert world.run("post", env=env).status == 0
    assert not world.registry.alive()


@on_posix
@needs("cargo")
@needs("bash")
def test_without_verifying_cargo_publishes_and_runs_no_build_script(world: World, project: Project) -> None:
    result = project.cargo("publish", "--workspace", "--no-verify", env=project.environment())
    assert result.status == 0
    assert world.registry.published() == ["alpha", "beta", "gamma"]
    assert not project.seen_by_build_scripts()


@on_posix
@needs("cargo")
def test_a_single_use_identity_token_carries_a_whole_workspace(world: World, project: Project) -> None:
    provider = {"CARGO_REGISTRIES_LOCAL_CREDENTIAL_PROVIDER": str(SCRIPT), "RUNNER_TEMP": str(world.temp)}
    env = world.on_gitlab(**project.cargo_environment, **provider)
    identity_token = world.github.identity_tokens.pop()  # it is in the environment, where GitLab puts it
    result = project.cargo("publish", "--workspace", env=env)
    assert result.status == 0, result
    assert world.registry.published() == ["alpha", "beta", "gamma"]
    assert_no_token_was_seen(project)
    assert len(world.registry.access_tokens) == 1
    assert identity_token not in result.stderr
    assert world.run("post", env=env).status == 0
    assert not world.registry.alive()


@on_posix
@needs("cargo")
@needs("bash")
def test_a_refusal_stops_cargo_before_it_builds_anything(world: World, project: Project) -> None:
    env = project.environment()
    world.registry.faults = [None, None, refuse(400, "No Trusted Publishing config found")]
    result = project.cargo("publish", "--workspace", env=env)
    assert result.status != 0
    assert "Compiling" not in result.stderr
    assert "HTTP 400: No Trusted Publishing config found" in result.stderr
    assert "repository: octo/crate" in result.stderr
    assert not project.seen_by_build_scripts()


@on_posix
@needs("cargo")
@needs("bash")
def test_a_missing_permission_stops_cargo_before_it_builds_anything(project: Project) -> None:
    env = project.environment()
    del env["ACTIONS_ID_TOKEN_REQUEST_URL"]
    result = project.cargo("publish", "--workspace", env=env)
    assert result.status != 0
    assert "Compiling" not in result.stderr
    assert "id-token: write" in result.stderr


@on_posix
@needs("cargo")
@needs("bash")
def test_cargo_ignores_a_token_in_the_environment(world: World, project: Project) -> None:
    env = project.environment(CARGO_REGISTRIES_LOCAL_TOKEN="a-long-lived-one")
    result = project.cargo("publish", "--no-verify", "--package", "alpha", env=env)
    assert result.status == 0
    assert "will be ignored" in result.stderr
    used = {
        request.headers["authorization"] for request in world.registry.requests if request.method == "PUT"
    }
    assert used <= set(world.registry.access_tokens)


def exchanges(world: World) -> int:
    """Return how many times the registry was asked for an access token."""
    tokens_requests = [request for request in world.registry.requests if request.path == TOKENS_PATH]
    return sum(request.method == "POST" for request in tokens_requests)


@on_posix
@needs("cargo")
@needs("bash")
def test_crate_by_crate_a_workspace_costs_two_exchanges(world: World, project: Project) -> None:
    env = project.environment()
    log = ""
    for crate in ("alpha", "beta", "gamma"):
        result = project.cargo("publish", "--no-verify", "--package", crate, env=env)
        assert result.status == 0, result
        log += result.log
    assert world.registry.published() == ["alpha", "beta", "gamma"]
    assert exchanges(world) == 2
    ours = [line for line in log.splitlines() if line.startswith("crates-io-auth: ")]
    assert world.anonymous("\n".join(ours)) == (
        """\
crates-io-auth: Preflight: got a test token from http://<registry> and revoked it.
crates-io-auth: Access token for alpha 0.1.0: new
crates-io-auth: Preflight: the access token of an earlier upload can be used again.
crates-io-auth: Access token for beta 0.1.0: reused, 0 min old
crates-io-auth: Preflight: the access token of an earlier upload can be used again.
crates-io-auth: Access token for gamma 0.1.0: reused, 0 min old"""
    )
    assert world.run("post", env=env).status == 0
    assert not world.registry.alive()


@on_posix
@needs("cargo")
@needs("bash")
def test_through_a_pipe_that_prefixes_lines_no_token_is_shown(world: World, project: Project) -> None:
    env = project.environment()
    world.registry.faults = [None, respond(503, {"errors": [{"detail": "error: in maintenance"}]})]
    cargo = "cargo publish --registry local --allow-dirty --no-verify --package alpha"
    result = world.run_command(
        ["bash", "-c", f"set -o pipefail; {cargo} 2>&1 | sed 's/^/[alpha] /'"], env, cwd=project.folder
    )
    assert result.status == 0, result
    assert "[alpha] crates-io-auth: No valid response from" in result.stdout
    assert "add-mask" not in result.stdout
    assert "error:" not in result.stdout
    assert not any(token in result.stdout for token in world.registry.access_tokens)


@on_posix
@needs("cargo")
@needs("bash")
def test_cargo_owner_is_told_what_these_access_tokens_can_t_do(world: World, project: Project) -> None:
    env = project.environment()
    owner = ["cargo", "owner", "--registry", "local", "--list", "alpha"]
    result = world.run_command(owner, env, cwd=project.folder)
    assert result.status != 0
    assert "A token of trusted publishing can't be used for `cargo owner`" in result.stderr
    assert not world.registry.access_tokens


# The provider: setting it up


def set_up_provider(world: World, **changes: str | None) -> Result:
    """Run the script as the action's step with `credential-provider: true`."""
    return world.run(env=world.on_github(INPUT_CREDENTIAL_PROVIDER="true", INPUT_URL=None, **changes))


@on_posix
@pytest.mark.parametrize(
    ("registry", "folder", "variable"),
    [
        pytest.param(None, "temp", "CARGO_REGISTRY_CREDENTIAL_PROVIDER", id="crates.io"),
        pytest.param("my-registry", "temp", "CARGO_REGISTRIES_MY_REGISTRY_CREDENTIAL_PROVIDER", id="another"),
        pytest.param("a\nB=c", "temp", "CARGO_REGISTRIES_A_B_C_CREDENTIAL_PROVIDER", id="not a name"),
        pytest.param("local", "témp", "CARGO_REGISTRIES_LOCAL_CREDENTIAL_PROVIDER", id="path not ASCII"),
    ],
)
def test_the_variable_is_named_after_cargo_s_name_of_the_registry(
    world: World, registry: str | None, folder: str, variable: str
) -> None:
    temp = world.folder / folder
    temp.mkdir()
    for _ in range(2):  # a second time, as for a second registry, is fine
        assert set_up_provider(world, INPUT_REGISTRY=registry, RUNNER_TEMP=str(temp)).status == 0
    launcher = re.escape(str(temp)) + r"/crates-io-auth-for-cargo-\w+"
    variables = (world.folder / "env").read_text(encoding="utf-8")
    assert re.fullmatch(f"({variable}={launcher}\n){{2}}", variables)


@on_posix
def test_a_token_in_the_environment_that_cargo_will_ignore_is_a_warning(world: World) -> None:
    changes = {"RUNNER_TEMP": str(world.folder), "CARGO_REGISTRY_TOKEN": "a-long-lived-one"}
    result = set_up_provider(world, **changes)
    assert result.status == 0
    assert "##[warning]CARGO_REGISTRY_TOKEN is set, but cargo ignores it" in result.log


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param(
            {},
            "credential-provider doesn't work here: RUNNER_TEMP is ",
            id="space in the path",
        ),
        pytest.param({"ACTIONS_ID_TOKEN_REQUEST_TOKEN": None}, "id-token: write", id="no permission"),
    ],
)
def test_what_can_t_work_with_cargo_is_said_by_the_action(
    world: World, changes: dict[str, str | None], message: str
) -> None:
    result = set_up_provider(world, **changes)
    assert result.status == 1
    assert message in result.log
    assert (world.folder / "env").read_text() == ""


@on_posix
@pytest.mark.parametrize("name", [" temp", "temp ", "te\nB=c", "te\tmp", "te\x1bmp", "te\u2028mp"], ids=repr)
def test_a_path_that_cargo_or_the_runner_would_split_is_not_handed_over(world: World, name: str) -> None:
    folder = world.folder / name
    folder.mkdir()
    result = set_up_provider(world, RUNNER_TEMP=str(folder))
    assert result.status == 1
    assert "credential-provider doesn't work here" in result.log
    assert (world.folder / "env").read_text() == ""


@on_posix
def test_a_missing_file_for_variables_is_not_made_for_the_runner_would_never_read_it(world: World) -> None:
    missing = world.folder / "missing"
    result = set_up_provider(world, RUNNER_TEMP=str(world.folder), GITHUB_ENV=str(missing))
    assert result.status == 1
    assert not missing.exists()


@on_posix
@needs("bash")
def test_the_launcher_for_cargo_runs_no_code_of_the_workspace(world: World, project: Project) -> None:
    env = project.environment()
    plant_modules(world.folder)
    launcher = env["CARGO_REGISTRIES_LOCAL_CREDENTIAL_PROVIDER"]
    result = world.run_command([launcher, "--cargo-plugin"], {**env, "PYTHONPATH": str(world.folder)})
    assert '"Err"' in result.stdout
    assert not (world.folder / "was-here").exists()


# The provider: cargo's protocol


def ask(world: World, env: dict[str, str], request: object, **more: Any) -> Any:
    """Send the script one line as cargo does, and return its response."""
    line = request if isinstance(request, bytes) else json.dumps(request).encode() + b"\n"
    with tempfile.TemporaryFile() as stdin:
        stdin.write(line)
        stdin.seek(0)
        token = r'"token": "[^"]*"'
        result = world.run("--cargo-plugin", env=env, stdin=stdin, token_in_stdout=token, **more)
    assert result.status == 0, result
    hello, response = result.stdout.splitlines()
    assert hello == '{"v":[1]}'
    return json.loads(response)


def about(
    world: World, kind: str = "get", operation: str | None = "publish", **more: object
) -> dict[str, object]:
    """Return a request of cargo about the world's registry."""
    registry = {"index-url": f"sparse+{world.registry.url}/index/", "name": "local"}
    request = {"v": 1, "registry": registry, "kind": kind, "operation": operation, **more}
    return {name: value for name, value in request.items() if value is not None}


def test_uploads_get_one_token_for_25_minutes_and_then_a_new_one(world: World) -> None:
    env = world.on_github()
    before = int(time.time())
    response = ask(world, env, about(world, name="alpha", vers="0.1.0", cksum="0"))["Ok"]
    assert 25 * 60 + before <= response.pop("expiration") <= 25 * 60 + time.time()
    (token,) = world.registry.access_tokens
    assert response == {"kind": "get", "token": token, "cache": "expires", "operation_independent": False}
    assert ask(world, env, about(world))["Ok"]["token"] == token
    # The same, 25 minutes later.
    record = world.record().read_text()
    world.record().write_text(re.sub(r"\d{10}", lambda match: str(int(match[0]) - 25 * 60), record))
    assert ask(world, env, about(world))["Ok"]["token"] == world.registry.access_tokens[1] != token
    assert world.run("post", env=env).status == 0
    assert not world.registry.alive()


def test_the_preflight_on_github_tries_an_exchange_and_leaves_no_token_of_it_alive(world: World) -> None:
    response = ask(world, world.on_github(), about(world, operation="read"))["Ok"]
    assert response == {
        "kind": "get",
        "token": script.PLACEHOLDER_TOKEN,
        "cache": "never",
        "operation_independent": False,
    }
    assert len(world.registry.access_tokens) == 1
    assert not world.registry.alive()
    assert not world.records()


def test_the_preflight_makes_no_exchange_while_the_token_of_an_upload_is_fresh(world: World) -> None:
    token = ask(world, world.on_github(), about(world))["Ok"]["token"]
    response = ask(world, world.on_github(), about(world, operation="read"))["Ok"]
    assert response["token"] == script.PLACEHOLDER_TOKEN
    assert world.registry.access_tokens == [token]
    assert world.registry.alive() == {token}


def test_reading_gets_a_live_token_where_the_index_needs_one(world: World) -> None:
    world.registry.config = {"dl": "x", "api": world.registry.url, "auth-required": True}
    response = ask(world, world.on_github(), about(world, operation="read"))["Ok"]
    assert world.registry.alive() == {response["token"]}
    assert world.run("post", env=world.on_github()).status == 0
    assert not world.registry.alive()


def test_reading_outside_github_asks_for_no_token(world: World) -> None:
    response = ask(world, world.on_gitlab(), about(world, operation="read"))["Ok"]
    assert response["cache"] == "never"
    assert not world.registry.access_tokens


@pytest.mark.parametrize(
    ("claims", "problem"),
    [
        pytest.param(None, "There is no identity token in", id="missing"),
        pytest.param("not-a-jwt", "does not hold an identity token", id="not a JWT"),
        pytest.param({"exp": 1_700_000_000}, "has expired", id="expired"),
        pytest.param({"aud": "crates.io"}, "is for the audience crates.io", id="audience"),
    ],
)
def test_reading_outside_github_looks_at_the_identity_token(world: World, claims: Any, problem: str) -> None:
    token = world.github.issue(world.registry.audience, **claims) if isinstance(claims, dict) else claims
    env = world.on_gitlab(**{world.variable(): token})
    assert problem in ask(world, env, about(world, operation="read"))["Err"]["message"]


def test_outside_github_a_second_publish_goes_on_with_the_token_of_the_first(world: World) -> None:
    token = ask(world, world.on_gitlab(), about(world))["Ok"]["token"]
    env = world.on_gitlab(**{world.variable(): world.github.issue(world.registry.audience, exp=1)})
    assert "Ok" in ask(world, env, about(world, operation="read"))
    assert ask(world, env, about(world))["Ok"]["token"] == token


def test_logout_revokes_the_tokens_of_that_registry_alone(world: World, other_world: World) -> None:
    mine = ask(world, world.on_github(), about(world))["Ok"]["token"]
    env = other_world.on_github(RUNNER_TEMP=str(world.temp))
    theirs = ask(other_world, env, about(other_world))["Ok"]["token"]
    assert ask(world, world.on_github(), about(world, "logout", None)) == {"Ok": {"kind": "logout"}}
    assert world.registry.revoked == [mine]
    assert other_world.registry.alive() == {theirs}
    assert other_world.run("post", env=env).status == 0
    assert not other_world.registry.alive()


@pytest.mark.parametrize(
    ("kind", "operation"),
    [
        pytest.param("get", "dance", id="new operation"),
        pytest.param("get", None, id="no operation"),
        pytest.param("dance", None, id="new kind"),
    ],
)
def test_whatever_cargo_may_ask_for_one_day_is_not_supported(
    world: World, kind: str, operation: str | None
) -> None:
    response = ask(world, world.on_github(), about(world, kind, operation))
    assert response == {"Err": {"kind": "operation-not-supported"}}
    assert not world.registry.requests


@pytest.mark.parametrize(
    ("kind", "operation", "sentence"),
    [
        pytest.param("login", None, "`cargo login` isn't needed: ", id="login"),
        pytest.param(
            "get", "yank", "A token of trusted publishing can't be used for `cargo yank`", id="yank"
        ),
        pytest.param(
            "get", "unyank", "A token of trusted publishing can't be used for `cargo unyank`", id="unyank"
        ),
        pytest.param(
            "get", "owners", "A token of trusted publishing can't be used for `cargo owner`", id="owners"
        ),
    ],
)
def test_what_these_access_tokens_can_t_do_is_answered_with_a_sentence(
    world: World, kind: str, operation: str | None, sentence: str
) -> None:
    error = ask(world, world.on_github(), about(world, kind, operation))["Err"]
    assert error["kind"] == "other"
    assert error["message"].startswith(sentence)
    assert not world.registry.requests


@pytest.mark.parametrize(
    "index",
    [
        pytest.param("https://git.example/index", id="git"),
        pytest.param("sparse+{url}/nothing/", id="missing"),
        pytest.param("sparse+{url}/index/", id="without an API"),
    ],
)
def test_an_index_that_names_no_registry_is_left_to_the_next_provider(world: World, index: str) -> None:
    world.registry.config = {"dl": "x"}
    registry = {"index-url": index.format(url=world.registry.url), "name": "x"}
    response = ask(world, world.on_github(), about(world, registry=registry))
    assert response == {"Err": {"kind": "url-not-supported"}}


@pytest.mark.parametrize(
    "index", ["sparse+https://index.crates.io/", "https://github.com/rust-lang/crates.io-index"]
)
def test_crates_io_is_known_by_both_names_of_its_index(world: World, index: str) -> None:
    response = ask(world, world.base(), about(world, registry={"index-url": index, "name": None}))
    assert response["Err"]["kind"] == "other"
    assert response["Err"]["message"].startswith("There is no identity token in CRATES_IO_ID_TOKEN\n")


@pytest.mark.parametrize(
    ("index", "api"),
    [
        pytest.param("sparse+http://evil.example/index/", None, id="index over plain http"),
        pytest.param("sparse+https://user@evil.example/index/", None, id="index with a user"),
        pytest.param(None, "http://evil.example", id="API over plain http"),
        pytest.param(None, "https://evil.example/?x", id="API with a query"),
    ],
)
def test_index_and_api_pass_the_gate_of_every_url(world: World, index: str | None, api: str | None) -> None:
    world.registry.config = {"dl": "x", "api": api}
    registry = {"index-url": index or f"sparse+{world.registry.url}/index/"}
    response = ask(world, world.on_github(), about(world, registry=registry))
    assert "Invalid URL: " in response["Err"]["message"]
    assert not world.registry.access_tokens


@pytest.mark.parametrize("operation", ["read", "publish"])
@pytest.mark.parametrize(
    "config",
    [
        pytest.param({"api": "https://crates.io"}, id="another host"),
        pytest.param({"api": "http://127.0.0.1:1"}, id="another port"),
        pytest.param({"api": "https://7.0.0.1"}, id="end of its name"),
        pytest.param({"api": "https://crates.io", "auth-required": True}, id="token for reading"),
    ],
)
def test_an_index_can_t_have_a_token_issued_by_a_registry_elsewhere(
    world: World, config: object, operation: str
) -> None:
    world.registry.config = config
    error = ask(world, world.on_github(), about(world, operation=operation))["Err"]
    assert error["message"].startswith("The index at 127.0.0.1 belongs to a registry elsewhere, http")
    assert not world.github.identity_tokens


@pytest.mark.parametrize("code", [401, 403, 302])
def test_an_index_that_does_not_show_its_configuration_is_reported(world: World, code: int) -> None:
    world.registry.faults = [respond(code)]
    error = ask(world, world.on_github(), about(world))["Err"]
    assert error["kind"] == "other"
    assert f"HTTP {code}: " in error["message"]


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\xff\x00{{{\n", id="garbage"),
        pytest.param(b"{", id="no line end"),
        pytest.param(
            b'{"v":2,"kind":"get","operation":"publish","registry":{"index-url":"sparse+https://x/"}}\n',
            id="version 2",
        ),
        pytest.param(b'[{"v":1}]\n', id="another shape"),
        pytest.param(b'{"v":1,"kind":"get","operation":"read"}\n', id="no registry"),
        pytest.param(b"[" * 200_000 + b"\n", id="nested arrays"),
        pytest.param(b"x" * 2_000_000, id="endless line"),
    ],
)
def test_a_line_that_is_no_request_gets_an_error_that_cargo_can_show(world: World, line: bytes) -> None:
    error = ask(world, world.on_github(), line)["Err"]
    assert error["kind"] == "other"
    assert error["message"].startswith("This is not a request of version 1 of cargo's")


def test_a_refusal_tells_cargo_what_the_command_line_tells_the_user(world: World) -> None:
    world.registry.faults = [None, refuse(400, "Nope")]
    error = ask(world, world.on_gitlab(), about(world))["Err"]
    world.registry.faults = [refuse(400, "Nope")]
    result = world.run(env=world.on_gitlab())
    assert result.stderr == f"crates-io-auth: error: {error['message']}\n"


def test_a_test_token_that_can_t_be_revoked_stops_cargo_and_is_not_handed_out_later(world: World) -> None:
    world.registry.faults = [None, None, *[respond(500)] * 4]
    message = ask(world, world.on_github(), about(world, operation="read"))["Err"]["message"]
    assert message.startswith("Stopped before anything was built: the test token could not be revoked.")
    assert "Nothing was published by this command." in message
    assert "HTTP 500" in message
    (test_token,) = world.registry.alive()
    assert ask(world, world.on_github(), about(world))["Ok"]["token"] != test_token
    assert world.run("post", env=world.on_github()).status == 0
    assert not world.registry.alive()


def test_a_damaged_record_stops_no_reading_and_is_reported_by_post(world: World) -> None:
    world.record().write_text("garbage\n")
    assert "Ok" in ask(world, world.on_github(), about(world, operation="read"))
    result = world.run("post", env=world.on_github())
    assert result.status == 1
    assert f"The record {world.record()} is damaged" in result.stderr


def test_four_at_once_that_read_leave_nothing_that_is_handed_out_later(world: World) -> None:
    request = json.dumps(about(world, operation="read")).encode() + b"\n"
    processes = []
    for _ in range(4):
        process = world.start(
            "--cargo-plugin", env=world.on_github(), stdin=subprocess.PIPE, token_in_stdout='"token": "[^"]*"'
        )
        process.popen.stdin.write(request)  # type: ignore[union-attr]
        process.popen.stdin.flush()  # type: ignore[union-attr]
        processes.append(process)
    for process in processes:
        assert '{"Ok": ' in process.finish().stdout
    assert not world.registry.alive()
    assert ask(world, world.on_github(), about(world))["Ok"]["token"] in world.registry.alive()


def test_a_time_beyond_all_measure_in_the_record_is_no_reason_to_fail(world: World) -> None:
    old = record_line(registry=world.registry.url, token="old", issued_at=10**400)
    world.record().write_text(old)
    assert ask(world, world.on_github(), about(world))["Ok"]["token"] in world.registry.alive()


def test_a_token_that_cargo_does_not_take_is_revoked(world: World) -> None:
    reader, writer = os.pipe()
    process = world.start("--cargo-plugin", env=world.on_github(), stdin=subprocess.PIPE, stdout=writer)
    os.close(writer)
    assert os.read(reader, 100) == b'{"v":[1]}\n'
    os.close(reader)
    process.popen.stdin.write(json.dumps(about(world)).encode() + b"\n")  # type: ignore[union-attr]
    assert process.finish().status == 1
    assert world.registry.access_tokens
    assert not world.registry.alive()
    assert ask(world, world.on_github(), about(world))["Ok"]["token"] in world.registry.alive()


# The check


def check(
    world: World,
    crates: dict[str, str],
    arguments: tuple[str, ...] = ("--registry", "local"),
    prelude: str = "",
    **more: str | None,
) -> Result:
    """Run `check --registry local` on GitHub, in a workspace of crates with the given manifests."""
    folder = world.folder / "checked"
    if not folder.exists():
        write_workspace(folder, crates)
    env = world.on_github(**{**cargo_environment(world), **more})
    return world.run("check", *arguments, env=env, prelude=prelude, cwd=folder)


def write_workspace(folder: Path, crates: dict[str, str]) -> None:
    """Write a workspace. A manifest without a version gets 1.0.0."""
    for name, manifest in crates.items():
        (folder / name / "src").mkdir(parents=True)
        (folder / name / "src/lib.rs").write_text("")
        version = "" if "version =" in manifest.partition("[")[0] else 'version = "1.0.0"\n'
        (folder / name / "Cargo.toml").write_text(f'[package]\nname = "{name}"\n{version}{manifest}\n')
    folder.mkdir(exist_ok=True)
    (folder / "Cargo.toml").write_text(f'[workspace]\nresolver = "2"\nmembers = {json.dumps(list(crates))}\n')


def fake_cargo(world: World, version: str, metadata: str = '{"packages": []}') -> str:
    """Write a cargo that says what it is told to, and return a PATH with it alone."""
    folder = world.folder / "bin"
    folder.mkdir()
    (folder / "output").write_text(metadata)
    (folder / "cargo").write_text(
        f'#!/bin/sh\n[ "$1" = --version ] && echo "{version}" || exec /bin/cat "{folder}/output"\n'
    )
    (folder / "cargo").chmod(0o755)
    return str(folder)


@needs("cargo")
def test_check_tells_what_is_published_what_is_ready_and_how_to_publish_it(world: World) -> None:
    world.registry.add_to_index("core", "1.0.0")
    result = check(world, {"Core": "", "bb": "", "ccc": "", "d": "", "long-name": 'version = "2.0.0-rc.1"'})
    assert (result.status, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        "Core       1.0.0         already published",
        "bb         1.0.0         ready",
        "ccc        1.0.0         ready",
        "d          1.0.0         ready",
        "long-name  2.0.0-rc.1    ready",
        "",
        "`check` can't see whether a trusted publisher matches: the upload of a crate without one fails. On "
        "GitHub, the",
        "credential provider finds out before anything is built if no crate has one.",
        "",
        "To publish what is left:",
        "  cargo publish --workspace --exclude Core --registry local",
    ]
    assert result.outputs == "exclude=--exclude Core\npublish=true\n"
    assert result.summary == (
        "| Crate | Version | State |\n| --- | --- | --- |\n"
        "| `Core` | 1.0.0 | already published |\n| `bb` | 1.0.0 | ready |\n| `ccc` | 1.0.0 | ready |\n"
        "| `d` | 1.0.0 | ready |\n| `long-name` | 2.0.0-rc.1 | ready |\n\n"
    )
    first, *others = [request.path for request in world.registry.requests]
    assert first == "/index/config.json"
    paths = ("co/re/core", "2/bb", "3/c/ccc", "1/d", "lo/ng/long-name")
    assert set(others) == {f"/index/{path}" for path in paths}


@needs("cargo")
def test_check_sends_no_secret(world: World) -> None:
    result = check(world, {"alpha": "", "beta": ""}, CARGO_REGISTRIES_LOCAL_TOKEN="a-token")
    assert result.status == 0
    assert [set(request.headers) for request in world.registry.requests] == [
        {"accept-encoding", "host", "user-agent", "connection"}
    ] * 3
    assert not world.github.requests


@needs("cargo")
@pytest.mark.parametrize(
    "published, version",
    [
        pytest.param({"vers": "1.0.0", "yanked": True}, "1.0.0", id="a yanked version"),
        pytest.param({"vers": "1.0.0+built-once"}, "1.0.0+built-again", id="other build metadata"),
        pytest.param({"vers": "1.0.0"}, "1.0.0+built-again", id="build metadata in the workspace alone"),
        pytest.param({"vers": "1.0.0-rc.1+once"}, "1.0.0-rc.1", id="a pre-release"),
    ],
)
def test_check_counts_as_published(world: World, published: dict[str, object], version: str) -> None:
    world.registry.index["alpha"] = [{"name": "alpha", "vers": "0.9.0"}, {"name": "alpha", **published}]
    result = check(world, {"alpha": f'version = "{version}"'})
    assert result.stdout.endswith("already published\nNothing is left to publish.\n")
    assert (result.status, result.outputs) == (0, "exclude=--exclude alpha\npublish=false\n")


@needs("cargo")
def test_check_asks_only_about_crates_for_this_registry_and_has_cargo_leave_out_the_others(
    world: World,
) -> None:
    crates = {
        "alpha": 'publish = ["other", "local"]',
        "beta": 'publish = ["other"]',
        "gamma": "publish = false",
    }
    result = check(world, crates)
    assert [request.path for request in world.registry.requests[1:]] == ["/index/al/ph/alpha"]
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
    assert result.stdout == "No crate of this workspace may be published to this registry.\n"
    assert (result.status, result.outputs) == (0, "exclude=\npublish=false\n")


@needs("cargo")
def test_check_fails_for_a_new_crate_and_says_how_to_publish_it(world: World) -> None:
    world.registry.new_crates = {"beta"}
    world.registry.add_to_index("gamma", "1.0.0")
    result = check(world, {"alpha": "", "beta": "", "gamma": ""})
    assert result.status == 1
    assert (
        result.log
        == """\
alpha  1.0.0         ready
beta   1.0.0         new
gamma  1.0.0         already published
##[error]beta is new, and a trusted publisher can't create a crate
Publish what is left once with an ordinary API token, from this commit on your own machine:
  cargo publish --workspace --exclude gamma --registry local
Then add a trusted publisher in the settings of beta, and run this again.
##[error]Stopped before any upload: not every crate is ready
  beta 1.0.0: new
Run this again when that has changed.
"""
    )
    assert "| `beta` | 1.0.0 | new |\n" in result.summary


@needs("cargo")
def test_the_command_for_a_new_crate_publishes_it_after_what_it_depends_on(
    world: World, project: Project
) -> None:
    world.registry.new_crates = {"beta"}
    world.registry.add_to_index("alpha", "0.0.9")
    result = world.run("check", "--registry", "local", env=project.environment(), cwd=project.folder)
    (command,) = set(re.findall("^  (cargo publish .*)$", result.log, re.MULTILINE))
    own_machine = world.base(**cargo_environment(world), CARGO_REGISTRIES_LOCAL_TOKEN=ORDINARY_TOKEN)
    arguments = [*command.split(), "--allow-dirty", "--no-verify"]
    assert world.run_command(arguments, own_machine, cwd=project.folder).status == 0
    assert world.registry.published() == ["alpha", "beta", "gamma"]


@needs("cargo")
def test_check_says_once_if_the_index_can_t_be_reached(world: World) -> None:
    world.registry.config = None
    world.registry.index_faults = {"config.json": respond(503)}
    result = check(world, {"alpha": "", "beta": ""}, prelude=IMPATIENT)
    assert (result.status, result.stdout, result.outputs) == (1, "", "")
    error = "##[error]Couldn't get a valid response from 127.0.0.1 (attempt 4 of 4): HTTP 503: \n"
    assert result.log.count("No valid response from ") == 3
    assert error in result.log


@needs("cargo")
@pytest.mark.parametrize(
    ("config", "error"),
    [
        pytest.param(respond(401), "The index at 127.0.0.1 needs a token for reading", id="401"),
        pytest.param(respond(403), "The index at 127.0.0.1 needs a token for reading", id="403"),
        pytest.param(
            respond(200, {"auth-required": True}), "The index at 127.0.0.1 needs a token", id="auth-required"
        ),
        pytest.param(
            respond(404),
            "Couldn't read the configuration of the index at 127.0.0.1: HTTP 404",
            id="no configuration",
        ),
    ],
)
def test_check_says_if_it_can_t_read_the_index(world: World, config: Fault, error: str) -> None:
    world.registry.config = None
    world.registry.index_faults = {"config.json": config}
    result = check(world, {"alpha": ""})
    assert (result.status, result.stdout, result.outputs) == (1, "", "")
    assert result.log.startswith(f"##[error]{error}")
    assert len(world.registry.requests) == 1


INDEX_FAULTS: dict[str, tuple[Fault, str]] = {
    "gone": (respond(410), "new"),
    "blocked": (respond(451), "new"),
    "secured": (respond(401), "unknown: HTTP 401: "),
    "denied": (refuse(403, "no"), "unknown: HTTP 403: no"),
    "failing": (refuse(500, "oh | <b>"), "(attempt 4 of 4): HTTP 500: oh | <b>"),
    "reset": (reset, "(attempt 4 of 4): "),
    "moved": (respond(302, Location="http://elsewhere"), "HTTP 302: redirects to http://elsewhere"),
    "portal": (respond(200, b"<html>Log in</html>"), "unknown: HTTP 200: not the expected body"),
    "teapot": (respond(418, b'{"vers": "0.1.0"}'), 'unknown: HTTP 418: {"vers": "0.1.0"}'),
    "unwritable": (refuse(500, "\u2192"), "HTTP 500: \\u2192"),
    "empty": (respond(200), "unknown: HTTP 200: not the expected body"),
    "list": (respond(200, b'["vers"]'), "unknown: HTTP 200: not the expected body"),
    "number": (respond(200, b'{"vers": 1}'), "unknown: HTTP 200: not the expected body"),
    "another": (
        respond(200, b'{"name": "serde", "vers": "1.0.0"}'),
        "unknown: HTTP 200: not the expected body",
    ),
    "unversioned": (
        respond(200, b'{"name": "unversioned", "vers": ""}'),
        "unknown: HTTP 200: not the expected body",
    ),
    "partial": (
        respond(206, b'{"name": "partial", "vers": "0.1.0"}'),
        "unknown: HTTP 206: not the expected body",
    ),
    "no-length": (
        send_bytes(b'HTTP/1.1 200 OK\r\n\r\n{"name": "no-length", "vers": "0.1.0"}\n'),
        "unknown: HTTP 200: not the expected body",
    ),
    "odd-length": (
        send_bytes(
            b'HTTP/1.1 200 OK\r\nContent-Length: 90, 90\r\n\r\n{"name": "odd-length", "vers": "0.1.0"}\n'
        ),
        "unknown: HTTP 200: not the expected body",
    ),
    "line-breaks": (
        respond(200, b'{"name": "line-breaks", "vers": "0.1.0"}' + b"\n" * 10**6 + b"x"),
        "unknown: HTTP 200: not the expected body",
    ),
    "lost-end": (
        send_bytes(b'HTTP/1.1 200 OK\r\nContent-Length: 60\r\n\r\n{"vers": "0.1.0"}\n'),
        "(attempt 4 of 4): the response is cut off or too long",
    ),
    "too-long": (
        respond(200, b'{"vers": "0.1.0"}\n' + b" " * (2**24 - 19) + b'\n{"vers": "1.0.0"}'),
        "(attempt 4 of 4): the response is cut off or too long",
    ),
    "cut-off": (
        respond(200, b'{"vers": "0.1.0"}\n' + b'{"vers": "1.0.0", "x": "%s"}' % (b"x" * 17 * 2**20)),
        "(attempt 4 of 4): the response is cut off or too long",
    ),
    "hostile": (refuse(500, "\n::error::owned \x1b[31m"), "HTTP 500: ::error::owned ?[31m"),
}


@needs("cargo")
def test_check_says_which_crates_it_could_not_find_out_about_and_why(world: World) -> None:
    world.registry.index_faults = {name: fault for name, (fault, _) in INDEX_FAULTS.items()}
    prelude = IMPATIENT + "sys.stdout.reconfigure(encoding='latin-1')"  # as on Windows
    result = check(world, {"alpha": "", **dict.fromkeys(INDEX_FAULTS, "")}, prelude=prelude)
    assert result.status == 1
    lines = {line.split()[0]: line for line in result.stdout.split("\n\n")[0].splitlines()}
    assert lines["alpha"].endswith("  ready")
    for name, (_, state) in INDEX_FAULTS.items():
        assert state in lines[name]
        assert f"\n  {name} 1.0.0: " in result.log
    assert "| `failing` | 1.0.0 | unknown |\n" in result.summary
    assert not re.search("^::error::", result.stdout + result.stderr, flags=re.MULTILINE)


@needs("cargo")
def test_check_asks_about_several_crates_at_a_time(world: World) -> None:
    crates = [f"crate-{number}" for number in range(8)]
    together = threading.Barrier(len(crates))

    def wait_for_the_others(handler: Handler) -> None:
        together.wait(20)
        handler.respond(200, {"name": handler.path.rpartition("/")[2], "vers": "0.1.0"})

    world.registry.index_faults = dict.fromkeys(crates, wait_for_the_others)
    assert check(world, dict.fromkeys(crates, "")).stdout.count("  ready\n") == 8


@on_posix
@needs("cargo")
def test_a_cancelled_check_does_not_wait_for_responses(world: World) -> None:
    world.registry.index_faults = {"alpha": never_respond}
    write_workspace(world.folder / "checked", {"alpha": ""})
    env = world.on_github(**cargo_environment(world))
    process = world.start("check", "--registry", "local", env=env, cwd=world.folder / "checked")
    wait_until(lambda: world.registry.requests)
    process.popen.terminate()
    assert process.finish(seconds=15).status == 1


@needs("cargo")
@pytest.mark.parametrize(
    "index",
    [
        pytest.param(None, id="missing"),
        pytest.param("https://127.0.0.1/index", id="of a git repository"),
        pytest.param("sparse+ftp://127.0.0.1/index", id="of another scheme"),
        pytest.param("sparse+http://example.com/", id="of plain http"),
    ],
)
def test_check_names_the_variable_if_the_index_is(world: World, index: str | None) -> None:
    result = check(world, {"alpha": ""}, CARGO_REGISTRIES_LOCAL_INDEX=index)
    assert (result.status, result.stdout, world.registry.requests) == (1, "", [])
    assert "##[error]CARGO_REGISTRIES_LOCAL_INDEX does not hold the URL of a sparse index\n" in result.log


@needs("cargo")
def test_check_asks_crates_io_s_own_index_and_links_its_crates(world: World) -> None:
    write_workspace(world.folder / "checked", {})
    write_workspace(world.folder / "a folder", {"alpha": ""})
    prelude = "assert script.CRATES_IO_INDEXES[0] == 'sparse+https://index.crates.io/'\n"
    prelude += f"script.CRATES_IO_INDEXES = ['sparse+{world.registry.url}/index/']"
    arguments = ("--registry=", "--manifest-path", str(world.folder / "a folder/Cargo.toml"))
    result = check(world, {}, arguments, prelude)  # an empty input is the default, as in the other action
    command = f"cargo publish --workspace --manifest-path '{world.folder}/a folder/Cargo.toml'"
    assert result.stdout.endswith(f"\n  {command}\n")
    assert "| [`alpha`](https://crates.io/crates/alpha) | 1.0.0 | ready |\n" in result.summary


def test_check_says_if_cargo_is_missing(world: World) -> None:
    write_workspace(world.folder / "checked", {})
    result = check(world, {}, PATH=str(world.folder))
    assert result.status == 1
    assert "##[error]Couldn't run cargo: " in result.log


@needs("cargo")
def test_check_shows_what_cargo_says_if_it_fails(world: World) -> None:
    result = check(world, {}, ("--manifest-path", "elsewhere/Cargo.toml"))
    assert (result.status, result.outputs) == (1, "")
    assert "--manifest-path=elsewhere/Cargo.toml` failed\n  error: manifest path `elsewhere" in result.log


@on_posix
@pytest.mark.parametrize(
    "version, metadata, error",
    [
        pytest.param(
            "cargo 1.73.9 (1a2b 2023-01-01)",
            "",
            "`check` needs cargo 1.74 or later, and this is cargo 1.73.9 (1a2b 2023-01-01)",
            id="an old cargo",
        ),
        pytest.param("something else", "", "1.74 or later, and this is something else", id="another program"),
        pytest.param(
            "cargo 1.90.0",
            "warning: {",
            "`cargo metadata` failed\n  It printed no list of packages.",
            id="no JSON",
        ),
        pytest.param(
            "cargo 1.90.0",
            r'{"packages": [{"name": "x\n::error::y", "version": "1.0.0", "publish": null}]}',
            "No registry accepts the crate x ::error::y 1.0.0",
            id="a hostile name",
        ),
        pytest.param(
            "cargo 1.90.0",
            r'{"packages": [{"name": "x", "version": "1.0 --registry=y", "publish": null}]}',
            "No registry accepts the crate x 1.0 --registry=y",
            id="a hostile version",
        ),
    ],
)
def test_check_fails_for(world: World, version: str, metadata: str, error: str) -> None:
    write_workspace(world.folder / "checked", {})
    result = check(world, {}, PATH=fake_cargo(world, version, metadata))
    assert (result.status, result.stdout, result.outputs) == (1, "", "")
    assert error in result.log
    assert not re.search("^::error::", result.stderr, flags=re.MULTILINE)


@on_posix
def test_the_command_that_check_prints_is_whole(world: World) -> None:
    write_workspace(world.folder / "checked", {})
    names = [f"crate-{number}" for number in range(40)]
    for name in names[1:]:
        world.registry.add_to_index(name, "1.0.0")
    packages = [{"name": name, "version": "1.0.0", "publish": None} for name in names]
    cargo = fake_cargo(world, "cargo 1.95.0", json.dumps({"packages": packages}))
    path = "/home/ci/@scope/a  folder/Cargo.toml"
    result = check(world, {}, ("--registry", "local", "--manifest-path", path), PATH=cargo)
    excluded = " ".join(f"--exclude {name}" for name in names[1:])
    command = f"cargo publish --workspace {excluded} --registry local --manifest-path '{path}'"
    assert result.stdout.endswith(f"\nTo publish what is left:\n  {command}\n")


@needs("cargo")
def test_what_cargo_says_stays_text(world: World) -> None:
    folder = world.folder / "checked"
    write_workspace(folder, {"alpha": ""})
    name = "a\\n```\\n[click](https://evil.example)\\n::error::owned\\n##[error]owned"
    (folder / "alpha/Cargo.toml").write_text(f'[package]\nname = "{name}"\nversion = "1.0.0"\n')
    result = check(world, {})
    assert result.status == 1
    assert "click" in result.summary
    assert_harmless(result)


@on_posix
def test_check_says_if_cargo_can_not_publish_a_workspace_at_once(world: World) -> None:
    write_workspace(world.folder / "checked", {})
    metadata = '{"packages": [{"name": "x", "version": "1.0.0", "publish": null}]}'
    result = check(world, {}, PATH=fake_cargo(world, "cargo 1.89.0 (1a2b 2025-01-01)", metadata))
    assert result.status == 0
    advice = "cargo publish -p <crate>, dependencies first (--workspace needs cargo 1.90)"
    assert result.stdout.endswith(f"\nTo publish what is left:\n  {advice}\n")


@on_posix
@needs("cargo")
@needs("bash")
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
    assert "Nothing is left to publish.\n" in checked.stdout


# The action and its hook


def composite_steps(folder: Path = HERE) -> list[str]:
    """Return the steps of an action, as they stand in its action.yml."""
    return (folder / "action.yml").read_text().partition("  steps:\n")[2].split("    - ")[1:]


def action_command(folder: Path = HERE) -> str:
    """Return the command line of an action's last step."""
    (command,) = re.findall(r"^      run: (.+)$", composite_steps(folder)[-1], flags=re.MULTILINE)
    return str(command)


def run_step(world: World, action: Path, cwd: Path, **changes: str | None) -> Result:
    """Run an action's own command line the way the runner does for `shell: bash`."""
    step = world.folder / "step.sh"
    step.write_text(action_command(action))
    bash = ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", str(step)]
    return world.run_command(bash, world.on_github(GITHUB_ACTION_PATH=str(action), **changes), cwd=cwd)


def run_action(world: World, **changes: str | None) -> Result:
    return run_step(world, HERE, world.folder, **changes)


@on_posix
@needs("bash")
def test_the_action_s_own_command_line_gets_a_token(world: World) -> None:
    assert run_action(world).token in world.registry.alive()


def plant_modules(folder: Path) -> None:
    """Put modules into a folder that leave a file if they are imported."""
    for name in ("json", "sitecustomize", "usercustomize", "urllib"):
        (folder / f"{name}.py").write_text("open('was-here', 'w'); raise SystemExit('hostile')")


@on_posix
@needs("bash")
def test_the_action_s_command_line_runs_no_code_of_the_workspace(world: World) -> None:
    plant_modules(world.folder)
    result = run_action(world, PYTHONPATH=str(world.folder), PYTHONSTARTUP=str(world.folder / "json.py"))
    assert result.status == 0
    assert not (world.folder / "was-here").exists()


each_action = pytest.mark.parametrize(
    "folder", [pytest.param(HERE, id="action.yml"), pytest.param(HERE / "check", id="check/action.yml")]
)


@each_action
def test_the_action_s_process_gets_the_runner_s_signals_itself(folder: Path) -> None:
    assert action_command(folder).startswith("exec python3 -I -S ")


def test_the_action_schedules_the_revocation_before_it_asks_for_a_token() -> None:
    first, second = composite_steps()
    assert "uses: $/post\n" in first
    assert "crates_io_auth.py" in second


@each_action
def test_the_action_puts_no_expression_into_a_command_line(folder: Path) -> None:
    assert "${{" not in action_command(folder)


def run_hook(world: World, phase: str, **changes: str | None) -> Result:
    """Run main or post of the JavaScript action with the real node."""
    (name,) = re.findall(rf"^  {phase}: (.+)$", (HERE / "post/action.yml").read_text(), flags=re.MULTILINE)
    node = str(shutil.which("node"))  # by its path: a test may take PATH away
    return world.run_command([node, str(HERE / "post" / name)], world.on_github(**changes))


@on_posix
@needs("node")
@needs("bash")
def test_the_post_hook_revokes_what_the_action_got(world: World) -> None:
    started = run_hook(world, "main")
    assert (started.status, started.stdout, started.stderr) == (0, "", "")
    run_action(world)
    ended = run_hook(world, "post")
    assert ended.status == 0
    assert world.anonymous(ended.log) == "crates-io-auth: Revoked 1 access token.\n"
    assert not world.registry.alive()


@on_posix
@needs("node")
def test_the_post_hook_warns_of_a_failure_and_leaves_the_result_of_the_job_alone(world: World) -> None:
    hold_tokens(world, 1)
    world.registry.faults = [refuse(403, "Not now")]
    result = run_hook(world, "post")
    assert result.status == 0
    assert result.log.startswith("##[warning]Couldn't revoke an access token\n")


@on_posix
@needs("node")
def test_the_post_hook_reports_a_record_that_was_tampered_with_as_an_error(world: World) -> None:
    world.record().write_text("garbage\n")
    result = run_hook(world, "post")
    assert result.status == 0
    assert result.log.startswith("##[error]The record ")


@on_posix
@needs("node")
def test_the_post_hook_warns_if_the_record_is_missing(world: World) -> None:
    run_action(world)
    world.record().unlink()
    result = run_hook(world, "post")
    assert result.status == 0
    assert result.log.startswith(f"##[warning]The record of this job, {world.record()}, is missing\n")
    assert "expires by itself" in result.log


@on_posix
@needs("node")
def test_the_post_hook_runs_the_python_that_the_main_hook_found(world: World) -> None:
    hold_tokens(world, 1)
    state = world.folder / "state"
    run_hook(world, "main", GITHUB_STATE=str(state))
    name, _, value = state.read_text().strip().partition("=")  # the runner replaces any STATE_python with it
    run_hook(world, "post", PATH=str(world.folder), **{f"STATE_{name}": value})
    assert not world.registry.alive()


@on_posix
@needs("node")
@pytest.mark.parametrize("phase", ["main", "post"])
def test_the_hook_takes_python_from_the_absolute_folders_of_path_alone(world: World, phase: str) -> None:
    planted = world.folder / "python3"
    planted.write_text("#!/bin/sh\ntouch was-here\n")
    planted.chmod(0o755)
    path = os.pathsep.join([".", "", os.environ["PATH"]])
    world.record().touch()
    assert run_hook(world, phase, PATH=path).status == 0
    assert not list(world.folder.glob("was-here")) + list((HERE / "post").glob("was-here"))


@on_posix
@needs("node")
def test_the_hook_passes_over_a_python_that_can_t_be_executed(world: World) -> None:
    (world.folder / "python3").write_text("")
    (world.folder / "loop").symlink_to("loop")
    path = os.pathsep.join([str(world.folder), str(world.folder / "loop"), world.base()["PATH"]])
    state = world.folder / "state"
    assert run_hook(world, "main", PATH=path, GITHUB_STATE=str(state)).status == 0
    assert state.read_text().startswith("python=/")


@needs("node")
def test_without_python_the_main_hook_says_so_before_a_token_is_asked_for(world: World) -> None:
    result = run_hook(world, "main", PATH=str(world.folder))
    assert result.status == 1
    assert result.log.startswith("##[error]crates-io-auth needs python3, version 3.8 or newer,")
    assert "Install it" in result.log


@on_posix
@needs("node")
def test_with_a_python_that_is_too_old_the_main_hook_says_so(world: World) -> None:
    old = world.folder / "python3"
    real = shlex.quote(sys.executable)
    old.write_text(  # the real one, which says that it is 3.7
        f'#!/bin/sh\nexec {real} -I -S -c "import sys; sys.version_info = (3, 7, 99)\n$4"\n'
    )
    old.chmod(0o755)
    result = run_hook(world, "main", PATH=str(world.folder))
    assert result.status == 1
    assert result.log.startswith("##[error]crates-io-auth needs python3, version 3.8 or newer,")


@needs("node")
def test_where_the_main_hook_has_found_no_python_the_post_hook_has_nothing_to_say(world: World) -> None:
    state = world.folder / "state"
    run_hook(world, "main", PATH=str(world.folder), GITHUB_STATE=str(state))
    name, _, value = state.read_text().strip().partition("=")
    result = run_hook(world, "post", PATH=str(world.folder), **{f"STATE_{name}": value})
    assert (result.status, result.stdout, result.stderr) == (0, "", "")


@needs("node")
def test_without_python_the_post_hook_warns(world: World) -> None:
    result = run_hook(world, "post", PATH=str(world.folder))
    assert result.status == 0
    assert result.log.startswith(
        "##[warning]crates-io-auth couldn't run python3 to its end (ENOENT), so an access token may be left."
    )


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
    subprocess.run([sys.executable, __file__, "examples", str(folder)], check=True)
    assert len(list(folder.glob("gitlab-*.yml"))) == 3
    workflows = [path.read_text(encoding="utf-8") for path in (folder / ".github/workflows").iterdir()]
    assert len(workflows) == len(examples()) - 3
    for workflow in workflows:
        keys = re.findall("^([a-z]+):", workflow, re.MULTILINE)
        assert sorted(set(keys) - {"name"}) == ["jobs", "on", "permissions"]


@on_posix
@needs("cargo")
@needs("bash")
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
    assert run_job("3").stdout.endswith("Nothing is left to publish.\n")


def test_troubleshooting_has_every_message() -> None:
    documented = (HERE / "docs/troubleshooting.md").read_text(encoding="utf-8")
    cells = re.findall(r"^\| (.+?) \|", documented, re.MULTILINE)
    patterns = [".*".join(map(re.escape, cell.replace("`", "").split("…"))) for cell in cells]
    messages = {
        name: value.replace("`", "").strip().partition("\n")[0]
        for name, value in vars(script).items()
        if name.isupper() and isinstance(value, str) and re.search(r"\n|\{[a-z]+\}", value)
    }
    for name in ("main.js", "post.js"):
        (message,) = re.findall("::crates-io-auth (.+)", (HERE / "post" / name).read_text())
        messages[name] = f"crates-io-auth {message}"
    for name in ("ISSUED_ELSEWHERE", "ISSUED_ON_GITHUB", "PROVIDER_SET_UP", "ABOUT_READY", "EPILOG"):
        del messages[name]  # none of them is about a problem
    for name, first_line in messages.items():
        text = re.sub(r"\{[a-z]+\}", "x", first_line)
        assert any(re.match(pattern, text) for pattern in patterns), f"{name}: {first_line}"


# The project's own workflows, and the demo


class ServedFakes(NamedTuple):
    """The fakes that `serve` runs in a process of their own, and what that has printed."""

    url: str
    settings: str


@pytest.fixture
def served(world: World) -> ServedFakes:
    command = [sys.executable, str(Path(__file__).resolve()), "serve", "0", "--no-publisher", "beta"]
    process = world.start_command([*command, "--new", "gamma"], world.base())
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
@needs("node")
@needs("bash")
def test_the_served_fakes_tell_whether_a_token_is_alive(world: World, served: ServedFakes) -> None:
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
@needs("curl")
@needs("bash")
def test_the_served_fakes_make_a_shell_a_gitlab_job(world: World, served: ServedFakes) -> None:
    command = f'test "$({RUN})" && {RUN} post'
    result = pasted(world, served.settings, "A GitLab job", command)
    assert result.status == 0
    assert json.loads(get(f"{served.url}/tokens")[1]) == {"issued": 1, "alive": 0}


@on_posix
@needs("cargo")
@needs("bash")
def test_the_served_fakes_refuse_the_crates_that_they_are_told_to(
    world: World, served: ServedFakes, project: Project
) -> None:
    github = served.settings.partition("A step of a GitHub job:\n")[2].partition("\n\n")[0]
    publish = "cargo publish --registry local --no-verify --allow-dirty --package"
    command = f"{github}\ncd {project.folder}; {publish} alpha; ! {publish} beta; ! {publish} gamma"
    result = pasted(world, served.settings, "A user of cargo", command)
    assert result.status == 0, result
    assert "The provided access token is not valid for crate `beta`" in result.stderr
    assert get(f"{served.url}/index/ga/mm/gamma")[0] == 404
    assert get(f"{served.url}/dl/alpha/0.1.0/download")[0] == 200


def run_demo(world: World, **changes: str | None) -> Result:
    return world.run_command([sys.executable, str(Path(__file__).resolve())], world.base(**changes))


def test_without_cargo_the_demo_leaves_its_second_scene_out_and_says_why(world: World) -> None:
    result = run_demo(world, PATH=os.path.dirname(sys.executable))
    assert result.status == 0, result
    assert result.stdout.startswith("A fake GitHub and a fake registry")
    assert "The second scene is left out: " in result.stdout
    assert re.findall(r"access tokens alive: ([0-9]+)", result.stdout) == ["1", "0"]


@on_posix
@needs("cargo")
@needs("bash")
def test_the_demo_shows_cargo_at_work(world: World) -> None:
    result = run_demo(world, HOME=os.environ.get("HOME"), RUSTUP_HOME=os.environ.get("RUSTUP_HOME"))
    assert result.status == 0, result
    assert "crates published: alpha, beta\n" in result.stdout
    assert "tokens that the build scripts saw: 0\n" in result.stdout
    assert re.findall(r"access tokens alive: ([0-9]+)", result.stdout) == ["1", "0"] * 2


def test_demo_and_fakes_need_no_pytest(world: World) -> None:
    without = "import runpy, sys; sys.modules['pytest'] = None; sys.path.insert(0, sys.argv[1])"
    command = (
        f"{without}; sys.argv[1:] = ['--help']; runpy.run_path({str(Path(__file__))!r}, run_name='__main__')"
    )
    result = world.run_command([sys.executable, "-c", command, str(HERE)], world.base())
    assert result.status == 0, result
    assert "serve" in result.stdout


# The end of the request that was started at the beginning


def test_a_request_that_takes_30_seconds_is_given_up_and_retried(slow_request: SlowRequest) -> None:
    result = slow_request.process.finish()
    assert result.status == 0
    assert "no response within 30 s. Retrying" in result.log
    assert result.token in slow_request.world.registry.alive()
    assert time.monotonic() - slow_request.started >= 30


# The demo, and the fakes alone


def demo() -> int:
    """Show the script at work, as a workflow's log would show it."""
    print("A fake GitHub and a fake registry listen on this machine. Nothing else is contacted.\n")
    scenes = [scene_of_an_output]
    if sys.platform == "win32":
        print("The second scene is left out: credential-provider needs Linux or macOS.\n")
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
    seen = "".join(project.seen_by_build_scripts())
    print(f"\n  crates published: {', '.join(world.registry.published())}")
    print(
        f"  tokens that the build scripts saw: {sum(token in seen for token in world.registry.access_tokens)}"
    )
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
  export GITHUB_STATE={folder}/state GITHUB_STEP_SUMMARY={folder}/summary
  export ACTIONS_ID_TOKEN_REQUEST_URL='{url}/identity?api-version=2.0'
  export ACTIONS_ID_TOKEN_REQUEST_TOKEN={request_token}
  export INPUT_URL={url}

A GitLab job, a new one each time:
  export CI_JOB_ID=$RANDOM {variable}="$(curl -s {url}/gitlab-identity)"
  export INPUT_URL={url}

A user of cargo, in either of them, for `cargo publish --registry local`:
  export CARGO_REGISTRIES_LOCAL_INDEX=sparse+{url}/index/
  export CARGO_REGISTRIES_LOCAL_CREDENTIAL_PROVIDER={script}

How many access tokens are alive:
  curl {url}/tokens
"""


def serve(port: int, new_crates: list[str], without_publisher: list[str]) -> int:
    """Be GitHub and a registry until killed."""
    fakes = FakeGitHubAndRegistry(port)
    fakes.new_crates.update(new_crates)
    fakes.without_publisher.update(without_publisher)
    folder = tempfile.mkdtemp(prefix="crates-io-auth-job-")
    for name in ("output", "env", "state", "summary"):
        Path(folder, name).touch()
    settings = {"url": fakes.url, "variable": variable_of(fakes.audience), "folder": folder}
    print(SETTINGS.format(**settings, request_token=REQUEST_TOKEN, script=SCRIPT), flush=True)
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
    examples_parser = commands.add_parser("examples", help="write the documentation's YAML into files")
    examples_parser.add_argument("folder", type=Path)
    options = parser.parse_args(arguments)
    if options.command == "examples":
        return write_examples(options.folder)
    if options.command == "serve":
        return serve(options.port, options.new, options.no_publisher)
    return demo()


if __name__ == "__main__":
    sys.exit(run_without_pytest(sys.argv[1:]))
