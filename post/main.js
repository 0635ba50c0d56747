// Runs first. It makes the runner register post.js, and says so now if there is no Python to run later.
const { spawnSync } = require("node:child_process");

// In this folder, for PATH can have relative folders, and those of the workspace are not to be trusted.
const isNewEnough = ["-I", "-S", "-c", "import sys; sys.exit(sys.version_info < (3, 8))"];
if (spawnSync("python3", isNewEnough, { cwd: __dirname }).status !== 0) {
  console.log(
    "::error title=crates-io-auth::crates-io-auth needs python3, version 3.8 or newer, and didn't find it in PATH. " +
      "Install it in an earlier step: with actions/setup-python, or in a container with apt-get update && apt-get " +
      "install --yes python3, or apk add bash python3. No access token was requested.",
  );
  process.exitCode = 1;
}
