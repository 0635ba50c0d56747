// Runs when the job ends, whatever happened in it. It never changes the result of the job: a release that is
// out is out, and a token that is left expires by itself.
const { spawnSync } = require("node:child_process");
const { join } = require("node:path");
const python = require("./python.js");

// Unless main.js has found no Python: then there is nothing to revoke.
if (process.env.STATE_python !== "missing") {
  const script = join(__dirname, "..", "crates_io_auth.py");
  const revoke = () => spawnSync(python, ["-I", "-S", script, "post"], { cwd: __dirname, stdio: "inherit" });
  if (python === undefined || revoke().status === null) {
    console.log(
      "::warning title=crates-io-auth::python3 is no longer available, so no access token could be revoked. " +
        "If this job got one, it expires by itself, on crates.io 30 minutes after it was issued.",
    );
  }
}
