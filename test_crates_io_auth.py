"""The tests of crates_io_auth.py, and, run by itself, its demo.

    python3 test_crates_io_auth.py              the demo: the script at work, against a fake GitHub and a
                                                fake registry
    python3 test_crates_io_auth.py serve PORT   the fakes alone, for a workflow that uses the action
    python -m pytest                            the tests

Everything runs the shipped file as a process, over real sockets. The fakes behave as the real ones do:
each identity token is new, single-use and made for one audience; the registry asks for a User-Agent,
checks the form of access tokens, and answers 204 to a revocation.
"""

from __future__ import annotations

import base64
import concurrent.futures
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
import ssl
import stat
import string
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
from pathlib import Path
from typing import Any, Callable, Iterator, NamedTuple, TypeVar

Test = TypeVar("Test", bound=Callable[..., None])

HERE = Path(__file__).resolve().parent
SCRIPT = HERE / "crates_io_auth.py"
TOKENS = "/api/v1/trusted_publishing/tokens"
REQUEST_TOKEN = "github-request-token-0123456789"

# Made for these tests alone: a certificate of this machine, and its key.
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


class Proxy(http.server.ThreadingHTTPServer):
    """A proxy for https that notes what it is asked for, and may lead elsewhere."""

    daemon_threads = True

    def __init__(self, target: Fake | None = None) -> None:
        super().__init__(("127.0.0.1", 0), ProxyHandler)
        self.target = target.authority if target else None
        self.tunnels: list[str] = []
        self.requests: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self.shutdown()
        self.server_close()


class ProxyHandler(http.server.BaseHTTPRequestHandler):
    """Joins the two ends of a tunnel."""

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
            back = threading.Thread(target=pump, args=(there, self.connection))
            back.start()
            pump(self.connection, there)
            back.join()

    def log_message(self, *_: object) -> None:
        """The tests look at `tunnels` instead."""


def pump(source: socket.socket, sink: socket.socket) -> None:
    """Pass on whatever comes until the end."""
    with contextlib.suppress(OSError):
        while True:
            data = source.recv(65536)
            if not data:
                sink.shutdown(socket.SHUT_WR)
                return
            sink.sendall(data)


class Request(NamedTuple):
    """What reached a fake."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Fake(http.server.ThreadingHTTPServer):
    """A server on loopback that first runs through its `faults`, then behaves."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, pem: Path | None = None, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.context: ssl.SSLContext | None = None
        if pem:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.context.load_cert_chain(pem)
        self.lock = threading.RLock()
        self.requests: list[Request] = []
        self.faults: list[Callable[[Handler], None] | None] = []
        self.authority = f"127.0.0.1:{self.server_port}"
        self.url = f"{'https' if pem else 'http'}://{self.authority}"
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Shake hands in the thread of the request, so that a client that hangs stops no other."""
        if self.context:
            request = self.context.wrap_socket(request, server_side=True)
        super().finish_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients of this server hang up as part of the tests."""

    def behave(self, handler: Handler) -> None:
        """Answer as the real one does."""
        raise NotImplementedError


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers a request with the server's next fault, or as it behaves."""

    protocol_version = "HTTP/1.1"
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

    do_POST = do_PUT = do_DELETE = do_CONNECT = do_GET

    def answer(self, status: int, body: object = b"", **headers: str) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content_Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)

    def refuse(self, status: int, detail: str) -> None:
        self.answer(status, {"errors": [{"detail": detail}]}, Content_Type="application/json")

    def log_message(self, *_: object) -> None:
        """The tests look at `requests` instead."""


class FakeGitHub(Fake):
    """The endpoint for identity tokens, as a job with `id-token: write` sees it."""

    def __init__(self, pem: Path | None = None) -> None:
        super().__init__(pem)
        self.issued: list[str] = []
        self.claims: dict[str, object] = {
            "repository": "octo/crate",
            "workflow_ref": "octo/crate/.github/workflows/release.yml@refs/tags/v1",
            "environment": "release",
            "ref": "refs/tags/v1",
            "event_name": "push",
        }

    def behave(self, handler: Handler) -> None:
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(handler.path).query)
        if handler.headers["Authorization"] != f"Bearer {REQUEST_TOKEN}":
            handler.answer(401)
        else:
            token = self.issue(query["audience"][0], **self.claims)
            handler.answer(200, {"count": 1, "value": token})

    def issue(self, audience: str, **claims: object) -> str:
        """Make an identity token: a JWT in form, each with its own `jti`."""
        payload = {"aud": audience, "jti": os.urandom(16).hex(), "exp": int(time.time()) + 300, **claims}
        parts = [json.dumps({"alg": "RS256"}), json.dumps(payload), os.urandom(64).hex()]
        token = ".".join(base64.urlsafe_b64encode(part.encode()).decode().rstrip("=") for part in parts)
        with self.lock:
            self.issued.append(token)
        return token


class FakeRegistry(Fake):
    """A registry with trusted publishing."""

    def __init__(self, pem: Path | None = None, port: int = 0) -> None:
        super().__init__(pem, port)
        self.audience = self.authority
        self.used: set[str] = set()
        self.minted: list[str] = []
        self.revoked: list[str] = []
        self.config: object = {"dl": f"{self.url}/dl", "api": self.url}
        self.published: dict[str, str] = {}

    def live(self) -> set[str]:
        """Return the access tokens that still work."""
        with self.lock:
            return set(self.minted) - set(self.revoked)

    def behave(self, handler: Handler) -> None:
        if not handler.headers.get("User-Agent"):
            handler.answer(403, b"We require that all requests include a `User-Agent` header.")
        elif handler.path.startswith("/index/"):
            self.index(handler)
        elif (handler.command, handler.path) == ("PUT", "/api/v1/crates/new"):
            self.publish(handler)
        elif (handler.command, handler.path) == ("GET", "/api/v1/me"):
            alive = handler.headers["Authorization"] in self.live()
            handler.answer(200, {}) if alive else handler.refuse(403, "authentication failed")
        elif not handler.path.endswith(TOKENS):
            handler.refuse(404, "Not Found")
        elif handler.command == "POST":
            self.exchange(handler)
        elif handler.command == "DELETE":
            self.revoke(handler)
        else:
            handler.refuse(405, "Method Not Allowed")

    def index(self, handler: Handler) -> None:
        """Answer as a sparse index does."""
        name = handler.path.rpartition("/")[2]
        if name == "config.json" and self.config is not None:
            handler.answer(200, self.config)
        elif name in self.published:
            handler.answer(200, self.published[name].encode())
        else:
            handler.answer(404)

    def publish(self, handler: Handler) -> None:
        """Take a crate from whoever has a live access token."""
        if handler.headers["Authorization"] not in self.live():
            return handler.refuse(403, "authentication failed")
        body = handler.request_read.body
        (size,) = struct.unpack_from("<I", body)
        crate = json.loads(body[4 : 4 + size])
        line = {
            "name": crate["name"],
            "vers": crate["vers"],
            "cksum": hashlib.sha256(body[8 + size :]).hexdigest(),
            "deps": [{**dep, "req": dep["version_req"], "registry": None} for dep in crate["deps"]],
            "features": {},
            "yanked": False,
        }
        self.published[crate["name"]] = json.dumps(line) + "\n"
        handler.answer(200, {"warnings": {"invalid_categories": [], "invalid_badges": [], "other": []}})

    def exchange(self, handler: Handler) -> None:
        if handler.headers["Content-Type"] != "application/json":
            return handler.refuse(415, "Expected request with `Content-Type: application/json`")
        payload = json.loads(handler.request_read.body)["jwt"].split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
        with self.lock:
            if claims["aud"] != self.audience:
                return handler.refuse(400, "Failed to decode JWT")
            if claims["jti"] in self.used:
                return handler.refuse(400, "JWT has already been used")
            self.used.add(claims["jti"])
            token = new_access_token()
            self.minted.append(token)
        handler.answer(200, {"token": token})

    def revoke(self, handler: Handler) -> None:
        scheme, _, token = handler.headers.get("Authorization", "").partition(" ")
        if scheme != "Bearer" or not is_access_token(token):
            return handler.refuse(401, "Invalid `Authorization` header: Failed to parse token")
        with self.lock:
            self.revoked.append(token)
        handler.answer(204)


class FakeOfBoth(FakeRegistry):
    """A registry and GitHub's endpoint on one port, which also says how many access tokens are alive."""

    def __init__(self, port: int) -> None:
        super().__init__(port=port)
        self.github = FakeGitHub()

    def behave(self, handler: Handler) -> None:
        if handler.path.startswith("/identity?"):
            self.github.behave(handler)
        elif handler.path == "/tokens":
            handler.answer(200, {"minted": len(self.minted), "alive": len(self.live())})
        else:
            super().behave(handler)


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


# The world of a test: a GitHub, a registry, folders, and the processes that run in it


class Result(NamedTuple):
    """What a process left for the user, the runner and the shell."""

    status: int
    stdout: str
    stderr: str
    outputs: str
    summary: str

    @property
    def token(self) -> str:
        """The access token that was handed over."""
        match = re.fullmatch(r"token=(\S+)\n", self.outputs) or re.fullmatch(r"(\S+)\n", self.stdout)
        assert match, self
        return match[1]


class World:
    """A GitHub, a registry and the folders of one job. Closing it closes them."""

    def __init__(self, folder: Path, tls: bool = False) -> None:
        self.folder = folder
        self.temp = folder / "runner temp"
        self.temp.mkdir(parents=True)
        self.pem = folder / "tls.pem"  # far quicker to load than the bundle of the system
        self.pem.write_text(TLS_PEM)
        self.github = FakeGitHub(self.pem if tls else None)
        self.registry = FakeRegistry(self.pem if tls else None)
        self.processes: list[Process] = []

    def close(self) -> None:
        for process in self.processes:
            if process.popen.poll() is None:
                process.popen.kill()
                process.finish()
        for fake in (self.github, self.registry):
            fake.shutdown()
            fake.server_close()

    def base(self, **more: str | None) -> dict[str, str]:
        """Return the environment that every process gets; None takes a variable out."""
        base = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT") if name in os.environ}
        folders = {"TMPDIR": str(self.folder), "TEMP": str(self.folder), "SSL_CERT_FILE": str(self.pem)}
        merged = {**base, **folders, **more}
        return {name: value for name, value in merged.items() if value is not None}

    def on_github(self, **more: str | None) -> dict[str, str]:
        """Return the environment of a step in a job with `id-token: write`."""
        for name in ("output", "summary"):
            (self.folder / name).touch()
        step: dict[str, str | None] = {
            "GITHUB_ACTIONS": "true",
            "GITHUB_OUTPUT": str(self.folder / "output"),
            "GITHUB_STEP_SUMMARY": str(self.folder / "summary"),
            "RUNNER_TEMP": str(self.temp),
            "ACTIONS_ID_TOKEN_REQUEST_URL": f"{self.github.url}/token?api-version=2.0",
            "ACTIONS_ID_TOKEN_REQUEST_TOKEN": REQUEST_TOKEN,
            "INPUT_URL": self.registry.url,
        }
        return self.base(**{**step, **more})

    def on_gitlab(self, **more: str | None) -> dict[str, str]:
        """Return the environment of a GitLab job with its one identity token for the registry."""
        token = self.github.issue(
            self.registry.audience,
            project_path="octo/crate",
            ci_config_ref_uri="gitlab.com/octo/crate//.gitlab-ci.yml@refs/tags/v1",
            environment="release",
        )
        job: dict[str, str | None] = {
            self.variable(): token,
            "CI_JOB_ID": "4711",
            "INPUT_URL": self.registry.url,
        }
        return self.base(**{**job, **more})

    def variable(self) -> str:
        """Return the name of the variable with the identity token for the registry."""
        return re.sub("[^A-Z0-9_]|^[0-9]", "_", self.registry.audience.upper()) + "_ID_TOKEN"

    def start(self, *arguments: str, env: dict[str, str], **more: Any) -> Process:
        """Start the shipped script as the action does."""
        return self.start_command([sys.executable, "-I", "-S", str(SCRIPT), *arguments], env=env, **more)

    def start_command(self, command: list[str], env: dict[str, str], **more: Any) -> Process:
        process = Process(self, command, env, **more)
        self.processes.append(process)
        return process

    def run(self, *arguments: str, env: dict[str, str], **more: Any) -> Result:
        """Run the shipped script to its end."""
        return self.start(*arguments, env=env, **more).finish()

    def records(self) -> list[Path]:
        """Return the files of the record that hold something."""
        return sorted(path for path in self.folder.glob("**/*.jsonl") if path.read_bytes().strip())


@contextlib.contextmanager
def new_world(folder: Path, tls: bool = False) -> Iterator[World]:
    """Yield a world in a folder, and close it."""
    world = World(folder, tls)
    try:
        yield world
    finally:
        world.close()


class Process:
    """A process of a test. However it ends, it must not have shown a secret."""

    def __init__(self, world: World, command: list[str], env: dict[str, str], **more: Any) -> None:
        self.world = world
        self.env = env
        self.for_cargo = False
        more = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            **more,
        }
        more.setdefault("cwd", world.folder)
        self.popen = subprocess.Popen(command, env=env, **more)

    def finish(self, seconds: float = 50) -> Result:
        """Wait for the end, check that no secret shows, and return what is left."""
        texts_of_process = self.popen.communicate(timeout=seconds)
        stdout, stderr = ((text or b"").decode().replace(os.linesep, "\n") for text in texts_of_process)
        texts = {}
        for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY"):
            path = Path(self.env.get(name, "/dev/null"))
            texts[name] = path.read_text(encoding="utf-8") if path.is_file() else ""
        result = Result(self.popen.returncode, stdout, stderr, *texts.values())
        self.check_secrets(result)
        return result

    def check_secrets(self, result: Result) -> None:
        """Fail if a secret or a traceback stands anywhere but where the secret belongs."""
        world = self.world
        on_github = "GITHUB_ACTIONS" in self.env
        secrets = [REQUEST_TOKEN, *world.github.issued, *world.registry.minted]
        stderr, stdout, outputs = result.stderr, result.stdout, result.outputs
        if on_github:
            stderr = "\n".join(line for line in stderr.splitlines() if not line.startswith("::add-mask::"))
            outputs = re.sub(r"^token=\S+$", "", outputs, flags=re.MULTILINE)
        if self.for_cargo:
            stdout = re.sub(r'"token": "[^"]*"', "", stdout)
        elif result.status == 0 and not on_github:
            stdout = re.sub(r"\A\S+\n\Z", "", stdout)
        for text in (stdout, stderr, outputs, result.summary):
            assert not any(secret in text for secret in secrets), f"a secret shows: {result}"
            assert "Traceback" not in text, result


# What goes wrong on the wire


def status(code: int, body: object = b"", **headers: str) -> Callable[[Handler], None]:
    """Answer with a status; Retry-After makes the next try come at once, unless told otherwise."""
    return lambda handler: handler.answer(code, body, **{"Retry_After": "0", **headers})


