/** Finds the processes of a PostgreSQL. */

import { readFile, readdir } from "node:fs/promises";
import { identifyProcess, type ProcessIdentity } from "../src/base/process-identity.ts";

/** Those that serve a client; they call themselves `postgres: <cluster>: <user> <database> [local] …`. */
export async function clientBackends(postmasterPid: number): Promise<ProcessIdentity[]> {
  const backends: ProcessIdentity[] = [];
  for (const pid of (await readdir("/proc")).filter((name) => /^\d+$/.test(name))) {
    const status = await readFile(`/proc/${pid}/status`, "utf8").catch(() => "");
    if (!status.includes(`\nPPid:\t${postmasterPid}\n`)) continue;
    const title = await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "");
    if (title.includes("[local]")) backends.push(identifyProcess(Number(pid)));
  }
  return backends;
}
