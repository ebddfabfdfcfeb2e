// Runs the compiled tests with node:test. Arguments choose files by a part of their path:
// `npm test -- storage` runs every test file with "storage" in its path.
//
// With HODEI_TEST_SECOND_TRY, a file in which something failed is run once more, alone: many tests start
// real processes, and a machine that is busy with other tests can be too slow for one. It is said at the
// end which files needed that, because each of them is a defect to look into.
import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";

/**
 * Only for what hangs. It counts for a whole file as well as for each of its tests, and the longest files
 * (a thousand simulated clusters, a thousand jobs) take minutes on a quarter of a slow processor.
 */
const FILE_LIMIT_MS = 300_000;

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
const directory = mkdtempSync(join(tmpdir(), "hodei-tests-"));
const first = run(files);
const isSecondTry = process.env.HODEI_TEST_SECOND_TRY !== undefined && first.status !== 0;
const failed = isSecondTry ? first.failed.map((file) => relative(process.cwd(), file)) : [];
const again = failed.filter((file) => run([file]).status !== 0);
if (isSecondTry) {
  console.error(`\nfailed at the first try: ${failed.join(", ") || "no file that could be told"}`);
  console.error(`failed again, alone: ${again.join(", ") || "none"}`);
}
rmSync(directory, { recursive: true });
const isMended = failed.length > 0 && again.length === 0;
process.exit(isMended ? 0 : first.status);

function run(paths) {
  const list = join(directory, "failed");
  const shown = process.stdout.isTTY ? "spec" : "tap";
  const reporters = [
    ...["--test-reporter", shown, "--test-reporter-destination", "stdout"],
    ...["--test-reporter", "./scripts/failed-files.mjs", "--test-reporter-destination", list],
  ];
  const limits = [`--test-timeout=${FILE_LIMIT_MS}`, "--test-concurrency=2"];
  const { status } = spawnSync(
    process.execPath,
    ["--test", ...limits, "--enable-source-maps", ...reporters, ...paths],
    { stdio: "inherit" },
  );
  return { status: status ?? 1, failed: readFileSync(list, "utf8").split("\n").filter(Boolean) };
}