def hang_up(handler: Handler) -> None:
    """Reset the connection instead of answering."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.rfile.close()
    handler.connection.close()


def lose_the_answer(handler: Handler) -> None:
    """Do what was asked for, and reset the connection instead of saying so."""
    handler.wfile = io.BytesIO()
    handler.server.behave(handler)
    hang_up(handler)


def raw(content: bytes) -> Callable[[Handler], None]:
    """Answer with these bytes, HTTP or not, and close."""
    return lambda handler: void(handler.wfile.write(content))


def void(_: object) -> None:
    """Make a statement of an expression."""


def silence(handler: Handler) -> None:
    """Never answer."""
    handler.rfile.read(1)


def trickle(head: bytes) -> Callable[[Handler], None]:
    """Send `head`, then a byte every half second until the client has had enough."""

    def fault(handler: Handler) -> None:
        handler.wfile.write(head)
        while True:
            handler.wfile.write(b" ")
            time.sleep(0.5)

    return fault


# The demo


def demo() -> int:
    """Show the script at work, as a workflow's log would show it."""
    print("A fake GitHub and a fake registry listen on this machine. Nothing else is asked.\n")
    scenes = [scene_of_an_output]
    if shutil.which("cargo") and sys.platform != "win32":
        scenes.append(scene_of_cargo)
    for scene in scenes:
        with tempfile.TemporaryDirectory() as folder, new_world(Path(folder)) as world:
            statuses = scene(world)
            print("$ crates_io_auth.py post                (the action's post step, at the end of the job)")
            post = world.run("post", env=world.on_github())
            show(post, hidden=[])
            print(f"  access tokens alive: {len(world.registry.live())}\n")
            if any(statuses) or post.status or world.registry.live() or not world.registry.minted:
                return 1
    return 0


def scene_of_an_output(world: World) -> list[int]:
    """Get a token as the action does."""
    print("1. A token for one step\n")
    print("$ crates_io_auth.py                     (the action's step in a workflow)")
    result = world.run(env=world.on_github())
    show(result, hidden=[*world.github.issued, *world.registry.minted])
    if result.status == 0:
        print(f"  the output `token`:  {result.token[:7]}{'*' * 32}\n")
    print("What reached the registry:")
    for request in world.registry.requests:
        print(f"  {request.method} {request.path}  ({request.headers['user-agent']})")
    print(f"  access tokens alive: {len(world.registry.live())}\n")
    return [result.status]


def scene_of_cargo(world: World) -> list[int]:
    """Let the real cargo publish a workspace of three crates."""
    print("2. Tokens just in time: cargo publishes three crates, each with a curious build script\n")
    print("$ crates_io_auth.py                     (the action's step, with `credential-provider: true`)")
    world.temp = world.folder / "runner-temp"  # without a space
    world.temp.mkdir()
    (world.folder / "env").touch()
    step = {**for_cargo(world), "GITHUB_ENV": str(world.folder / "env")}
    inputs = {"INPUT_CREDENTIAL_PROVIDER": "true", "INPUT_REGISTRY": "local"}
    set_up = world.run(env=world.on_github(**step, **inputs))
    show(set_up, hidden=[])
    variable, _, value = (world.folder / "env").read_text().rstrip("\n").partition("=")
    print("\n$ cargo publish --workspace             (the next step: no token in any variable)")
    result = cargo(world, world.on_github(**step, **{variable: value}))
    show(result, hidden=[*world.github.issued, *world.registry.minted])
    saw = "".join(path.read_text() for path in (world.folder / "spied").iterdir())
    print(f"\n  crates published: {', '.join(world.registry.published)}")
    print(f"  tokens that the build scripts saw: {sum(token in saw for token in world.registry.minted)}")
    print(f"  access tokens alive: {len(world.registry.live())}\n")
    return [set_up.status, result.status]


def show(result: Result, hidden: list[str]) -> None:
    """Print what a workflow's log shows of a step: its secrets masked, its commands obeyed."""
    for line in result.stderr.splitlines():
        for secret in hidden:
            line = line.replace(secret, "***")
        print(f"  {line}")


def serve(port: int) -> int:
    """Be GitHub and a registry until killed."""
    print(f"A fake GitHub and a fake registry listen at {FakeOfBoth(port).url}", flush=True)
    threading.Event().wait()
    return 0


# Running the tests


def each_of(**cases: Any) -> Callable[[Callable[[Path, Any], None]], Callable[[Path], None]]:
    """Run a test for all its named cases, a few at a time: most of their time is waiting."""

    def mark(check: Callable[[Path, Any], None]) -> Callable[[Path], None]:
        def test(tmp_path: Path) -> None:
            with concurrent.futures.ThreadPoolExecutor(6) as pool:
                checks = {name: pool.submit(check, tmp_path / name, case) for name, case in cases.items()}
            failed = {name: future.exception() for name, future in checks.items() if future.exception()}
            for name, failure in failed.items():
                raise AssertionError(f"case {name}, of {list(failed)} that failed") from failure

        test.__name__ = check.__name__
        return test

    return mark


def program(name: str) -> str:
    """Return the path of a program that a test needs; in CI it must be there."""
    path = shutil.which(name)
    if path is None:
        assert not os.environ.get("CI"), f"{name} is missing"
        import pytest

        pytest.skip(f"{name} is not installed")
    return str(path)


# What waits a lot or compiles goes on beside all other tests, from the first of them on.
BACKGROUND: dict[str, concurrent.futures.Future[None]] = {}
QUEUED: dict[str, Callable[[Path], None]] = {}
POOL = concurrent.futures.ThreadPoolExecutor(8)


def in_background(check: Callable[[Path], None]) -> Callable[[], None]:
    """Start a test with the first one, and look at its result when its turn comes."""

    def test() -> None:
        BACKGROUND[check.__name__].result()

    QUEUED[check.__name__] = check
    test.__name__ = check.__name__
    return test


def only_on(*systems: str) -> Callable[[Test], Callable[..., None]]:
    """Skip a test elsewhere than on these systems: what it needs does not exist there."""

    def mark(test: Test) -> Callable[..., None]:
        if sys.platform.startswith(systems):
            return test

        def skipped() -> None:
            import pytest

            pytest.skip(f"only on {' and '.join(systems)}")

        QUEUED.pop(test.__name__, None)
        skipped.__name__ = test.__name__
        return skipped

    return mark


on_posix = only_on("linux", "darwin")
on_linux = only_on("linux")


def setup_module() -> None:
    for name in reversed(list(QUEUED)):  # the last first, for it takes the longest
        BACKGROUND[name] = POOL.submit(run_in_new_folder, QUEUED[name])


def teardown_module() -> None:
    for future in BACKGROUND.values():
        future.cancel()


