// Builds if a source is newer than the build, then breaks a real cluster: `npm run chaos -- --help`.
//
// As root everything runs in namespaces of its own: network faults and mounts touch nothing else on
// the machine, and whatever the run starts ends with it. A small init reaps orphans, as every system
// has one. As another user the run does without, and says which faults it leaves out. So does the
// scenario whose workers are containers: they are on the network of their engine.
import { spawn, spawnSync } from "node:child_process";
import { buildIfOlder } from "./build-if-older.mjs";

const main = process.env.HODEI_CHAOS_MAIN ?? "dist/chaos/main.js";
const INIT = `ip link set lo up
"$@" &
wait $!`;
const KEPT = ["HODEI_TEST_PROGRAM", "HODEI_TEST_DOCKER_HOST"];

if (process.env.HODEI_CHAOS_MAIN === undefined) buildIfOlder(main, ["src", "e2e", "chaos"]);

const env = Object.fromEntries(
  Object.entries(process.env).filter(([name]) => !name.startsWith("HODEI_") || KEPT.includes(name)),
);
const words = [process.execPath, "--enable-source-maps", main, ...process.argv.slice(2)];
const namespaces = ["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"];
const hasContainers = process.argv.includes("docker-pool");
const isIsolated =
  !hasContainers && process.getuid?.() === 0 && spawnSync("unshare", [...namespaces, "true"]).status === 0;
const child = isIsolated
  ? spawn("unshare", [...namespaces, "bash", "-c", INIT, "bash", ...words], {
      stdio: "inherit",
      env: { ...env, HODEI_CHAOS_NAMESPACE: "1" },
    })
  : spawn(words[0], words.slice(1), { stdio: "inherit", env });
// The end of its first process ends everything in the namespace.
for (const signal of ["SIGINT", "SIGTERM"]) {
  process.on(signal, () => child.kill(isIsolated ? "SIGKILL" : signal));
}
child.on("exit", (code) => process.exit(code ?? 1));
