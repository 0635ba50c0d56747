// Runs first. It makes the runner register post.js, and looks for the Python that will be needed.
const { spawnSync } = require("node:child_process");
const { appendFileSync } = require("node:fs");
const { devNull } = require("node:os");

const { status } = spawnSync("python3", ["-I", "-S", "-c", "import sys; sys.exit(sys.version_info < (3, 8))"]);
if (status !== 0) {
  console.log(
    "::error title=No Python 3.8 or newer::crates-io-auth runs on python3, which is missing or too old here. " +
      "Install it in an earlier step (in a container: apt-get install python3, or apk add bash python3). " +
      "No access token was asked for.",
  );
  appendFileSync(process.env.GITHUB_STATE || devNull, "python=missing\n"); // for post.js
  process.exitCode = 1;
}