def run_in_new_folder(check: Callable[[Path], None]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        check(Path(folder))


def transcript(world: World, text: str) -> str:
    """Return what a user saw, with the parts that change from run to run replaced."""
    for token in [*world.github.issued, *world.registry.minted]:
        text = text.replace(token, "<token>")
    text = text.replace(world.registry.authority, "<registry>").replace(world.github.authority, "<github>")
    text = text.replace(str(world.folder), "<folder>")
    return re.sub(r"again in [0-9.]+ s", "again in <seconds> s", text)


# The command line


@each_of(help=["--help"], version=["--version"])
def test_help_and_version_are_printed_and_nothing_else_happens(tmp_path: Path, case: list[str]) -> None:
    with new_world(tmp_path) as world:
        result = world.run(*case, env=world.on_github())
        assert result.status == 0
        assert result.stdout
        assert not world.github.requests


@each_of(
    unknown_command=["mint"],
    unknown_option=["--token", "x"],
    abbreviation=["--ur", "https://crates.io"],
    two_commands=["main", "post"],
    option_without_value=["--url"],
    url_for_post=["post", "--url", "https://crates.io"],
    hostile=["--\n::add-mask::x"],
)
def test_a_wrong_command_line_exits_with_2_and_a_usage_line_and_sends_nothing(
    tmp_path: Path, case: list[str]
) -> None:
    with new_world(tmp_path) as world:
        result = world.run(*case, env=world.on_github())
        assert result.status == 2
        assert result.stderr.startswith("usage: crates_io_auth.py ")
        assert "\n::" not in result.stderr
        assert not world.github.requests + world.registry.requests


# Getting a token


def test_on_github_a_token_comes_in_and_a_token_goes_out_and_post_revokes_it(tmp_path: Path) -> None:
    with new_world(tmp_path) as world:
        result = world.run(env=world.on_github())
        assert result.status == 0
        assert result.outputs == f"token={world.registry.minted[0]}\n"
        assert result.stdout == ""
        assert (
            transcript(world, result.stderr)
            == """\
::add-mask::<token>
::add-mask::<token>
Got an access token for the audience <registry> from http://<registry>.
It is masked in this log and handed over as the output `token`.
It will be revoked when the job ends.
"""
        )
        assert result.summary == ""
        post = world.run("post", env=world.on_github())
        assert post.status == 0
        assert transcript(world, post.stderr) == "Revoked an access token at http://<registry>.\n"
        assert not world.registry.live()
        assert not world.records()


def test_both_tokens_are_masked_before_the_line_that_reports_success(tmp_path: Path) -> None:
    with new_world(tmp_path) as world:
        lines = world.run("main", env=world.on_github()).stderr.splitlines()
        assert lines[:2] == [
            f"::add-mask::{world.github.issued[0]}",
            f"::add-mask::{world.registry.minted[0]}",
        ]


def test_a_percent_sign_in_a_token_is_escaped_for_the_runner(tmp_path: Path) -> None:
    with new_world(tmp_path) as world:
        world.registry.faults = [status(200, {"token": "odd%0Atoken"})]
        world.registry.minted = ["odd%0Atoken"]
        result = world.run(env=world.on_github())
        assert "::add-mask::odd%250Atoken" in result.stderr.splitlines()
        assert result.outputs == "token=odd%0Atoken\n"


def test_outside_github_the_token_alone_is_on_stdout_and_no_workflow_command_anywhere(
    tmp_path: Path,
) -> None:
    with new_world(tmp_path) as world:
        env = world.on_gitlab()
        result = world.run(env=env)
        assert result.status == 0
        assert result.stdout == f"{world.registry.minted[0]}\n"
        assert (
            transcript(world, result.stderr)
            == """\
Got an access token for the audience <registry> from http://<registry>.
It is on stdout, and nothing masks it: keep it out of the log.
Revoke it at the end of the job: crates_io_auth.py post
"""
        )
        assert world.run("post", env=env).status == 0
        assert not world.registry.live()


@on_posix
def test_the_line_for_other_ci_sets_the_variable_in_a_real_shell(tmp_path: Path) -> None:
    with new_world(tmp_path) as world:
        line = f'export CARGO_REGISTRY_TOKEN="$({shlex.quote(sys.executable)} {shlex.quote(str(SCRIPT))})"'
        check = 'test "${#CARGO_REGISTRY_TOKEN}" = 39'
        command = [program("bash"), "-ec", f"{line}; {check}"]
        assert world.start_command(command, env=world.on_gitlab()).finish().status == 0


def test_the_exchange_names_this_tool_and_its_version_and_sends_json(tmp_path: Path) -> None:
    with new_world(tmp_path) as world:
        version = world.run("--version", env=world.base()).stdout.strip()
        world.run(env=world.on_github())
        request = world.registry.requests[0]
        assert (request.method, request.path) == ("POST", TOKENS)
        assert request.headers["user-agent"] == f"crates-io-auth/{version}"
        assert json.loads(request.body) == {"jwt": world.github.issued[0]}
        assert "authorization" not in request.headers


def test_revoking_sends_the_token_as_bearer_and_no_body(tmp_path: Path) -> None:
    with new_world(tmp_path) as world:
        token = world.run(env=world.on_github()).token
        world.run("post", env=world.on_github())
        request = world.registry.requests[1]
        assert (request.method, request.path, request.body) == ("DELETE", TOKENS, b"")
        assert request.headers["authorization"] == f"Bearer {token}"
        assert request.headers["user-agent"].startswith("crates-io-auth/")


# Which registry


@each_of(
    slashes="{url}///",
    upper_case="HTTP://{authority}",
    path="{url}/some/registry/",
    as_it_is="{url}",
)
def test_a_registry_is_found_and_its_audience_is_the_url_without_scheme(tmp_path: Path, case: str) -> None:
    with new_world(tmp_path) as world:
        url = case.format(url=world.registry.url, authority=world.registry.authority)
        world.registry.audience += "/some/registry" if "some" in url else ""
        assert world.run("--url", url, env=world.on_github(INPUT_URL=None)).status == 0
        assert world.run("post", env=world.on_github()).status == 0
        assert not world.registry.live()


def test_plain_http_reaches_localhost_by_name(tmp_path: Path) -> None:
    with new_world(tmp_path) as world:
        world.registry.audience = f"localhost:{world.registry.server_port}"
        env = world.on_github(INPUT_URL=f"http://LocalHost:{world.registry.server_port}")
        assert world.run(env=env).status == 0


def test_the_option_url_comes_before_the_input(tmp_path: Path) -> None:
    with new_world(tmp_path) as world:
        env = world.on_github(INPUT_URL="https://registry.invalid")
        assert world.run("main", "--url", world.registry.url, env=env).status == 0


@each_of(nothing=None, empty="")
def test_without_a_url_the_registry_is_crates_io(tmp_path: Path, case: str | None) -> None:
    with new_world(tmp_path) as world:
        result = world.run(env=world.base(INPUT_URL=case))
        assert result.status == 1
        assert "CRATES_IO_ID_TOKEN" in result.stderr
        assert "aud: crates.io" in result.stderr


def test_a_bare_host_means_https(tmp_path: Path) -> None:
    with new_world(tmp_path, tls=True) as world:
        result = world.run(env=world.on_github(INPUT_URL=world.registry.authority))
        assert result.status == 0
        assert f"from {world.registry.url}." in result.stderr
        result = world.run("post", env=world.on_github())
        assert not world.registry.live()


REFUSED_URLS = {
    "empty": "",
    "another_scheme": "ftp://crates.io",
    "a_file": "file:///etc/passwd",
    "no_slashes": "mailto:crates.io",
    "user_info": "https://user:secret-of-the-user@crates.io",
    "user_info_with_slash": "https://user:/secret-of-the-user@crates.io",
    "user_info_with_at": "https://user:secret-of-the-user@@crates.io",
    "user_info_of_a_bare_host": "user:secret-of-the-user@crates.io",
    "user": "https://user@crates.io",
    "query": "https://crates.io?x=1",
    "fragment": "https://crates.io#x",
    "space": "https://crates.io/a b",
    "leading_space": " https://crates.io",
    "line_break": "https://crates.io\n",
    "tab_that_urlsplit_drops": "https://crates.\tio",
    "control_character": "https://crates.io/\x1b[31m",
    "not_ascii": "https://crätes.io",
    "letter_that_looks_ascii": "https://crates.iο",
    "long_s_that_lowers_to_ascii": "httpſ://crates.io",
    "backslash": "https://crates.io\\@evil.example",
    "port_0": "https://crates.io:0",
    "port_too_high": "https://crates.io:65536",
    "port_no_number": "https://crates.io:https",
    "port_missing": "https://crates.io:",
    "no_host": "https://",
    "no_host_but_a_path": "https:///path",
    "empty_label": "https://crates..io",
    "long_label": f"https://{'a' * 64}.io",
    "plain_http": "http://crates.io",
    "plain_http_to_a_name_that_begins_like_this_machine": "http://localhost.evil.example",
    "plain_http_to_a_name_that_looks_like_an_address": "http://127.0.0.1.evil.example",
    "plain_http_to_no_address": "http://127.999.0.1",
    "plain_http_to_everyone": "http://0.0.0.0",
}


@each_of(**REFUSED_URLS)
def test_a_url_that_is_no_registry_is_refused_before_a_byte_is_sent(tmp_path: Path, case: str) -> None:
    with new_world(tmp_path) as world:
        result = world.run("--url", case, env=world.on_github())
        assert result.status == 1
        assert "Nothing was sent" in result.stderr
        assert "secret-of-the-user" not in result.stderr + result.summary
        assert len(result.stderr.splitlines()) == 1
        assert not world.github.requests + world.registry.requests
        assert not world.records()


def test_github_s_endpoint_passes_the_same_gate(tmp_path: Path) -> None:
    with new_world(tmp_path) as world:
        for url in ("http://evil.example/?x=1", "https://user@evil.example/", "file:///etc/passwd"):
            result = world.run(env=world.on_github(ACTIONS_ID_TOKEN_REQUEST_URL=url))
            assert result.status == 1
            assert "A secret must not be sent to" in result.stderr


# Who am I


def test_without_the_permission_the_message_shows_what_to_write(tmp_path: Path) -> None:
    with new_world(tmp_path) as world:
        env = world.on_github(ACTIONS_ID_TOKEN_REQUEST_URL=None, ACTIONS_ID_TOKEN_REQUEST_TOKEN=None)
        result = world.run(env=env)
        assert result.status == 1
        assert result.stderr == (
            "::error title=This job may not ask GitHub for an identity token::"
            "Give the job this permission, and run it again "
            "(`permissions` takes away whatever it does not name):%0A"
            "  permissions:%0A    contents: read%0A    id-token: write\n"
        )
        assert (
            result.summary
            == """\
### crates-io-auth failed

```text
This job may not ask GitHub for an identity token
Give the job this permission, and run it again (`permissions` takes away whatever it does not name):
  permissions:
    contents: read
    id-token: write
```
"""
        )
        assert not world.records()


def test_a_pull_request_from_a_fork_is_told_that_it_never_gets_one(tmp_path: Path) -> None:
    with new_world(tmp_path) as world:
        event = tmp_path / "event.json"
        event.write_text(json.dumps({"pull_request": {"head": {"repo": {"fork": True}}}}))
        result = world.run(
            env=world.on_github(
                ACTIONS_ID_TOKEN_REQUEST_URL=None,
                ACTIONS_ID_TOKEN_REQUEST_TOKEN=None,
                GITHUB_EVENT_NAME="pull_request",
                GITHUB_EVENT_PATH=str(event),
            )
        )
        assert result.status == 1
        assert result.stderr.startswith(
            "::error title=A pull request from a fork never gets an identity token::"
        )


@each_of(
    no_fork={"pull_request": {"head": {"repo": {"fork": False}}}},
    deleted_fork={"pull_request": {"head": {"repo": None}}},
    push={"ref": "refs/heads/main"},
    nonsense=[1, "x"],
)
def test_any_other_event_is_told_of_the_permission(tmp_path: Path, case: object) -> None:
    with new_world(tmp_path) as world:
        event = tmp_path / "event.json"
        event.write_text(json.dumps(case))
        env = world.on_github(ACTIONS_ID_TOKEN_REQUEST_URL=None, GITHUB_EVENT_PATH=str(event))
        assert "id-token: write" in world.run(env=env).stderr


@each_of(
    crates_io=("https://crates.io", "CRATES_IO_ID_TOKEN"),
    staging=("staging.crates.io", "STAGING_CRATES_IO_ID_TOKEN"),
    digit_first=("https://4crates.example:8080/a-b", "_CRATES_EXAMPLE_8080_A_B_ID_TOKEN"),
)
def test_elsewhere_the_variable_is_named_after_the_audience(tmp_path: Path, case: tuple[str, str]) -> None:
    with new_world(tmp_path) as world:
        result = world.run("--url", case[0], env=world.base())
        assert result.status == 1
        assert result.stderr.startswith(f"error: There is no identity token in {case[1]}\n")


def test_a_missing_variable_shows_how_to_set_it_on_gitlab(tmp_path: Path) -> None:
    with new_world(tmp_path) as world:
        result = world.run(env=world.base())
        assert result.status == 1
        assert (
            result.stderr
            == """\
error: There is no identity token in CRATES_IO_ID_TOKEN
On GitLab, add this to the job:
  id_tokens:
    CRATES_IO_ID_TOKEN:
      aud: crates.io
In any other CI, set CRATES_IO_ID_TOKEN to an OIDC token for the audience crates.io.
"""
        )
        assert result.stdout == ""


@each_of(two_lines="a\nb", space="a b", not_ascii="tökén", control="a\x1bb", quotes='"a"', backslash="a\\b")
def test_an_identity_token_that_is_no_line_of_visible_ascii_is_not_sent(tmp_path: Path, case: str) -> None:
    with new_world(tmp_path) as world:
        result = world.run("--url", "crates.io", env=world.base(CRATES_IO_ID_TOKEN=case))
        assert result.status == 1
        assert "What is in CRATES_IO_ID_TOKEN is not a token" in result.stderr
        assert case not in result.stderr


def test_the_audience_is_encoded_once(tmp_path: Path) -> None:
    with new_world(tmp_path) as world:
        world.run(env=world.on_github())
        audience = world.registry.audience.replace(":", "%3A")
        assert world.github.requests[0].path == f"/token?api-version=2.0&audience={audience}"


# The exchange refused


def test_a_refusal_on_github_shows_what_to_compare_and_where(tmp_path: Path) -> None:
    detail = (
        "The Trusted Publishing config for repository `octo/crate` does not match the workflow filename "
        "`release.yml` in the JWT. Expected workflow filenames: `publish.yml`"
    )
    with new_world(tmp_path) as world:
        world.registry.faults = [lambda handler: handler.refuse(400, detail)]
        result = world.run(env=world.on_github())
        assert result.status == 1
        assert result.outputs == ""
        assert len(world.registry.requests) == 1
        explanation = """\
It answered HTTP 400: The Trusted Publishing config for repository `octo/crate` does not match the workflow \
filename `release.yml` in the JWT. Expected workflow filenames: `publish.yml`
A trusted publisher of the crate must match what the identity token claims:
  repository: octo/crate
  workflow file: octo/crate/.github/workflows/release.yml@refs/tags/v1
  environment: release
  ref: refs/tags/v1
  event: push
Compare them in the crate's settings, http://<registry>/crates/<crate>/settings, and run the job again.
The first version of a crate can't be published this way: publish it with an ordinary API token.
An identity token works once: where a job has just one, only a new job has a new one.
"""
        title = "127.0.0.1 refused the identity token"
        escaped = explanation.rstrip("\n").replace("\n", "%0A")
        assert transcript(world, result.stderr) == f"::add-mask::<token>\n::error title={title}::{escaped}\n"
        summary = f"### crates-io-auth failed\n\n```text\n{title}\n{explanation}```\n"
        assert transcript(world, result.summary) == summary


def test_a_refusal_on_gitlab_shows_project_file_and_environment(tmp_path: Path) -> None:
    with new_world(tmp_path) as world:
        world.registry.faults = [lambda handler: handler.refuse(400, "Unsupported JWT issuer")]
        result = world.run(env=world.on_gitlab())
        assert result.status == 1
        assert (
            transcript(world, result.stderr)
            == """\
error: 127.0.0.1 refused the identity token
It answered HTTP 400: Unsupported JWT issuer
A trusted publisher of the crate must match what the identity token claims:
  project: octo/crate
  CI file: gitlab.com/octo/crate//.gitlab-ci.yml@refs/tags/v1
  environment: release
Compare them in the crate's settings, http://<registry>/crates/<crate>/settings, and run the job again.
The first version of a crate can't be published this way: publish it with an ordinary API token.
An identity token works once: where a job has just one, only a new job has a new one.
"""
        )


def test_a_token_without_environment_says_so(tmp_path: Path) -> None:
    with new_world(tmp_path) as world:
        del world.github.claims["environment"]
        world.registry.faults = [lambda handler: handler.refuse(400, "requires an environment")]
        assert "%0A  environment: (none)%0A" in world.run(env=world.on_github()).stderr


def test_an_identity_token_that_is_no_jwt_can_be_refused_too(tmp_path: Path) -> None:
    with new_world(tmp_path) as world:
        world.registry.faults = [lambda handler: handler.refuse(400, "Failed to decode JWT")]
        result = world.run(env=world.on_gitlab(**{world.variable(): "not-a-jwt"}))
        assert result.status == 1
        assert "It answered HTTP 400: Failed to decode JWT\n" in result.stderr


@each_of(html=b"<html><h1>Blocked</h1></html>", text=b"Blocked", list=b'[{"errors": 1}]', number=b"403")
def test_a_refusal_without_detail_shows_how_it_begins(tmp_path: Path, case: bytes) -> None:
    with new_world(tmp_path) as world:
        world.registry.faults = [status(403, case)]
        result = world.run(env=world.on_github())
        assert result.status == 1
        assert f"It answered HTTP 403: {case.decode()}" in result.stderr


@in_background
def test_a_single_use_identity_token_is_not_used_twice_on_github(tmp_path: Path) -> None:
    with new_world(tmp_path) as world:
        world.registry.faults = [lose_the_answer]
        result = world.run(env=world.on_github())
        assert result.status == 0
        assert len(world.github.issued) == 2
        assert len(world.registry.minted) == 2
        assert result.token == world.registry.minted[1]


@in_background
def test_elsewhere_a_lost_answer_ends_in_a_message_that_explains_it(tmp_path: Path) -> None:
    with new_world(tmp_path) as world:
        world.registry.faults = [lose_the_answer]
        result = world.run(env=world.on_gitlab())
        assert result.status == 1
        assert "It answered HTTP 400: JWT has already been used\n" in result.stderr
        assert "An identity token works once" in result.stderr


# Handing over, and the record


def line_of(grant: dict[str, object]) -> str:
    """Return a line of the record."""
    return (
        json.dumps({"registry": "https://crates.io", "token": "x", "minted": 1_700_000_000, **grant}) + "\n"
    )


@on_posix
def test_the_record_holds_a_line_of_json_that_only_its_owner_can_read(tmp_path: Path) -> None:
    with new_world(tmp_path) as world:
        before = int(time.time())
        world.run(env=world.on_github())
        (record,) = world.records()
        assert record.parent == world.temp
        (line,) = record.read_text().splitlines()
        entry = json.loads(line)
        assert before <= entry.pop("minted") <= time.time()
        assert entry == {"registry": world.registry.url, "token": world.registry.minted[0]}
        assert stat.S_IMODE(record.stat().st_mode) == 0o600


@on_posix
def test_elsewhere_the_record_lies_in_a_folder_of_the_user_with_a_file_a_job(tmp_path: Path) -> None:
    with new_world(tmp_path) as world:
        first = world.run(env=world.on_gitlab(CI_JOB_ID="1")).token
        second = world.run(env=world.on_gitlab(CI_JOB_ID="2")).token
        assert len(world.records()) == 2
        assert len({record.parent for record in world.records()}) == 1
        assert stat.S_IMODE(world.records()[0].parent.stat().st_mode) == 0o700
        assert world.run("post", env=world.on_gitlab(CI_JOB_ID="1")).status == 0
        assert world.registry.live() == {second} != {first}


def test_a_job_id_can_t_lead_out_of_the_folder(tmp_path: Path) -> None:
    with new_world(tmp_path) as world:
        env = world.on_gitlab(CI_JOB_ID="../../evil")
        assert world.run(env=env).status == 0
        assert [record.name for record in world.records()] == ["______evil.jsonl"]
        assert world.run("post", env=env).status == 0
        assert not world.registry.live()


@on_posix
@each_of(open_to_others=0o755, writable_by_the_group=0o770)
def test_a_folder_that_is_open_to_others_is_refused(tmp_path: Path, case: int) -> None:
    with new_world(tmp_path) as world:
        folder = tmp_path / f"crates-io-auth-{os.geteuid()}"
        folder.mkdir()
        folder.chmod(case)
        result = world.run(env=world.on_gitlab())
        assert result.status == 1
        assert (
            transcript(world, result.stderr)
            == f"""\
error: Access tokens can't be recorded in <folder>/{folder.name}
It is a link, or someone else's, or open to others. The place must be this user's own, open to nobody \
else, and no link.
If someone put it there, find out who. Remove it, and run this again.
"""
        )
        assert not world.registry.requests


@on_posix
def test_a_folder_of_someone_else_is_refused(tmp_path: Path) -> None:
    with new_world(tmp_path) as world:
        folder = tmp_path / f"crates-io-auth-{os.geteuid()}"
        # A link to a folder that belongs to root, or, for root, to a folder that it gave away.
        theirs = tmp_path / "theirs"
        theirs.mkdir(mode=0o700)
        if os.geteuid() == 0:
            os.chown(theirs, 12345, 12345)
            theirs.rename(folder)
        else:
            folder.symlink_to("/")
        result = world.run(env=world.on_gitlab())
        assert result.status == 1
        assert "Access tokens can't be recorded in" in result.stderr
        assert not world.registry.requests


def plant_link(path: Path) -> None:
    (path.parent / "victim").touch(mode=0o600)
    path.symlink_to(path.parent / "victim")


def plant_hard_link(path: Path) -> None:
    (path.parent / "victim").touch(mode=0o600)
    os.link(path.parent / "victim", path)


@on_posix
@each_of(
    link=plant_link,
    hard_link=plant_hard_link,
    pipe=lambda path: os.mkfifo(path, 0o600),
    folder=lambda path: path.mkdir(),
)
def test_what_is_planted_in_place_of_the_record_is_refused_before_anything_is_minted(
    tmp_path: Path, case: Callable[[Path], None]
) -> None:
    with new_world(tmp_path) as world:
        case(world.temp / "crates-io-auth.jsonl")
        result = world.run(env=world.on_github())
        assert result.status == 1
        assert "error title=Access tokens can't be recorded in" in result.stderr
        assert not world.github.requests + world.registry.requests
        post = world.run("post", env=world.on_github())
        assert post.status == 1
        assert "Access tokens can't be recorded in" in post.stderr


@on_posix
def test_a_record_that_is_open_to_others_is_closed_before_a_token_gets_in(tmp_path: Path) -> None:
    with new_world(tmp_path) as world:
        record = world.temp / "crates-io-auth.jsonl"
        record.touch()
        record.chmod(0o666)
        assert world.run(env=world.on_github()).status == 0
        assert stat.S_IMODE(record.stat().st_mode) == 0o600


UNSET = "is not set; GitHub's runner sets it in every step"


@each_of(
    output_unset=({"GITHUB_OUTPUT": None}, f"This machine can't do what is needed::GITHUB_OUTPUT {UNSET}"),
    output_missing=({"GITHUB_OUTPUT": "/nowhere/output"}, "This machine can't do what is needed::[Errno 2] "),
    temp_unset=({"RUNNER_TEMP": None}, f"This machine can't do what is needed::RUNNER_TEMP {UNSET}"),
    temp_missing=(
        {"RUNNER_TEMP": "/nowhere"},
        "Access tokens can't be recorded in /nowhere/crates-io-auth.jsonl::No such file or directory.",
    ),
)
def test_a_step_that_can_t_hand_over_or_record_fails_before_anything_is_minted(
    tmp_path: Path, case: tuple[dict[str, str | None], str]
) -> None:
    with new_world(tmp_path) as world:
        result = world.run(env=world.on_github(**case[0]))
        assert result.status == 1
        assert result.stderr.startswith(f"::error title={case[1]}")
        assert next(iter(case[0])) in result.stderr or "/nowhere" in result.stderr
        assert not world.registry.requests


@on_linux
def test_a_token_that_can_t_be_handed_over_is_revoked_at_once(tmp_path: Path) -> None:
    with new_world(tmp_path) as world:
        result = world.run(env=world.on_github(GITHUB_OUTPUT="/dev/full"))
        assert result.status == 1
        assert "Revoked an access token at" in result.stderr
        assert "GITHUB_OUTPUT: No space left on device" in result.stderr
        assert world.registry.minted
        assert not world.registry.live()
        assert world.run("post", env=world.on_github()).status == 0


@on_linux
def test_a_token_that_stdout_does_not_take_is_revoked_at_once(tmp_path: Path) -> None:
    with new_world(tmp_path) as world, open("/dev/full", "wb") as full:
        result = world.run(env=world.on_gitlab(), stdout=full)
        assert result.status == 1
        assert "stdout: No space left on device" in result.stderr
        assert world.registry.minted
        assert not world.registry.live()


@on_posix
def test_a_token_that_can_t_be_recorded_whole_is_revoked_at_once(tmp_path: Path) -> None:
    import resource

    with new_world(tmp_path) as world:
        limit = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20, 20))}
        result = world.run(env=world.on_gitlab(), **limit)
        assert result.status == 1
        assert result.stdout == ""
        assert "4711.jsonl takes only a part of a line" in result.stderr
        assert world.registry.minted
        assert not world.registry.live()
        # What was cut off does not spoil the line after it. Whether it was a whole token can't be known.
        env = world.on_gitlab()
        assert world.run(env=env).status == 0
        result = world.run("post", env=env)
        assert result.status == 1
        assert "4711.jsonl is damaged" in result.stderr
        assert not world.registry.live()


