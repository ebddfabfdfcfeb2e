// Runs the simulation of sim/ from the compiled program; builds it first unless told not to.
import { execFileSync, spawnSync } from "node:child_process";

if (!process.env.HODEI_TEST_NO_BUILD)
  execFileSync(process.execPath, ["scripts/build.mjs"], { stdio: "inherit" });
const { status } = spawnSync(
  process.execPath,
  ["--enable-source-maps", "dist/sim/main.js", ...process.argv.slice(2)],
  { stdio: "inherit" },
);
process.exit(status ?? 1);
