// Runs when the job ends, whatever happened in it. It never changes the result of the job: a release that is
// out is out, and a token that is left expires by itself.
const { spawnSync } = require("node:child_process");
const { join } = require("node:path");

const command = ["-I", "-S", join(__dirname, "..", "crates_io_auth.py"), "post"];
const { status, error, signal } = spawnSync("python3", command, { cwd: __dirname, stdio: "inherit" });
if (status === null) {
  console.log(
    `::warning title=crates-io-auth::crates-io-auth couldn't run python3 to its end (${error?.code ?? signal}). ` +
      "If this job got an access token, it expires by itself, on crates.io after 30 minutes.",
  );
}
