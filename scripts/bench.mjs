// Builds if a source is newer than the build, then runs the bench. Arguments choose rows by a part
// of their name: `npm run bench -- spawn`.
import { spawnSync } from "node:child_process";
import { buildIfOlder } from "./build-if-older.mjs";

const main = "dist/bench/main.js";

buildIfOlder(main, ["src", "bench"]);
const result = spawnSync(process.execPath, ["--enable-source-maps", main, ...process.argv.slice(2)], {
  stdio: "inherit",
});
process.exit(result.status ?? 1);
