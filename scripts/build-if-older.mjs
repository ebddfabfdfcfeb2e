// Builds everything if a source in one of the folders is newer than what was built of them.
import { execFileSync } from "node:child_process";
import { existsSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";

export function buildIfOlder(built, folders) {
  const builtMs = existsSync(built) ? statSync(built).mtimeMs : 0;
  if (folders.some((folder) => isNewer(folder, builtMs))) {
    execFileSync(process.execPath, ["scripts/build.mjs"], { stdio: "inherit" });
  }
}

function isNewer(folder, thanMs) {
  return readdirSync(folder, { recursive: true }).some(
    (name) => name.endsWith(".ts") && statSync(join(folder, name)).mtimeMs > thanMs,
  );
}
