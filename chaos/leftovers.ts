/** What a cluster leaves behind after its end: processes and cgroups. */

import { readFile, readdir, readlink, rmdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { systemClock } from "../src/base/clock.ts";
import { sha256Hex } from "../src/base/random.ts";
import type { Cluster } from "./cluster.ts";

const CGROUP_ROOT = "/sys/fs/cgroup";
const CGROUP_DEPTH = 4;
/** A process may need a moment to be gone. */
const PATIENCE_MS = 10_000;
const POLL_MS = 250;

/** In words; empty if there is nothing. */
export async function findLeftovers(cluster: Cluster): Promise<string[]> {
  const endMs = systemClock.monotonicMs() + PATIENCE_MS;
  for (;;) {
    const found = [...(await leftProcesses(cluster)), ...(await leftCgroups(cluster))];
    if (found.length === 0 || systemClock.monotonicMs() > endMs) return found;
    await systemClock.sleep(POLL_MS);
  }
}

/** In a namespace of our own every process but init and this one; else those that name the directory. */
async function leftProcesses(cluster: Cluster): Promise<string[]> {
  const isIsolated = process.env["HODEI_CHAOS_NAMESPACE"] === "1";
  const found: string[] = [];
  for (const pid of (await readdir("/proc")).filter((name) => /^\d+$/.test(name))) {
    if (Number(pid) === process.pid || (isIsolated && pid === "1")) continue;
    const words = await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "");
    // Kernel threads and zombies have none.
    if (words === "") continue;
    const isOurs = isIsolated || (await names(pid, cluster.directory));
    if (isOurs) found.push(`process ${pid} is left behind: ${words.replaceAll("\0", " ").slice(0, 200)}`);
  }
  return found;
}

async function names(pid: string, directory: string): Promise<boolean> {
  const traces = await Promise.all([
    readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => ""),
    readFile(`/proc/${pid}/environ`, "utf8").catch(() => ""),
    readlink(`/proc/${pid}/cwd`).catch(() => ""),
  ]);
  return traces.some((text) => text.includes(directory));
}

async function leftCgroups(cluster: Cluster): Promise<string[]> {
  return (await findCgroups(cluster)).map((path) => `cgroup ${path} is left behind`);
}

/** The next run on this machine shall not find them. What is frozen in them cannot even be killed. */
export async function removeCgroups(cluster: Cluster): Promise<void> {
  for (const path of await findCgroups(cluster)) {
    const inside = await readdir(path, { withFileTypes: true, recursive: true });
    const directories = inside.filter((entry) => entry.isDirectory());
    const paths = [...directories.map((entry) => join(entry.parentPath, entry.name)).toReversed(), path];
    for (const frozen of paths) await writeFile(join(frozen, "freezer.state"), "THAWED").catch(ignore);
    await systemClock.sleep(POLL_MS);
    for (const empty of paths) await rmdir(empty).catch(ignore);
  }
}

function ignore(): void {
  // It was reported as left behind, which is all that can be done.
}

/** A runner names its cgroup after its directory. */
async function findCgroups(cluster: Cluster): Promise<string[]> {
  const ours = new Set<string>();
  for (const workerId of await cluster.knownWorkerIds()) {
    const directory = join(cluster.dataDirectory, "workers", workerId);
    ours.add(`hodei-${sha256Hex(directory).slice(0, 16)}`);
  }
  const found: string[] = [];
  const search = async (parent: string, depth: number): Promise<void> => {
    const entries = await readdir(parent, { withFileTypes: true }).catch(() => []);
    for (const entry of entries) {
      if (!entry.isDirectory()) continue;
      const path = join(parent, entry.name);
      if (ours.has(entry.name)) found.push(path);
      else if (depth > 1) await search(path, depth - 1);
    }
  };
  await search(CGROUP_ROOT, CGROUP_DEPTH);
  return found;
}
