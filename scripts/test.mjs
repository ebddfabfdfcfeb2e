// Runs the compiled tests with node:test. Arguments choose files by a part of their path:
// `npm test -- storage` runs every test file with "storage" in its path.
import { execFileSync, spawnSync } from "node:child_process";
import { readdirSync } from "node:fs";
import { join } from "node:path";

const wanted = process.argv.slice(2);
if (!process.env.HODEI_TEST_NO_BUILD)
  execFileSync(process.execPath, ["scripts/build.mjs"], { stdio: "inherit" });

const files = readdirSync("dist", { recursive: true })
  .filter((name) => name.endsWith(".test.js"))
  .map((name) => join("dist", name))
  .filter((path) => wanted.length === 0 || wanted.some((part) => path.includes(part)))
  .toSorted();
if (files.length === 0) {
  console.error(`no test file matches ${wanted.join(" ") || "dist/**/*.test.js"}`);
  process.exit(1);
}
const result = spawnSync(
  process.execPath,
  ["--test", "--test-timeout=120000", "--test-concurrency=2", "--enable-source-maps", ...files],
  { stdio: "inherit" },
);
process.exit(result.status ?? 1);