@on_posix
@each_of(int=signal.SIGINT, term=signal.SIGTERM)
def test_cancelled_while_the_registry_answers_the_token_is_revoked(
    tmp_path: Path, case: signal.Signals
) -> None:
    with new_world(tmp_path) as world:
        asked, answer = threading.Event(), threading.Event()

        def slow(handler: Handler) -> None:
            asked.set()
            answer.wait()
            world.registry.behave(handler)

        world.registry.faults = [slow]
        process = world.start(env=world.on_github())
        assert asked.wait(20)
        process.popen.send_signal(case)
        process.popen.send_signal(case)
        answer.set()
        result = process.finish()
        assert result.status == 1
        assert result.outputs == ""
        assert "::error title=Cancelled::" in result.stderr
        assert len(world.registry.minted) == 1
        assert not world.registry.live()


# Revoking


def test_nothing_to_revoke_is_a_quiet_success(tmp_path: Path) -> None:
    with new_world(tmp_path) as world:
        for env in (world.on_github(), world.on_gitlab(), world.base(CARGO_REGISTRY_TOKEN="")):
            result = world.run("post", env=env)
            assert (result.status, result.stdout, result.stderr) == (0, "", "")


def test_post_revokes_each_token_at_the_registry_that_gave_it(tmp_path: Path) -> None:
    with new_world(tmp_path / "a") as world, new_world(tmp_path / "b") as other:
        world.run(env=world.on_github())
        world.run(env=world.on_github())
        other_env = other.on_github(RUNNER_TEMP=str(world.temp), GITHUB_OUTPUT=str(tmp_path / "a/output"))
        assert other.start(env=other_env).finish().status == 0
        result = world.run("post", env=world.on_github())
        assert result.status == 0
        assert result.stderr.count("Revoked an access token at") == 3
        assert sorted(world.registry.revoked) == sorted(world.registry.minted)
        assert other.registry.revoked == other.registry.minted


def test_post_also_revokes_a_temporary_token_of_the_environment(tmp_path: Path) -> None:
    with new_world(tmp_path) as world:
        token = world.run(env=world.on_github()).token
        for record in world.records():
            record.unlink()
        assert world.run("post", env=world.on_github(CARGO_REGISTRY_TOKEN=token)).status == 0
        assert world.registry.revoked == [token]


def test_a_token_of_the_environment_that_is_in_the_record_too_is_revoked_once(tmp_path: Path) -> None:
    with new_world(tmp_path) as world:
        token = world.run(env=world.on_github()).token
        env = world.on_github(CARGO_REGISTRY_TOKEN=token, INPUT_URL="http://127.0.0.1:1")
        assert world.run("post", env=env).status == 0
        assert world.registry.revoked == [token]


def test_a_long_lived_token_of_the_user_is_never_sent(tmp_path: Path) -> None:
    with new_world(tmp_path) as world:
        result = world.run("post", env=world.on_github(CARGO_REGISTRY_TOKEN="cioAbCdEf0123456789"))
        assert (result.status, result.stderr) == (0, "")
        assert not world.registry.requests


def test_a_long_lived_token_with_a_line_break_does_not_fail_the_job(tmp_path: Path) -> None:
    with new_world(tmp_path) as world:
        result = world.run("post", env=world.on_github(CARGO_REGISTRY_TOKEN="cioAbCdEf0123456789\n"))
        assert (result.status, result.stderr) == (0, "")
        assert not world.registry.requests


def test_a_damaged_token_of_the_environment_is_not_sent_and_stops_no_other(tmp_path: Path) -> None:
    with new_world(tmp_path) as world:
        world.run(env=world.on_github())
        result = world.run("post", env=world.on_github(CARGO_REGISTRY_TOKEN="cio_tp_x\r\nX: y"))
        assert result.status == 1
        assert "What is in CARGO_REGISTRY_TOKEN is not a token" in result.stderr
        assert not world.registry.live()


@each_of(unknown_form=401, unknown=404)
def test_a_token_that_the_registry_does_not_know_is_fine(tmp_path: Path, case: int) -> None:
    with new_world(tmp_path) as world:
        world.run(env=world.on_github())
        world.registry.faults = [status(case)]
        result = world.run("post", env=world.on_github())
        assert result.status == 0
        assert not world.records()


def test_a_revocation_that_fails_stops_no_other_and_can_be_repeated(tmp_path: Path) -> None:
    with new_world(tmp_path) as world:
        for _ in range(3):
            world.run(env=world.on_github())
        world.registry.faults = [lambda handler: handler.refuse(403, "Not now")]
        result = world.run("post", env=world.on_github())
        assert result.status == 1
        assert (
            transcript(world, result.stderr)
            == """\
Revoked an access token at http://<registry>.
Revoked an access token at http://<registry>.
::error title=An access token may still be alive::  127.0.0.1 did not revoke the access token: It answered \
HTTP 403: Not now%0ARun `crates_io_auth.py post` (again) for what is in the record. crates.io ends an \
access token 30 minutes%0Aafter it was made, in any case.
"""
        )
        assert len(world.registry.live()) == 1
        again = world.run("post", env=world.on_github())
        assert again.status == 0
        assert not world.registry.live()
        assert not world.records()


def test_post_twice_at_once_is_harmless(tmp_path: Path) -> None:
    with new_world(tmp_path) as world:
        for _ in range(3):
            world.run(env=world.on_github())
        posts = [world.start("post", env=world.on_github()) for _ in range(4)]
        assert [post.finish().status for post in posts] == [0, 0, 0, 0]
        assert not world.registry.live()
        assert not world.records()


# On the wire


