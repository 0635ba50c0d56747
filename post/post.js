// Runs when the job ends, whatever happened in it. It never changes the result of the job: a release that is
// out is out, and a token that is left expires by itself.
const { spawnSync } = require("node:child_process");
const { join } = require("node:path");

const python = process.env.STATE_python ?? "python3";
// Empty if main.js has found no Python: then there is nothing to revoke.
if (python !== "") {
  const script = join(__dirname, "..", "crates_io_auth.py");
  const revocation = spawnSync(python, ["-I", "-S", script, "post"], { cwd: __dirname, stdio: "inherit" });
  if (revocation.status === null) {
    console.log(
      `::warning title=crates-io-auth::crates-io-auth couldn't run python3 to its end ` +
        `(${revocation.error?.code ?? revocation.signal}), so an access token may be left. ` +
        `It expires by itself, on crates.io 30 minutes after it was issued.`,
    );
  }
}
