// Runs first. It makes the runner register post.js, and finds the Python that will be needed.
const { spawnSync } = require("node:child_process");
const { appendFileSync, existsSync } = require("node:fs");
const { devNull } = require("node:os");
const { delimiter, isAbsolute, join } = require("node:path");

// By its path: on Windows, node would look for a bare name in the current folder first, which is the workspace.
const name = process.platform === "win32" ? "python3.exe" : "python3";
const folders = (process.env.PATH ?? "").split(delimiter).filter(isAbsolute);
const isNewEnough = ["-I", "-S", "-c", "import sys; sys.exit(sys.version_info < (3, 8))"];
let python = "";
for (const path of folders.map((folder) => join(folder, name)).filter(existsSync)) {
  const { error, status } = spawnSync(path, isNewEnough, { cwd: __dirname });
  // As bash does, pass over what can't be executed. A line break in the path would be another line of the state.
  if (error === undefined && !/[\r\n]/.test(path)) {
    python = status === 0 ? path : "";
    break;
  }
}

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
