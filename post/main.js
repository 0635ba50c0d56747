// Runs first. It makes the runner register post.js, and finds the Python that will be needed.
const { spawnSync } = require("node:child_process");
const { appendFileSync, existsSync } = require("node:fs");
const { devNull } = require("node:os");
const { delimiter, isAbsolute, join } = require("node:path");

// By its path: on Windows, node would look for a bare name in the current folder first, which is the workspace.
const name = process.platform === "win32" ? "python3.exe" : "python3";
const folders = (process.env.PATH ?? "").split(delimiter).filter((folder) => isAbsolute(folder) && !/[\r\n]/.test(folder));
const isNewEnough = ["-I", "-S", "-c", "import sys; sys.exit(sys.version_info < (3, 8))"];
const [first] = folders
  .map((folder) => join(folder, name))
  .filter(existsSync)
  .map((path) => ({ path, ...spawnSync(path, isNewEnough, { cwd: __dirname }) }))
  .filter(({ error }) => error === undefined); // like bash, which passes over what can't be executed
const python = first?.status === 0 ? first.path : "";

// For post.js. Written in any case, so that no variable of an earlier step can take its place.
appendFileSync(process.env.GITHUB_STATE || devNull, `python=${python}\n`);
if (python === "") {
  console.log(
    "::error title=crates-io-auth::crates-io-auth needs python3, version 3.8 or newer, and didn't find it in PATH. " +
      "Install it in an earlier step (in a container: apt-get update && apt-get install --yes python3, or " +
      "apk add bash python3). No access token was requested.",
  );
  process.exitCode = 1;
}