CAN_PASS = {
    **{str(code): status(code) for code in (408, 429, 500, 502, 503, 599)},
    "reset": hang_up,
    "closed": raw(b""),
    "not HTTP": raw(b"SSH-2.0-OpenSSH\r\n"),
    "not JSON": status(200, b"<html>"),
    "JSON of another shape": status(200, ["token"]),
    "a token of another type": status(200, {"token": 1, "value": 1}),
    "a token of two lines": status(200, {"token": "cio_tp_a\nb", "value": "a\nb"}),
    "an empty token": status(200, {"token": "", "value": ""}),
    "half an answer": raw(b'HTTP/1.1 200 OK\r\nContent-Length: 60\r\n\r\n{"token": "cio_tp_'),
    "a length that is too short": raw(b'HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"token": "cio_tp_"}'),
    "a length that is no number": raw(b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n{}"),
    "half a header": raw(b"HTTP/1.1 200 OK\r\nContent-Le"),
    "a status that is no number": raw(b"HTTP/1.1 ok OK\r\n\r\n"),
    "status 100 and no more": raw(b"HTTP/1.1 100 Continue\r\n\r\n"),
    "status 999": raw(b"HTTP/1.1 999 Odd\r\n\r\n"),
    "a header line without end": raw(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000),
    "headers without end": raw(b"HTTP/1.1 200 OK\r\n" + b"X: x\r\n" * 1000),
    "a chunk of negative size": raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n{}"),
    "a chunk of no size": raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}"),
    "a chunk that ends early": raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n{"),
    "deep JSON": status(200, b"[" * 200_000),
    "deep objects": status(200, b'{"token":' * 100_000),
    "null": status(200, b"null"),
    "a number": status(200, b"1" * 5000),
    "a lone surrogate": status(200, b'{"token": "\\ud800", "value": "\\ud800"}'),
    "not UTF-8": status(200, b'{"token": "\xff\xfe", "value": "\xff"}'),
    "a token of bytes in UTF-16": status(200, '{"tok'.encode("utf-16")),
    "a header in a token": status(200, {"token": "x\r\nX: y", "value": "x\r\nX: y"}),
    "a space in a token": status(200, {"token": "a b", "value": "a b"}),
    "a quotation mark in a token": status(200, {"token": 'a"b', "value": 'a"b'}),
    "a token with a letter that is not ASCII": status(200, {"token": "tökén", "value": "tökén"}),
}


@in_background
@each_of(github="github", registry="registry")
def test_what_can_pass_is_tried_again(tmp_path: Path, case: str) -> None:
    with contextlib.ExitStack() as stack:
        started = {}
        for name, fault in CAN_PASS.items():
            world = stack.enter_context(new_world(tmp_path / name))
            (world.github if case == "github" else world.registry).faults = [fault]
            started[name] = world.start(env=world.on_github())
        for name, process in started.items():
            world, result = process.world, process.finish()
            assert result.status == 0, name
            assert result.token in world.registry.live(), name
            assert "Trying again in" in result.stderr, name
            # Each try of the exchange has an identity token of its own.
            sent = [json.loads(request.body)["jwt"] for request in world.registry.requests]
            assert len(set(sent)) == len(sent) == (1 if case == "github" else 2), name


@in_background
@each_of(reset=hang_up, error_503=status(503), lost=lose_the_answer)
def test_a_revocation_is_tried_again(tmp_path: Path, case: Callable[[Handler], None]) -> None:
    with new_world(tmp_path) as world:
        world.run(env=world.on_github())
        world.registry.faults = [case]
        assert world.run("post", env=world.on_github()).status == 0
        assert not world.registry.live()


@each_of(**{str(code): status(code) for code in (301, 400, 401, 403, 404, 418)})
def test_anything_but_a_success_of_github_s_endpoint_is_tried_again(
    tmp_path: Path, case: Callable[[Handler], None]
) -> None:
    with new_world(tmp_path) as world:
        world.github.faults = [case, case, case]
        assert world.run(env=world.on_github()).status == 0


@each_of(**{str(code): status(code) for code in (400, 401, 403, 404, 405, 415, 422)})
def test_a_refusal_of_the_registry_is_final(tmp_path: Path, case: Callable[[Handler], None]) -> None:
    with new_world(tmp_path) as world:
        world.registry.faults = [case]
        assert world.run(env=world.on_github()).status == 1
        assert len(world.registry.requests) == 1


def test_four_tries_are_all_and_the_last_answer_is_shown(tmp_path: Path) -> None:
    with new_world(tmp_path) as world:
        world.registry.faults = [status(503, {"errors": [{"detail": "In maintenance"}]})] * 9
        result = world.run(env=world.on_gitlab())
        assert result.status == 1
        assert len(world.registry.requests) == 4
        trying = "No usable answer from 127.0.0.1: It answered HTTP 503: In maintenance"
        assert (
            transcript(world, result.stderr)
            == f"""\
{trying}. Trying again in <seconds> s.
{trying}. Trying again in <seconds> s.
{trying}. Trying again in <seconds> s.
error: No usable answer from 127.0.0.1
It answered HTTP 503: In maintenance
If 127.0.0.1 works for others, look at this machine's network and proxy (HTTPS_PROXY, NO_PROXY). If the
registry has moved, use its new URL. Then run the job again.
"""
        )


@in_background
@each_of(
    none=("", (0.7, 1.3)),
    seconds=("2", (2, 2)),
    past=("Mon, 01 Jan 2001 00:00:00 GMT", (0.7, 1.3)),
    negative=("-5", (0.7, 1.3)),
    nonsense=("soon", (0.7, 1.3)),
    odd_date=("01 Jan 2001 00.00.00.00 GMT", (0.7, 1.3)),
    other_digits=("\u0663".encode().decode("latin-1"), (0.7, 1.3)),
)
def test_the_pause_before_the_second_try(tmp_path: Path, case: tuple[str, tuple[float, float]]) -> None:
    with new_world(tmp_path) as world:
        value, (least, most) = case
        world.registry.faults = [status(503, Retry_After=value)]
        result = world.run(env=world.on_github())
        match = re.search(r"again in ([0-9.]+) s", result.stderr)
        assert match
        assert least <= float(match[1]) <= most


@each_of(
    seconds="86400",
    date="Fri, 01 Jan 2999 00:00:00 GMT",
    endless="9" * 400,
)
def test_a_long_retry_after_is_cut_to_30_seconds(tmp_path: Path, case: str) -> None:
    with new_world(tmp_path) as world:
        world.registry.faults = [status(503, Retry_After=case)]
        process = world.start(env=world.on_github(), bufsize=0)
        lines = b""
        while b"Trying again" not in lines:
            lines = process.popen.stderr.readline()  # type: ignore[union-attr]
        assert b"Trying again in 30 s." in lines


@in_background
@each_of(**{str(code): code for code in (301, 302, 303, 307, 308)})
def test_a_redirect_is_never_followed(tmp_path: Path, case: int) -> None:
    with new_world(tmp_path / "a") as world, new_world(tmp_path / "b") as elsewhere:
        there = f"{elsewhere.registry.url}/there"
        away = status(case, Location=there)
        world.github.faults = [away] * 4
        for_identity = world.run(env=world.on_github())
        world.registry.faults = [away]
        for_exchange = world.run(env=world.on_github())
        assert world.run(env=world.on_github()).status == 0
        world.registry.faults = [away]
        for_revocation = world.run("post", env=world.on_github())
        for result in (for_identity, for_exchange, for_revocation):
            assert result.status == 1
            assert f"go to {there} (a secret is never sent on to another address)" in result.stderr
        assert len(world.registry.requests) == 3
        assert not elsewhere.registry.requests


def test_over_tls_with_ssl_cert_file_everything_works(tmp_path: Path) -> None:
    with new_world(tmp_path, tls=True) as world:
        assert world.run(env=world.on_github()).status == 0
        assert world.run("post", env=world.on_github()).status == 0
        assert not world.registry.live()


def test_a_certificate_that_is_not_trusted_is_final_and_nothing_was_sent(tmp_path: Path) -> None:
    with new_world(tmp_path, tls=True) as world:
        result = world.run(env=world.on_gitlab(SSL_CERT_FILE=None))
        assert result.status == 1
        assert result.stderr.startswith("error: The certificate of 127.0.0.1 is not trusted\nself")
        assert "SSL_CERT_FILE" in result.stderr
        assert not world.registry.requests


def test_a_certificate_for_another_host_is_final_too(tmp_path: Path) -> None:
    with new_world(tmp_path, tls=True) as world, contextlib.closing(Proxy(world.registry)) as proxy:
        env = world.on_gitlab(HTTPS_PROXY=proxy.url, CRATES_IO_ID_TOKEN="x")
        result = world.run("--url", "crates.io", env=env)
        assert result.status == 1
        assert result.stderr.startswith(
            "error: The certificate of crates.io is not trusted\nHostname mismatch"
        )
        assert not world.registry.requests


def test_https_goes_through_the_proxy_of_the_environment(tmp_path: Path) -> None:
    with new_world(tmp_path, tls=True) as world, contextlib.closing(Proxy()) as proxy:
        assert world.run(env=world.on_github(HTTPS_PROXY=proxy.url)).status == 0
        assert proxy.tunnels == [world.github.authority, world.registry.authority]


def test_no_proxy_is_respected(tmp_path: Path) -> None:
    with new_world(tmp_path, tls=True) as world, contextlib.closing(Proxy()) as proxy:
        assert world.run(env=world.on_github(HTTPS_PROXY=proxy.url, NO_PROXY="127.0.0.1")).status == 0
        assert not proxy.tunnels


def test_plain_http_to_this_machine_never_goes_through_a_proxy(tmp_path: Path) -> None:
    with new_world(tmp_path) as world, contextlib.closing(Proxy()) as proxy:
        env = world.on_github(HTTP_PROXY=proxy.url, http_proxy=proxy.url, ALL_PROXY=proxy.url)
        assert world.run(env=env).status == 0
        assert not proxy.requests


@in_background
def test_an_endless_answer_is_not_read_beyond_a_mebibyte(tmp_path: Path) -> None:
    def endless(handler: Handler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
        with contextlib.suppress(OSError):
            while sent[0] < 64 * 1024 * 1024:
                sent[0] += handler.wfile.write(b" " * 65536)

    sent = [0]
    with new_world(tmp_path) as world:
        world.registry.faults = [endless]
        assert world.run(env=world.on_github()).status == 0
        # Beyond what was read, only the sockets' buffers can hold any.
        assert sent[0] < 16 * 1024 * 1024


def test_one_tls_context_serves_the_whole_run(tmp_path: Path) -> None:
    code = (
        "import runpy, ssl, sys\n"
        "real = ssl.create_default_context\n"
        "ssl.create_default_context = lambda: print('a context', flush=True) or real()\n"
        f"sys.argv = [{str(SCRIPT)!r}]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    with new_world(tmp_path, tls=True) as world:
        result = world.start_command([sys.executable, "-I", "-c", code], env=world.on_github()).finish()
        assert result.outputs
        assert result.stdout == "a context\n"


# Hostile words


HOSTILE = (
    "\r\n::stop-commands::x\n::add-mask::a\u2028::error::b\u0085##[error]c\x1b[31m\x1b]0;d\x07\x00 \u202e"
    + (
        "</code><b>e</b> [f](https://evil.example) ![g](https://evil.example/h.png)\n"
        "```\n# i\n<script>j</script>\n"
    )
)


def assert_harmless(result: Result) -> None:
    """Fail if a line of the log or the summary is not one of ours, or anything in it is active."""
    for text in (result.stdout, result.stderr, result.summary):
        assert all(character.isprintable() for character in text.replace("\n", "")), result
    assert "##[" not in result.stderr + result.stdout
    known = ("::add-mask::", "::error title=", "Trying", "Revoked", "No usable answer", "error: ")
    for line in result.stderr.splitlines():
        if line.lstrip().startswith("::"):
            assert line.startswith(known), result
    fences = [line for line in result.summary.splitlines() if line.lstrip().startswith("```")]
    assert fences in ([], ["```text", "```"]), result
    if fences:
        assert result.summary.startswith("### crates-io-auth failed\n\n```text\n")
        assert result.summary.endswith("\n```\n")


@in_background
@each_of(
    detail_of_the_registry=lambda world: world.registry.faults.append(
        status(400, {"errors": [{"detail": HOSTILE}]})
    ),
    body_of_the_registry=lambda world: world.registry.faults.append(status(418, HOSTILE.encode())),
    detail_before_a_retry=lambda world: world.registry.faults.append(
        status(503, {"errors": [{"detail": HOSTILE}]})
    ),
    body_of_github=lambda world: world.github.faults.extend([status(403, HOSTILE.encode())] * 4),
    claims=lambda world: (
        world.github.claims.update(dict.fromkeys(world.github.claims, HOSTILE)),
        world.registry.faults.append(status(400)),
    ),
    status_line=lambda world: world.registry.faults.append(raw(b"HTTP/1.1 400 ::error::x\r\n\r\n")),
    garbage=lambda world: world.registry.faults.append(raw(HOSTILE.encode())),
    target_of_a_redirect=lambda world: world.registry.faults.append(
        raw(b"HTTP/1.1 302 x\r\nLocation: ::add-mask::\x1b[31m##[error]\xe2\x80\xa8<b>\r\n\r\n")
    ),
)
def test_words_from_outside_stay_words(tmp_path: Path, case: Callable[[World], object]) -> None:
    with new_world(tmp_path / "a") as world:
        case(world)
        assert_harmless(world.run(env=world.on_github()))
    with new_world(tmp_path / "b") as world:
        case(world)
        assert_harmless(world.run(env=world.on_gitlab()))


@each_of(
    url={"INPUT_URL": f"https://{HOSTILE}".replace("\x00", "")},
    endpoint={"ACTIONS_ID_TOKEN_REQUEST_URL": HOSTILE.replace("\x00", "")},
    folder={"RUNNER_TEMP": f"/nowhere/{HOSTILE}".replace("\x00", "")},
    output={"GITHUB_OUTPUT": f"/nowhere/{HOSTILE}".replace("\x00", "")},
    bytes_that_are_no_text={"INPUT_URL": "https://\udcff\udcfe"},
)
def test_words_of_the_environment_stay_words(tmp_path: Path, case: dict[str, str]) -> None:
    with new_world(tmp_path) as world:
        result = world.run(env=world.on_github(**case))
        assert result.status == 1
        assert_harmless(result)
        assert not world.registry.requests


def test_a_registry_that_repeats_the_secret_it_was_sent_does_not_get_it_shown(tmp_path: Path) -> None:
    def echo(handler: Handler) -> None:
        sent = handler.request_read.body.decode() + handler.headers.get("Authorization", "")
        handler.refuse(403, f"You sent {sent}")

    def to_github(handler: Handler) -> None:
        handler.answer(403, f"You sent {handler.headers['Authorization']}".encode(), Retry_After="0")

    with new_world(tmp_path) as world:
        env = world.on_gitlab()
        world.registry.faults = [echo]
        assert 'You sent {"jwt": "***"}' in world.run(env=env).stderr
        world.run(env=env)
        world.registry.faults = [echo]
        assert "You sent Bearer ***" in world.run("post", env=env).stderr
        world.github.faults = [to_github] * 4
        result = world.run(env=world.on_github())
        assert "You sent Bearer ***" in result.stderr
        world.github.faults = [raw(f"Bearer {REQUEST_TOKEN}\r\n\r\n".encode())]
        assert "BadStatusLine: Bearer ***" in world.run(env=world.on_github()).stderr


@in_background
def test_an_answer_made_to_keep_the_censor_busy_does_not_hang_the_job(tmp_path: Path) -> None:
    with new_world(tmp_path) as world:
        world.registry.faults = [status(400, b"eyJ" * 349_000)]
        result = world.run(env=world.on_github())
        assert result.status == 1
        assert "It answered HTTP 400: ***" in result.stderr


@each_of(
    breaks_off=(b"Content-Length: 9999\r\n\r\n%b", False),
    never_ends=(b"Content-Length: 9999\r\n\r\n%b", True),
    chunks_without_end=(b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n", True),
    chunk_of_negative_size=(
        b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n-" + b"f" * 20 + b"\r\n",
        False,
    ),
)
def test_a_whole_token_is_taken_whatever_becomes_of_the_rest_of_the_answer(
    tmp_path: Path, case: tuple[bytes, bool]
) -> None:
    def fault(handler: Handler) -> None:
        token = new_access_token()
        world.registry.minted.append(token)
        body = json.dumps({"token": token}).encode()
        head = case[0] % ((len(body), body) if b"%x" in case[0] else body)
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n" + head)
        if case[1]:
            silence(handler)

    with new_world(tmp_path) as world:
        world.registry.faults = [fault]
        assert world.run(env=world.on_github()).token == world.registry.minted[0]
        assert len(world.registry.requests) == 1


def test_a_token_in_an_error_answer_is_not_shown_nor_one_that_a_cut_goes_through(tmp_path: Path) -> None:
    def far_echo(handler: Handler) -> None:
        handler.answer(400, b"<html>" + b"\n" * 456 + handler.headers["Authorization"].encode())

    with new_world(tmp_path) as world:
        token = new_access_token()
        world.registry.minted.append(token)
        world.registry.faults = [status(500, {"token": token})]
        assert world.run(env=world.on_gitlab()).status == 0
        world.registry.faults = [far_echo]
        result = world.run("post", env=world.on_gitlab())
        assert result.status == 1
        assert "<html> Bearer ***" in result.stderr


# A broken machine


def close_stdout() -> None:
    os.close(1)


def close_stderr() -> None:
    os.close(2)


@on_posix
def test_with_stdout_closed_nothing_is_minted(tmp_path: Path) -> None:
    with new_world(tmp_path) as world:
        result = world.run(env=world.on_gitlab(), stdout=None, preexec_fn=close_stdout)
        assert result.status == 1
        assert "Bad file descriptor" in result.stderr
        assert not world.registry.requests


@on_posix
def test_with_stderr_closed_on_github_nothing_is_minted_for_it_could_not_be_masked(
    tmp_path: Path,
) -> None:
    with new_world(tmp_path) as world:
        result = world.run(env=world.on_github(), stderr=None, preexec_fn=close_stderr)
        assert result.status == 1
        assert result.outputs == ""
        assert not world.registry.requests


@on_linux
def test_with_stderr_full_on_github_no_token_is_handed_over_for_it_could_not_be_masked(
    tmp_path: Path,
) -> None:
    with new_world(tmp_path) as world, open("/dev/full", "wb") as full:
        result = world.run(env=world.on_github(), stderr=full)
        assert result.status == 1
        assert result.outputs == ""
        assert not world.registry.live()


@on_linux
@each_of(closed={"stderr": None, "preexec_fn": close_stderr}, full={})
def test_without_stderr_all_is_revoked_all_the_same(tmp_path: Path, case: dict[str, Any]) -> None:
    with new_world(tmp_path) as world, open("/dev/full", "wb") as full:
        for _ in range(3):
            world.run(env=world.on_github())
        world.registry.faults = [None, status(503)]
        assert world.run("post", env=world.on_github(), **{"stderr": full, **case}).status == 0
        assert not world.registry.live()


def test_with_a_reader_of_stdout_that_is_gone_the_token_is_revoked(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with new_world(tmp_path) as world:
        result = world.run(env=world.on_gitlab(), stdout=writer)
        os.close(writer)
        assert result.status == 1
        assert "Broken pipe" in result.stderr
        assert world.registry.minted
        assert not world.registry.live()


@on_linux
def test_a_temporary_folder_that_takes_no_file_fails_before_anything_is_minted(tmp_path: Path) -> None:
    with new_world(tmp_path) as world:
        (tmp_path / "file").touch()
        for folder in ("/proc", str(tmp_path / "file")):
            result = world.run(env=world.on_github(RUNNER_TEMP=folder))
            assert result.status == 1
            assert "can't" in result.stderr
            assert folder in result.stderr
        assert not world.registry.requests


@on_posix
def test_a_record_that_became_open_to_others_is_revoked_all_the_same(tmp_path: Path) -> None:
    with new_world(tmp_path) as world:
        world.run(env=world.on_github())
        (record,) = world.records()
        record.chmod(0o644)
        assert world.run("post", env=world.on_github()).status == 0
        assert not world.registry.live()


@on_posix
@each_of(github=World.on_github, gitlab=World.on_gitlab)
def test_on_a_disk_that_takes_nothing_any_more_all_is_revoked(
    tmp_path: Path, case: Callable[[World], dict[str, str]]
) -> None:
    import resource

    with new_world(tmp_path) as world:
        for _ in range(3):
            world.run(env=case(world))
        assert len(world.registry.live()) == 3
        limit = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))}
        result = world.run("post", env=case(world), **limit)
        assert result.status == 1
        assert ".jsonl: File too large" in result.stderr
        assert not world.registry.live()
        assert world.run("post", env=case(world)).status == 0
        assert not world.records()


DAMAGED = {
    "garbage": b"\x00\xff\xfe garbage\n",
    "half a line": b'{"registry": "http://127.0.0.1", "tok\n',
    "another shape": b"[1, 2]\n",
    "deep": b"[" * 100_000 + b"\n",
    "a null": b'{"registry": null, "token": null, "minted": null}\n',
    "a token of two lines": b'{"registry": "https://crates.io", "token": "a\\nb", "minted": 1}\n',
    "a lone surrogate": b'{"registry": "https://crates.io", "token": "\\ud800", "minted": 1}\n',
    "a huge number": b'{"registry": "https://crates.io", "token": "a", "minted": ' + b"9" * 9999 + b"}\n",
}


@in_background
@each_of(**{name.replace(" ", "_"): line for name, line in DAMAGED.items()})
def test_good_lines_of_a_damaged_record_are_revoked(tmp_path: Path, case: bytes) -> None:
    with new_world(tmp_path) as world:
        world.run(env=world.on_github())
        (record,) = world.records()
        good = record.read_bytes()
        world.run(env=world.on_github())
        record.write_bytes(good + case + record.read_bytes()[len(good) :])
        result = world.run("post", env=world.on_github())
        assert result.status == 1
        assert f"The record {record} is damaged" in result.stderr
        assert not world.registry.live()
        assert world.run("post", env=world.on_github()).status == 1
        assert len(world.registry.revoked) == 2


def test_a_line_cut_off_without_an_end_does_not_spoil_the_next(tmp_path: Path) -> None:
    with new_world(tmp_path) as world:
        world.run(env=world.on_github())
        (record,) = world.records()
        record.write_bytes(record.read_bytes() + record.read_bytes()[:50])
        world.run(env=world.on_github())
        result = world.run("post", env=world.on_github())
        assert result.status == 1
        assert f"The record {record} is damaged" in result.stderr
        assert not world.registry.live()


def test_a_token_that_is_a_part_of_another_takes_only_its_own_line_out(tmp_path: Path) -> None:
    with new_world(tmp_path / "a") as world, new_world(tmp_path / "b") as odd:
        world.run(env=world.on_github())
        (record,) = world.records()
        part = {"registry": odd.registry.url, "token": "cio_tp_", "minted": 1}
        record.write_text(line_of(part) + record.read_text())
        odd.registry.faults = [status(204)]
        world.registry.faults = [status(400)]
        assert world.run("post", env=world.on_github()).status == 1
        assert len(odd.registry.requests) == 1
        assert world.run("post", env=world.on_github()).status == 0
        assert not world.registry.live()
        assert len(odd.registry.requests) == 1


def test_the_same_token_of_two_registries_is_revoked_at_each(tmp_path: Path) -> None:
    with new_world(tmp_path / "a") as world, new_world(tmp_path / "b") as other:
        token = world.run(env=world.on_github()).token
        other.registry.minted.append(token)
        (record,) = world.records()
        twin = {"registry": other.registry.url, "token": token, "minted": 1}
        record.write_text(line_of(twin) + record.read_text())
        world.registry.faults = [status(400)]
        assert world.run("post", env=world.on_github()).status == 1
        assert not other.registry.live()
        assert world.run("post", env=world.on_github()).status == 0
        assert not world.registry.live()


def test_a_record_that_names_a_refused_registry_sends_nothing_there(tmp_path: Path) -> None:
    with new_world(tmp_path / "a") as world, new_world(tmp_path / "b") as evil:
        world.run(env=world.on_github())
        (record,) = world.records()
        authority = evil.registry.authority
        for url in (
            f"http://user@{authority}",
            f"http://{authority}?x",
            "http://127.0.0.1.evil.example/",
        ):
            record.write_text(line_of({"registry": url, "token": new_access_token()}) + record.read_text())
        result = world.run("post", env=world.on_github())
        assert result.status == 1
        assert result.stderr.count("A secret must not be sent to") == 3
        assert not world.registry.live()
        assert not evil.registry.requests


@on_posix
def test_in_an_ascii_locale_other_letters_are_escaped(tmp_path: Path) -> None:
    with new_world(tmp_path) as world:
        world.registry.faults = [lambda handler: handler.refuse(400, "für crätes")]
        env = world.on_gitlab(LC_ALL="C", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
        result = world.start_command([sys.executable, str(SCRIPT)], env=env).finish()
        assert result.status == 1
        assert "f\\xfcr cr\\xe4tes" in result.stderr


# Signals


def in_flight(fake: Fake) -> threading.Event:
    """Return an event that tells when a request has reached a fake, which then never answers it."""
    reached = threading.Event()

    def fault(handler: Handler) -> None:
        reached.set()
        silence(handler)

    fake.faults.append(fault)
    return reached


SIGNALS = {"int": signal.SIGINT, "term": signal.SIGTERM}


@on_posix
@in_background
@each_of(**SIGNALS)
def test_cancelled_while_github_is_asked(tmp_path: Path, case: signal.Signals) -> None:
    with new_world(tmp_path) as world:
        reached = in_flight(world.github)
        process = world.start(env=world.on_github())
        assert reached.wait(20)
        process.popen.send_signal(case)
        result = process.finish()
        assert (result.status, result.outputs) == (1, "")
        assert result.stderr.startswith("::error title=Cancelled::What this step had got")
        assert not world.registry.requests


@on_posix
@in_background
@each_of(**SIGNALS)
def test_cancelled_while_it_waits_to_try_again(tmp_path: Path, case: signal.Signals) -> None:
    with new_world(tmp_path) as world:
        world.registry.faults = [status(503, Retry_After="30")]
        process = world.start(env=world.on_gitlab())
        assert b"Trying again" in process.popen.stderr.readline()  # type: ignore[union-attr]
        process.popen.send_signal(case)
        result = process.finish()
        assert (result.status, result.stdout) == (1, "")
        assert result.stderr.startswith("error: Cancelled\n")


@on_posix
@in_background
@each_of(**SIGNALS)
def test_cancelled_while_the_token_can_t_be_handed_over(tmp_path: Path, case: signal.Signals) -> None:
    with new_world(tmp_path) as world:
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(writer, b"x" * 65536)
        os.set_blocking(writer, True)
        process = world.start(env=world.on_gitlab(), stdout=writer)
        for _ in range(3):
            process.popen.stderr.readline()  # type: ignore[union-attr]
        process.popen.send_signal(case)
        result = process.finish()
        os.close(reader)
        os.close(writer)
        assert result.status == 1
        assert "Revoked an access token" in result.stderr
        assert world.registry.minted
        assert not world.registry.live()


@on_posix
@in_background
@each_of(**SIGNALS)
def test_post_cancelled_keeps_what_it_has_not_revoked(tmp_path: Path, case: signal.Signals) -> None:
    with new_world(tmp_path) as world:
        for _ in range(3):
            world.run(env=world.on_github())
        world.registry.faults = [None]
        reached = in_flight(world.registry)
        process = world.start("post", env=world.on_github())
        assert reached.wait(20)
        process.popen.send_signal(case)
        result = process.finish()
        assert result.status == 1
        assert "::error title=Cancelled::" in result.stderr
        assert len(world.registry.live()) == 2
        assert world.run("post", env=world.on_github()).status == 0
        assert not world.registry.live()


@on_posix
@in_background
def test_cancelled_while_a_token_that_is_in_no_record_is_revoked_it_is_revoked(tmp_path: Path) -> None:
    import resource

    with new_world(tmp_path) as world:
        world.registry.faults = [None, status(503, Retry_After="1")]
        limit = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20, 20))}
        process = world.start(env=world.on_gitlab(), **limit)
        assert b"Trying again" in process.popen.stderr.readline()  # type: ignore[union-attr]
        process.popen.send_signal(signal.SIGINT)
        assert process.finish().status == 1
        assert world.registry.minted
        assert not world.registry.live()


