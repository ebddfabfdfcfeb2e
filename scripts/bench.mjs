// Builds if a source is newer than the build, then runs the bench. Arguments choose rows by a part
// of their name: `npm run bench -- spawn`.
import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";

const main = "dist/bench/main.js";

function isNewer(folder, thanMs) {
  return readdirSync(folder, { recursive: true }).some(
    (name) => name.endsWith(".ts") && statSync(join(folder, name)).mtimeMs > thanMs,
  );
}

const builtMs = existsSync(main) ? statSync(main).mtimeMs : 0;
if (isNewer("src", builtMs) || isNewer("bench", builtMs)) {
  execFileSync(process.execPath, ["scripts/build.mjs"], { stdio: "inherit" });
}
const result = spawnSync(process.execPath, ["--enable-source-maps", main, ...process.argv.slice(2)], {
  stdio: "inherit",
});
process.exit(result.status ?? 1);
