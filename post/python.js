// Finds python3 in the absolute folders of PATH. On Windows, node would look for a bare name in the current
// folder first, which is the workspace.
const { statSync } = require("node:fs");
const { delimiter, isAbsolute, join } = require("node:path");

const name = process.platform === "win32" ? "python3.exe" : "python3";
const folders = (process.env.PATH ?? "").split(delimiter).filter(isAbsolute);
const isFile = (path) => statSync(path, { throwIfNoEntry: false })?.isFile() ?? false;

module.exports = folders.map((folder) => join(folder, name)).find(isFile);