@on_posix
@in_background
def test_both_signals_at_once_are_one(tmp_path: Path) -> None:
    with new_world(tmp_path) as world:
        reached = in_flight(world.registry)
        process = world.start(env=world.on_github())
        assert reached.wait(20)
        for number in (signal.SIGSTOP, signal.SIGTERM, signal.SIGINT, signal.SIGCONT):
            process.popen.send_signal(number)
        result = process.finish()
        assert result.status == 1
        assert "race condition" not in result.stderr


# Runs the script, and kills it with SIGKILL before the Nth line that it executes after `function` was
# left, in whatever thread. Between two lines lies at most one system call of the script's own.
KILLER = """\
import _thread, os, runpy, signal, sys
script, function, count, *arguments = sys.argv[1:]
left, lines = [], []
def trace(frame, event, argument):
    if frame.f_code.co_filename != script:
        return None
    if event == "return" and frame.f_code.co_name == function:
        left.append(1)
    elif left and event == "line":
        lines.append(1)
        if len(lines) == int(count):
            os.kill(os.getpid(), signal.SIGKILL)
    return trace
def traced(work, arguments):
    return start(lambda: (sys.settrace(trace), work()), arguments)
start, _thread.start_new_thread = _thread.start_new_thread, traced
sys.settrace(trace)
sys.argv = [script, *arguments]
runpy.run_path(script, run_name="__main__")
"""


def killed(world: World, function: str, count: int, *arguments: str) -> bool:
    """Run the script until it is killed. Tell whether it was, before it ended by itself."""
    command = [sys.executable, "-c", KILLER, str(SCRIPT), function, str(count), *arguments]
    return world.start_command(command, env=world.on_github()).finish().status == -signal.SIGKILL


@on_posix
@in_background
@each_of(**{f"line_{count}": count for count in range(1, 41)})
def test_killed_at_any_line_after_the_token_was_recorded_post_revokes_it(tmp_path: Path, case: int) -> None:
    with new_world(tmp_path) as world:
        assert killed(world, "add", case) or case > 10
        assert world.registry.minted
        assert world.run("post", env=world.on_github()).status == 0
        assert not world.registry.live()


@on_posix
@in_background
@each_of(**{f"line_{count}": count for count in range(1, 121, 4)})
def test_post_killed_at_any_line_leaves_what_it_has_not_revoked_to_the_next(
    tmp_path: Path, case: int
) -> None:
    with new_world(tmp_path) as world:
        world.run(env=world.on_github())
        assert killed(world, "record_path", case, "post") or case > 60
        assert world.run("post", env=world.on_github()).status == 0
        assert not world.registry.live()


# Many at once


@in_background
def test_two_dozen_mains_and_several_posts_at_once_lose_no_token(tmp_path: Path) -> None:
    with new_world(tmp_path) as world:
        started = []
        for number in range(24):
            started.append(world.start(env=world.on_gitlab()))
            if number % 6 == 5:
                started.append(world.start("post", env=world.on_gitlab()))
        for process in started:
            assert process.finish().status == 0
        assert len(world.registry.minted) == 24
        lines = "".join(path.read_text() for path in world.records()).splitlines()
        recorded = {json.loads(line)["token"] for line in lines if line.strip()}
        assert world.registry.live() <= recorded
        posts = [world.start("post", env=world.on_gitlab()) for _ in range(3)]
        assert [post.finish().status for post in posts] == [0, 0, 0]
        assert not world.registry.live()
        assert not world.records()
        assert set(world.registry.revoked) == set(world.registry.minted)


# cargo


SPY = """\
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
    let folder = std::env::var("SPY").unwrap();
    let file = std::path::Path::new(&folder).join(std::env::var("CARGO_PKG_NAME").unwrap());
    std::fs::write(file, seen).unwrap();
}
"""


def workspace(world: World) -> Path:
    """Make a workspace of three crates that depend on each other, each with a build script that spies."""
    root = world.folder / "workspace"
    for number, name in enumerate(["alpha", "beta", "gamma"]):
        before = ["alpha", "beta"][number - 1 : number] if number else []
        needs = "".join(
            f'{dep} = {{ path = "../{dep}", version = "0.1.0", registry = "local" }}\n' for dep in before
        )
        (root / name / "src").mkdir(parents=True)
        (root / name / "src/lib.rs").write_text("")
        (root / name / "build.rs").write_text(SPY)
        (root / name / "Cargo.toml").write_text(
            f'[package]\nname = "{name}"\nversion = "0.1.0"\nedition = "2021"\ndescription = "x"\n'
            f'license = "MIT"\npublish = ["local"]\n[dependencies]\n{needs}'
        )
    (root / "Cargo.toml").write_text('[workspace]\nresolver = "2"\nmembers = ["alpha", "beta", "gamma"]\n')
    return root


def for_cargo(world: World) -> dict[str, str | None]:
    """Return what cargo needs in its environment, with the fake as its registry `local`."""
    spied = world.folder / "spied"
    spied.mkdir(exist_ok=True)
    return {
        "HOME": os.environ.get("HOME"),
        "RUSTUP_HOME": os.environ.get("RUSTUP_HOME"),
        "CARGO_HOME": str(world.folder / "cargo"),
        "CARGO_REGISTRIES_LOCAL_INDEX": f"sparse+{world.registry.url}/index/",
        "CARGO_TERM_COLOR": "never",
        "SPY": str(spied),
    }


def cargo(world: World, env: dict[str, str], *arguments: str) -> Result:
    """Publish the workspace with the real cargo."""
    command = [
        program("cargo"),
        "publish",
        "--workspace",
        "--registry",
        "local",
        "--allow-dirty",
        *arguments,
    ]
    return world.start_command(command, env=env, cwd=workspace(world)).finish(120)


def set_up(world: World, **more: str | None) -> dict[str, str]:
    """Run the action with `credential-provider: true`, and return the environment of the next step."""
    world.temp = world.folder / "runner-temp"  # without a space
    world.temp.mkdir()
    (world.folder / "env").touch()
    step = {
        **for_cargo(world),
        "INPUT_URL": None,
        "RUNNER_TEMP": str(world.temp),
        "GITHUB_ENV": str(world.folder / "env"),
        **more,
    }
    result = run_as_the_runner(world, **step, INPUT_CREDENTIAL_PROVIDER="true", INPUT_REGISTRY="local")
    assert (result.status, result.outputs) == (0, ""), result
    assert not world.registry.requests + world.github.requests
    variable, value = (world.folder / "env").read_text().rstrip("\n").split("=", 1)
    assert variable == "CARGO_REGISTRIES_LOCAL_CREDENTIAL_PROVIDER"
    assert stat.S_IMODE(os.stat(value).st_mode) == 0o700
    return world.on_github(**step, **{variable: value})


def assert_nothing_was_spied(world: World) -> None:
    """Fail if a build script saw an identity token or an access token, dead or alive."""
    reports = [path.read_text() for path in (world.folder / "spied").iterdir()]
    assert len(reports) == 3
    for report in reports:
        assert "RUNNER_TEMP=" in report
        assert not any(token in report for token in world.registry.minted)
        assert not any(token in report for token in world.github.issued)


@on_posix
@in_background
def test_cargo_publishes_a_workspace_and_no_build_script_ever_sees_a_token(tmp_path: Path) -> None:
    with new_world(tmp_path) as world:
        env = set_up(world)
        result = cargo(world, env)
        assert result.status == 0, result
        assert sorted(world.registry.published) == ["alpha", "beta", "gamma"]
        assert_nothing_was_spied(world)
        # One to see that there will be one, dead before anything was built, and one for the uploads.
        methods = [r.method for r in world.registry.requests if r.path == TOKENS]
        assert methods == ["POST", "DELETE", "POST"]
        assert result.stderr.index("the one of this trial is already revoked") < result.stderr.index(
            "Compiling"
        )
        assert world.run("post", env=env).status == 0
        assert not world.registry.live()


@on_posix
@in_background
def test_without_verifying_cargo_publishes_and_runs_no_build_script(tmp_path: Path) -> None:
    with new_world(tmp_path) as world:
        result = cargo(world, set_up(world), "--no-verify")
        assert result.status == 0
        assert list(world.registry.published) == ["alpha", "beta", "gamma"]
        assert not list((tmp_path / "spied").iterdir())


@on_posix
@in_background
def test_a_single_use_identity_token_carries_a_whole_workspace(tmp_path: Path) -> None:
    with new_world(tmp_path) as world:
        provider = {"CARGO_REGISTRIES_LOCAL_CREDENTIAL_PROVIDER": str(SCRIPT)}
        path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
        temp = str(world.temp)
        env = world.on_gitlab(**for_cargo(world), **provider, PATH=path, RUNNER_TEMP=temp)
        spied_identity = world.github.issued.pop()  # it is in the environment, as GitLab puts it there
        result = cargo(world, env)
        assert result.status == 0, result
        assert sorted(world.registry.published) == ["alpha", "beta", "gamma"]
        assert_nothing_was_spied(world)
        assert len(world.registry.minted) == 1
        assert spied_identity not in result.stderr
        assert world.run("post", env=env).status == 0
        assert not world.registry.live()


