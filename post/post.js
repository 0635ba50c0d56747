// Runs when the job ends, whatever happened in it.
const { spawnSync } = require("node:child_process");
const { join } = require("node:path");

// Unless main.js has said that there is no Python: then there is nothing to revoke.
if (process.env.STATE_python !== "missing") {
  const script = join(__dirname, "..", "crates_io_auth.py");
  const { status } = spawnSync("python3", ["-I", "-S", script, "post"], { stdio: "inherit" });
  if (status === null) {
    console.log(
      "::error title=No Python to revoke with::python3 is gone. If this job got an access token, " +
        "crates.io ends it 30 minutes after it was made.",
    );
  }
  process.exitCode = status ?? 1;
}