@on_posix
@in_background
def test_a_refusal_stops_cargo_before_it_builds_anything(tmp_path: Path) -> None:
    with new_world(tmp_path) as world:
        env = set_up(world)
        world.registry.faults = []
        refuse = status(400, {"errors": [{"detail": "No Trusted Publishing config found"}]})
        world.registry.behave = lambda handler: (  # type: ignore[method-assign]
            refuse(handler) if handler.command == "POST" else FakeRegistry.behave(world.registry, handler)
        )
        result = cargo(world, env)
        assert result.status != 0
        assert "Compiling" not in result.stderr
        assert "It answered HTTP 400: No Trusted Publishing config found" in result.stderr
        assert "repository: octo/crate" in result.stderr
        assert not (world.folder / "spied/alpha").exists()


@on_posix
@in_background
def test_a_missing_permission_stops_cargo_before_it_builds_anything(tmp_path: Path) -> None:
    with new_world(tmp_path) as world:
        env = set_up(world)
        del env["ACTIONS_ID_TOKEN_REQUEST_URL"]
        result = cargo(world, env)
        assert result.status != 0
        assert "Compiling" not in result.stderr
        assert "id-token: write" in result.stderr


@on_posix
@in_background
def test_a_token_in_the_environment_is_ignored_by_cargo_and_the_action_says_so(tmp_path: Path) -> None:
    with new_world(tmp_path) as world:
        env = set_up(world, CARGO_REGISTRIES_LOCAL_TOKEN="a-long-lived-one")
        result = cargo(world, env)
        assert result.status == 0
        assert "will be ignored" in result.stderr
        used = {r.headers["authorization"] for r in world.registry.requests if r.method == "PUT"}
        assert used <= set(world.registry.minted)
        step = world.on_github(
            INPUT_CREDENTIAL_PROVIDER="true",
            INPUT_URL=None,
            RUNNER_TEMP=str(world.temp),
            GITHUB_ENV=str(world.folder / "env"),
            CARGO_REGISTRY_TOKEN="a-long-lived-one",
        )
        said = world.run(env=step).stderr
        assert said.startswith("::warning title=CARGO_REGISTRY_TOKEN is set%2C and cargo ignores it::")


# The action as cargo's provider


@on_posix
@each_of(
    crates_io=(None, "CARGO_REGISTRY_CREDENTIAL_PROVIDER"),
    another=("my-registry", "CARGO_REGISTRIES_MY_REGISTRY_CREDENTIAL_PROVIDER"),
    no_name=("a\nB=c", "CARGO_REGISTRIES_A_B_C_CREDENTIAL_PROVIDER"),
    other_letters_in_the_path=("local", "CARGO_REGISTRIES_LOCAL_CREDENTIAL_PROVIDER"),
)
def test_the_variable_is_named_after_cargo_s_name_of_the_registry(
    tmp_path: Path, case: tuple[str | None, str]
) -> None:
    with new_world(tmp_path) as world:
        (tmp_path / "env").touch()
        folder = tmp_path / ("t\u00e9mp" if case[0] == "local" else "temp")
        folder.mkdir()
        step = {
            "INPUT_CREDENTIAL_PROVIDER": "true",
            "INPUT_REGISTRY": case[0],
            "RUNNER_TEMP": str(folder),
        }
        env = world.on_github(GITHUB_ENV=str(tmp_path / "env"), **step)
        for _ in range(2):  # a second time, as for a second registry, is fine
            assert world.run(env=env).status == 0
        launcher = re.escape(str(folder)) + r"/crates-io-auth-for-cargo-\w+"
        variables = (tmp_path / "env").read_text(encoding="utf-8")
        assert re.fullmatch(f"({case[1]}={launcher}\n){{2}}", variables)


@on_posix
def test_the_launcher_for_cargo_runs_no_code_of_the_workspace(tmp_path: Path) -> None:
    with new_world(tmp_path) as world:
        env = set_up(world)
        for name in ("json", "urllib", "sitecustomize"):
            (tmp_path / f"{name}.py").write_text("open('was-here', 'w'); raise SystemExit('hostile')")
        launcher = env["CARGO_REGISTRIES_LOCAL_CREDENTIAL_PROVIDER"]
        process = world.start_command([launcher, "--cargo-plugin"], {**env, "PYTHONPATH": str(tmp_path)})
        process.for_cargo = True
        assert '"Err"' in process.finish().stdout
        assert not (tmp_path / "was-here").exists()


@each_of(
    space_in_the_path=(
        {},
        "cargo can start this script only on Linux and macOS, and from a path without spaces",
    ),
    no_permission=({"ACTIONS_ID_TOKEN_REQUEST_TOKEN": None}, "id-token: write"),
)
def test_what_can_t_work_with_cargo_is_said_by_the_action(
    tmp_path: Path, case: tuple[dict[str, str | None], str]
) -> None:
    with new_world(tmp_path) as world:
        (tmp_path / "env").touch()
        step = {"INPUT_CREDENTIAL_PROVIDER": "true", "GITHUB_ENV": str(tmp_path / "env"), **case[0]}
        result = world.run(env=world.on_github(**step))
        assert result.status == 1
        assert case[1] in result.stderr
        assert (tmp_path / "env").read_text() == ""


# cargo's protocol


def ask(world: World, env: dict[str, str], request: object, **more: Any) -> Any:
    """Send the script one line as cargo does, and return its answer."""
    line = request if isinstance(request, bytes) else json.dumps(request).encode() + b"\n"
    with tempfile.TemporaryFile() as stdin:
        stdin.write(line)
        stdin.seek(0)
        command = [sys.executable, "-I", "-S", str(SCRIPT), "--cargo-plugin"]
        process = world.start_command(command, env=env, stdin=stdin, **more)
        process.for_cargo = True
        result = process.finish()
    assert result.status == 0, result
    hello, answer = result.stdout.splitlines()
    assert hello == '{"v":[1]}'
    return json.loads(answer)


def about(
    world: World, kind: str = "get", operation: str | None = "publish", **more: object
) -> dict[str, object]:
    """Return a request of cargo."""
    index = {"index-url": f"sparse+{world.registry.url}/index/", "name": "local"}
    request = {"v": 1, "registry": index, "kind": kind, "operation": operation, **more}
    return {name: value for name, value in request.items() if value is not None}


def test_get_publish_mints_once_and_hands_the_same_token_out_for_25_minutes(tmp_path: Path) -> None:
    with new_world(tmp_path) as world:
        env = world.on_github()
        before = int(time.time())
        answer = ask(world, env, about(world, name="alpha", vers="0.1.0", cksum="0"))["Ok"]
        assert 25 * 60 + before <= answer.pop("expiration") <= 25 * 60 + time.time()
        (token,) = world.registry.minted
        expected = {"kind": "get", "token": token, "cache": "expires", "operation_independent": False}
        assert answer == expected
        assert ask(world, env, about(world))["Ok"]["token"] == token
        # The same, 25 minutes later.
        (record,) = world.records()
        record.write_text(re.sub(r"\d{10}", lambda match: str(int(match[0]) - 25 * 60), record.read_text()))
        assert ask(world, env, about(world))["Ok"]["token"] == world.registry.minted[1] != token
        assert world.run("post", env=env).status == 0
        assert not world.registry.live()


def test_get_read_on_github_tries_it_out_and_leaves_no_token_alive_or_recorded(tmp_path: Path) -> None:
    with new_world(tmp_path) as world:
        other = ask(world, world.on_github(), about(world))["Ok"]["token"]
        answer = ask(world, world.on_github(), about(world, operation="read"))["Ok"]
        assert answer["token"] == world.registry.minted[1]
        assert answer["cache"] == "never"
        assert world.registry.live() == {other}
        assert [json.loads(path.read_text())["token"] for path in world.records()] == [other]


def test_get_read_hands_out_a_live_token_where_the_index_needs_one(tmp_path: Path) -> None:
    with new_world(tmp_path) as world:
        world.registry.config = {"dl": "x", "api": world.registry.url, "auth-required": True}
        answer = ask(world, world.on_github(), about(world, operation="read"))["Ok"]
        assert world.registry.live() == {answer["token"]}
        assert world.run("post", env=world.on_github()).status == 0
        assert not world.registry.live()


def test_get_read_elsewhere_only_looks_at_the_identity_token(tmp_path: Path) -> None:
    with new_world(tmp_path) as world:
        answer = ask(world, world.on_gitlab(), about(world, operation="read"))["Ok"]
        assert answer["cache"] == "never"
        assert not world.registry.minted
        for token, problem in {
            None: "There is no identity token in",
            "not-a-jwt": "can't be used",
            world.github.issue(world.registry.audience, exp=int(time.time()) - 60): "can't be used",
            world.github.issue(world.registry.audience, exp="soon"): "can't be used",
        }.items():
            env = world.on_gitlab(**{world.variable(): token})
            answer = ask(world, env, about(world, operation="read"))
            assert problem in answer["Err"]["message"]


def test_logout_revokes_the_tokens_of_that_registry_alone(tmp_path: Path) -> None:
    with new_world(tmp_path / "a") as world, new_world(tmp_path / "b") as other:
        mine = ask(world, world.on_github(), about(world))["Ok"]["token"]
        env = other.on_github(RUNNER_TEMP=str(world.temp))
        theirs = ask(other, env, about(other))["Ok"]["token"]
        assert ask(world, world.on_github(), about(world, "logout", None)) == {"Ok": {"kind": "logout"}}
        assert world.registry.revoked == [mine]
        assert other.registry.live() == {theirs}
        assert other.run("post", env=env).status == 0
        assert not other.registry.live()


@each_of(
    login=("login", None),
    yank=("get", "yank"),
    unyank=("get", "unyank"),
    owners=("get", "owners"),
    something_new=("get", "dance"),
    no_operation=("get", None),
    another_kind=("dance", None),
)
def test_whatever_else_cargo_wants_is_not_supported(tmp_path: Path, case: tuple[str, str | None]) -> None:
    with new_world(tmp_path) as world:
        answer = ask(world, world.on_github(), about(world, *case))
        assert answer == {"Err": {"kind": "operation-not-supported"}}
        assert not world.registry.requests


@each_of(git="https://git.example/index", missing="sparse+{url}/nothing/", no_api="sparse+{url}/index/")
def test_an_index_that_names_no_registry_is_left_to_the_next_provider(tmp_path: Path, case: str) -> None:
    with new_world(tmp_path) as world:
        world.registry.config = {"dl": "x"}
        registry = {"index-url": case.format(url=world.registry.url), "name": "x"}
        answer = ask(world, world.on_github(), about(world, registry=registry))
        assert answer == {"Err": {"kind": "url-not-supported"}}


@each_of(sparse="sparse+https://index.crates.io/", git="https://github.com/rust-lang/crates.io-index")
def test_crates_io_is_known_by_both_names_of_its_index(tmp_path: Path, case: str) -> None:
    with new_world(tmp_path) as world:
        answer = ask(world, world.base(), about(world, registry={"index-url": case, "name": None}))
        assert answer["Err"]["kind"] == "other"
        assert answer["Err"]["message"].startswith("There is no identity token in CRATES_IO_ID_TOKEN\n")


@each_of(
    plain_http_index=("sparse+http://evil.example/index/", None),
    odd_index=("sparse+https://user@evil.example/index/", None),
    plain_http_api=(None, "http://evil.example"),
    odd_api=(None, "https://evil.example/?x"),
)
def test_index_and_api_pass_the_gate_of_every_url(
    tmp_path: Path, case: tuple[str | None, str | None]
) -> None:
    with new_world(tmp_path) as world:
        world.registry.config = {"dl": "x", "api": case[1]}
        index = case[0] or f"sparse+{world.registry.url}/index/"
        answer = ask(world, world.on_github(), about(world, registry={"index-url": index}))
        assert "A secret must not be sent to" in answer["Err"]["message"]
        assert not world.registry.minted


@each_of(
    nothing=b"",
    garbage=b"\xff\x00{{{\n",
    no_line_end=b"{",
    another_version=b'{"v":2,"kind":"get","operation":"publish","registry":{"index-url":"sparse+https://x/"}}\n',
    another_shape=b'[{"v":1}]\n',
    no_registry=b'{"v":1,"kind":"get","operation":"read"}\n',
    deep=b"[" * 200_000 + b"\n",
    endless=b"x" * 2_000_000,
)
def test_nonsense_on_stdin_gets_an_error_that_cargo_can_show(tmp_path: Path, case: bytes) -> None:
    with new_world(tmp_path) as world:
        error = ask(world, world.on_github(), case)["Err"]
        assert error["kind"] == "other"
        assert error["message"].startswith("This is not a request of cargo")


def test_a_refusal_tells_cargo_what_the_command_line_tells_the_user(tmp_path: Path) -> None:
    with new_world(tmp_path) as world:
        refuse = status(400, {"errors": [{"detail": "Nope"}]})
        world.registry.faults = [None, refuse]
        error = ask(world, world.on_gitlab(), about(world))["Err"]
        world.registry.faults = [refuse]
        said = world.run(env=world.on_gitlab()).stderr
        assert f"error: {error['message']}\n" == said


@each_of(
    another_host={"api": "https://crates.io"},
    a_part_of_it={"api": "https://7.0.0.1"},
    to_read_too={"api": "https://crates.io", "auth-required": True},
)
def test_an_index_can_t_have_a_token_made_for_a_registry_elsewhere(tmp_path: Path, case: object) -> None:
    with new_world(tmp_path) as world:
        world.registry.config = case
        for operation in ("read", "publish"):
            error = ask(world, world.on_github(), about(world, operation=operation))["Err"]
            assert error["message"].startswith("The index at 127.0.0.1 names a registry elsewhere: https://")
        assert not world.github.issued


@each_of(unauthorized=401, forbidden=403, redirect=302)
def test_an_index_that_does_not_show_its_configuration_is_reported(tmp_path: Path, case: int) -> None:
    with new_world(tmp_path) as world:
        world.registry.faults = [status(case)]
        error = ask(world, world.on_github(), about(world))["Err"]
        assert error["kind"] == "other"
        assert f"It answered HTTP {case}" in error["message"]


def test_a_trial_that_was_hard_to_revoke_is_not_handed_out_later(tmp_path: Path) -> None:
    with new_world(tmp_path) as world:
        world.registry.faults = [None, None, *[status(500)] * 4]
        error = ask(world, world.on_github(), about(world, operation="read"))["Err"]
        assert "It answered HTTP 500" in error["message"]
        assert not world.registry.live()
        assert not world.records()
        assert ask(world, world.on_github(), about(world))["Ok"]["token"] in world.registry.live()


def test_a_damaged_record_stops_no_trial_and_is_reported_by_post(tmp_path: Path) -> None:
    with new_world(tmp_path) as world:
        record = world.temp / "crates-io-auth.jsonl"
        record.write_text("garbage\n")
        record.chmod(0o600)
        assert "Ok" in ask(world, world.on_github(), about(world, operation="read"))
        result = world.run("post", env=world.on_github())
        assert result.status == 1
        assert f"The record {record} is damaged" in result.stderr


def test_trials_at_once_leave_nothing_that_is_handed_out_later(tmp_path: Path) -> None:
    with new_world(tmp_path) as world, concurrent.futures.ThreadPoolExecutor(4) as pool:
        read = about(world, operation="read")
        for answer in [pool.submit(ask, world, world.on_github(), read) for _ in range(4)]:
            assert answer.result()["Ok"]
        assert not world.registry.live()
        assert ask(world, world.on_github(), about(world))["Ok"]["token"] in world.registry.live()


def test_a_time_beyond_all_measure_in_the_record_is_no_reason_to_fail(tmp_path: Path) -> None:
    with new_world(tmp_path) as world:
        old = {"registry": world.registry.url, "token": "old", "minted": 10**400}
        (world.temp / "crates-io-auth.jsonl").write_text(line_of(old))
        (world.temp / "crates-io-auth.jsonl").chmod(0o600)
        assert ask(world, world.on_github(), about(world))["Ok"]["token"] in world.registry.live()


def test_elsewhere_a_second_publish_goes_on_with_the_token_of_the_first(tmp_path: Path) -> None:
    with new_world(tmp_path) as world:
        token = ask(world, world.on_gitlab(), about(world))["Ok"]["token"]
        env = world.on_gitlab(**{world.variable(): world.github.issue(world.registry.audience, exp=1)})
        assert "Ok" in ask(world, env, about(world, operation="read"))
        assert ask(world, env, about(world))["Ok"]["token"] == token


@on_posix
def test_a_missing_file_for_variables_is_not_made_for_the_runner_would_never_read_it(tmp_path: Path) -> None:
    with new_world(tmp_path) as world:
        step = {"INPUT_CREDENTIAL_PROVIDER": "true", "RUNNER_TEMP": str(tmp_path), "INPUT_URL": None}
        result = world.run(env=world.on_github(GITHUB_ENV=str(tmp_path / "missing"), **step))
        assert result.status == 1
        assert not (tmp_path / "missing").exists()


def test_a_token_that_cargo_does_not_take_is_revoked(tmp_path: Path) -> None:
    with new_world(tmp_path) as world:
        reader, writer = os.pipe()
        process = world.start("--cargo-plugin", env=world.on_github(), stdin=subprocess.PIPE, stdout=writer)
        os.close(writer)
        assert os.read(reader, 100) == b'{"v":[1]}\n'
        os.close(reader)
        process.popen.stdin.write(json.dumps(about(world)).encode() + b"\n")  # type: ignore[union-attr]
        process.popen.stdin.close()  # type: ignore[union-attr]
        process.popen.stdin = None
        assert process.finish().status == 1
        assert world.registry.minted
        assert not world.registry.live()
        assert ask(world, world.on_github(), about(world))["Ok"]["token"] in world.registry.live()


# What a machine thinks of


ATOMS = [
    *(
        "https://",
        "http://",
        "crates.io",
        "localhost",
        "127.0.0.1",
        "[::1]",
        ":",
        "443",
        "@",
        "/",
        "?",
        "#",
        "%",
    ),
    *(
        "{",
        "}",
        "[",
        "]",
        '"',
        "'",
        ",",
        "null",
        "true",
        "1e999",
        "-1",
        "0",
        "9" * 400,
        "NaN",
        "\\ud800",
        "\\u0000",
    ),
    *(
        '"registry"',
        '"token"',
        '"minted"',
        '"errors"',
        '"detail"',
        '"value"',
        "cio_tp_",
        "eyJ",
        ".",
        "=",
        " ",
        "\t",
    ),
    *(
        "\n",
        "\r",
        "\x00",
        "\x1b",
        "\x7f",
        "\x85",
        "\u2028",
        "\u202e",
        "\ud800",
        "\udcff",
        "ſ",
        "é",
        "٣",
        "𝟘",
        "::",
        "##[",
    ),
    *("Mon", "01 Jan 2001", "00:00:00", "99:99:99", "GMT", "-0000", "+9999", "31 Feb 99999"),
]


def test_whatever_comes_in_only_the_script_s_own_error_comes_out(tmp_path: Path, monkeypatch: Any) -> None:
    import crates_io_auth as script

    for name, value in {"GITHUB_ACTIONS": "true", "RUNNER_TEMP": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    record = script.Record()

    seed = int(os.environ.get("FUZZ_SEED") or random.SystemRandom().randrange(10**9))
    print(f"FUZZ_SEED={seed}")
    dice = random.Random(seed)

    def answer(text: str) -> Any:
        body = text.encode("utf-8", "surrogatepass")
        code = dice.choice([200, 204, 302, 400, 404, 429, 500, 999])
        headers = {"Retry-After": text, "Location": text}
        return script.Answer(host="host", secret="secret", status=code, headers=headers, body=body)

    def recorded(text: str) -> None:
        content = text.encode("utf-8", "surrogatepass")
        Path(record.path).write_bytes(content)
        for grant in record.grants():
            assert script.is_secret(grant.token), (seed, text)
            record.remove(grant)
        assert not record.grants(), (seed, text)
        assert len(Path(record.path).read_bytes()) == len(content), (seed, text)

    targets: list[Callable[[str], object]] = [
        recorded,
        script.registry_url,
        script.url_parts,
        lambda text: answer(text).token("token"),
        lambda text: script.dig(text.encode("utf-8", "surrogatepass"), "errors", 0, "detail"),
        lambda text: answer(text).error(script.REFUSED, registry=text, claims=script.claims_of(text)),
        lambda text: script.claims_of(
            f"x.{base64.urlsafe_b64encode(text.encode('utf-8', 'replace')).decode()}.x"
        ),
        script.retry_after,
    ]
    for _ in range(4000):
        text = "".join(dice.choices(ATOMS, k=dice.randrange(12)))
        if dice.random() < 0.3:
            text = '{"registry": "' + text + '", "token": "' + text + '", "minted": 1}'
        try:
            came_out = dice.choice(targets)(text)
        except script.AuthError as error:
            came_out = error
        if isinstance(came_out, script.AuthError):
            shown = str(came_out)
            assert all(character.isprintable() for character in shown.replace("\n", "")), (seed, text)
            assert "##[" not in shown, (seed, text)
            assert not re.search(r"^\s*(::|```)", shown, flags=re.MULTILINE), (seed, text)


def test_an_unknown_failure_names_its_lines_and_shows_no_traceback() -> None:
    import crates_io_auth as script

    try:
        script.words("{place}")
    except KeyError as error:
        first, second = script.explanation_of(error).split("\n")
    assert re.fullmatch(r"crates_io_auth\.py failed .*: KeyError in lines [0-9]+, [0-9]+", first)
    assert "post" in second


# The action


def composite_steps() -> list[str]:
    """Return the steps of action.yml, as they stand."""
    return (HERE / "action.yml").read_text().partition("  steps:\n")[2].split("    - ")[1:]


def run_as_the_runner(world: World, **more: str | None) -> Result:
    """Run the composite action's own command line the way the runner does for `shell: bash`."""
    (command,) = re.findall(r"^      run: (.+)$", composite_steps()[-1], flags=re.MULTILINE)
    script = world.folder / "step.sh"
    script.write_text(command)
    bash = [program("bash"), "--noprofile", "--norc", "-e", "-o", "pipefail", str(script)]
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
    return world.start_command(
        bash, world.on_github(GITHUB_ACTION_PATH=str(HERE), PATH=path, **more)
    ).finish()


@on_posix
def test_the_action_s_own_command_line_gets_a_token(tmp_path: Path) -> None:
    with new_world(tmp_path) as world:
        assert run_as_the_runner(world).token in world.registry.live()


def test_the_action_schedules_the_revocation_before_it_asks_for_a_token() -> None:
    first, second = composite_steps()
    assert "uses: $/post\n" in first
    assert "crates_io_auth.py" in second


def test_the_action_puts_no_expression_into_a_command_line() -> None:
    for step in composite_steps():
        for line in re.findall(r"run:.*", step):
            assert "${{" not in line


@on_posix
def test_the_action_s_command_line_runs_no_code_of_the_workspace(tmp_path: Path) -> None:
    with new_world(tmp_path) as world:
        for name in ("json", "sitecustomize", "usercustomize", "urllib"):
            (tmp_path / f"{name}.py").write_text("open('was-here', 'w'); raise SystemExit('hostile')")
        result = run_as_the_runner(world, PYTHONPATH=str(tmp_path), PYTHONSTARTUP=str(tmp_path / "json.py"))
        assert result.status == 0
        assert not (tmp_path / "was-here").exists()


def test_the_action_s_process_gets_the_runner_s_signals_itself(tmp_path: Path) -> None:
    (command,) = re.findall(r"^      run: (.+)$", composite_steps()[-1], flags=re.MULTILINE)
    assert command.startswith("exec python3 -I -S ")


def hook(world: World, phase: str, **more: str | None) -> Result:
    """Run main or post of the JavaScript action with the real node."""
    (name,) = re.findall(rf"^  {phase}: (.+)$", (HERE / "post/action.yml").read_text(), flags=re.MULTILINE)
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
    env = world.on_github(**{"PATH": path, **more})
    return world.start_command([program("node"), str(HERE / "post" / name)], env).finish()


@on_posix
def test_the_post_hook_revokes_what_the_action_got(tmp_path: Path) -> None:
    with new_world(tmp_path) as world:
        started = hook(world, "main")
        assert (started.status, started.stdout, started.stderr) == (0, "", "")
        run_as_the_runner(world)
        ended = hook(world, "post")
        assert ended.status == 0
        assert transcript(world, ended.stderr) == "Revoked an access token at http://<registry>.\n"
        assert not world.registry.live()


@on_posix
def test_the_post_hook_passes_a_failure_on(tmp_path: Path) -> None:
    with new_world(tmp_path) as world:
        run_as_the_runner(world)
        world.registry.faults = [status(403)]
        assert hook(world, "post").status == 1


def test_without_python_the_main_hook_says_so_before_anything_is_minted(tmp_path: Path) -> None:
    with new_world(tmp_path) as world:
        result = hook(world, "main", PATH=str(tmp_path))
        assert result.status == 1
        assert result.stdout.startswith("::error title=No Python 3.8 or newer::")
        assert "Install it" in result.stdout


def test_where_the_main_hook_has_found_no_python_the_post_hook_has_nothing_to_say(tmp_path: Path) -> None:
    with new_world(tmp_path) as world:
        state = tmp_path / "state"
        hook(world, "main", PATH=str(tmp_path), GITHUB_STATE=str(state))
        name, _, value = state.read_text().strip().partition("=")
        result = hook(world, "post", PATH=str(tmp_path), **{f"STATE_{name}": value})
        assert (result.status, result.stdout, result.stderr) == (0, "", "")


@on_posix
def test_with_a_python_that_is_too_old_the_main_hook_says_so(tmp_path: Path) -> None:
    with new_world(tmp_path) as world:
        old = tmp_path / "python3"
        old.write_text("#!/bin/sh\nexit 1\n")
        old.chmod(0o755)
        result = hook(world, "main", PATH=str(tmp_path))
        assert result.status == 1
        assert result.stdout.startswith("::error title=No Python 3.8 or newer::")


def test_without_python_the_post_hook_fails_with_a_message(tmp_path: Path) -> None:
    with new_world(tmp_path) as world:
        result = hook(world, "post", PATH=str(tmp_path))
        assert result.status == 1
        assert result.stdout.startswith("::error title=")


# The fakes, served to the project's own workflow


def test_the_served_fakes_tell_whether_the_action_left_a_token(tmp_path: Path) -> None:
    with new_world(tmp_path) as world, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        serving = [sys.executable, str(Path(__file__).resolve()), "serve", str(port)]
        fakes = world.start_command(serving, env=world.base())
        url = f"http://127.0.0.1:{port}"
        said = fakes.popen.stdout.readline()  # type: ignore[union-attr]
        assert said.decode().split() == f"A fake GitHub and a fake registry listen at {url}".split()
        endpoint = {"ACTIONS_ID_TOKEN_REQUEST_URL": f"{url}/identity?api-version=2.0"}
        env = world.on_github(**endpoint, INPUT_URL=url)
        check = [program("node"), str(HERE / ".github/check-revoked/post.js")]
        env_of_check = world.base(INPUT_REGISTRY=url)
        assert world.start_command(check, env_of_check).finish().status == 1  # nothing was minted
        token = world.run(env=env).token
        for status_of_me, given in ((200, token), (403, new_access_token())):
            asked = http.client.HTTPConnection("127.0.0.1", port)
            asked.request("GET", "/api/v1/me", headers={"Authorization": given, "User-Agent": "test"})
            assert asked.getresponse().status == status_of_me
        assert world.start_command(check, env_of_check).finish().status == 1
        assert world.run("post", env=env).status == 0
        result = world.start_command(check, env_of_check).finish()
        assert (result.status, result.stdout) == (0, "access tokens minted: 1, alive: 0\n")


# The demo


@in_background
def test_the_demo_shows_a_token_that_lives_and_then_is_dead(tmp_path: Path) -> None:
    with new_world(tmp_path) as world:
        command = [sys.executable, str(Path(__file__).resolve())]
        nothing_but_python = {"PATH": os.path.dirname(sys.executable)}
        result = world.start_command(command, env=world.base(**nothing_but_python)).finish()
        assert result.status == 0, result
        assert result.stdout.startswith("A fake GitHub and a fake registry")
        alive = re.findall(r"access tokens alive: ([0-9]+)", result.stdout)
        assert alive == ["1", "0"]


@on_posix
@in_background
def test_the_demo_shows_cargo_at_work_too(tmp_path: Path) -> None:
    with new_world(tmp_path) as world:
        cargo_too = {name: os.environ.get(name) for name in ("HOME", "RUSTUP_HOME")}
        path = os.pathsep.join([os.path.dirname(program("cargo")), os.environ["PATH"]])
        command = [sys.executable, str(Path(__file__).resolve())]
        result = world.start_command(command, env=world.base(PATH=path, **cargo_too)).finish(120)
        assert result.status == 0, result
        assert "crates published: alpha, beta, gamma\n" in result.stdout
        assert "tokens that the build scripts saw: 0\n" in result.stdout
        assert re.findall(r"access tokens alive: ([0-9]+)", result.stdout) == ["1", "0"] * 2


# Requests that take too long


@in_background
@each_of(
    silent_registry=("registry", silence),
    headers_that_trickle=("registry", trickle(b"HTTP/1.1 200 OK\r\nX-Slow: ")),
    body_that_trickles=("registry", trickle(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")),
    silent_github=("github", silence),
)
def test_a_request_that_takes_30_seconds_is_given_up_and_tried_again(
    tmp_path: Path, case: tuple[str, Callable[[Handler], None]]
) -> None:
    with new_world(tmp_path) as world:
        getattr(world, case[0]).faults = [case[1]]
        result = world.run(env=world.on_github())
        assert result.status == 0
        assert result.token in world.registry.live()
        assert "It took more than 30 s. Trying again" in result.stderr


if __name__ == "__main__":
    sys.exit(serve(int(sys.argv[2])) if sys.argv[1:2] == ["serve"] else demo())
