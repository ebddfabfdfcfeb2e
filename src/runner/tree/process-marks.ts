/**
 * How a process that has done all to get away is recognised without a cgroup: by what it inherited.
 *
 * An environment can be cleared (`env -i`), and session, group and parent can be left behind. A
 * resource limit stays over fork, exec and all of these. The limit on file locks is one that the
 * kernel has not looked at since Linux 2.4.25 (getrlimit(2), RLIMIT_LOCKS), so that it can hold a
 * number of ours. Node.js cannot set limits; `prlimit` of util-linux can, and where it is missing
 * the environment must do.
 */

import { spawnSync } from "node:child_process";
import { commandOf } from "../../base/brought-programs.ts";
import { sha256Hex } from "../../base/random.ts";
import { readOrEmpty } from "./cgroup-files.ts";

const PRLIMIT_TIMEOUT_MS = 5_000;
let hasPrlimit = true;
/** The mark that this process bears. */
let ownLimit = "";

/**
 * Gives this process, and so what it forks from now on, the mark of an attempt, where the system can.
 * Synchronous, because nothing else may be forked in between; it takes a few milliseconds.
 */
export function markOwnLimit(attemptId: string): void {
  const limit = limitOf(attemptId);
  if (!hasPrlimit || ownLimit === limit) return;
  const { file, args } = commandOf("prlimit");
  const { status } = spawnSync(file, [...args, "--pid", String(process.pid), `--locks=${limit}:`], {
    stdio: "ignore",
    timeout: PRLIMIT_TIMEOUT_MS,
  });
  hasPrlimit = status === 0;
  ownLimit = limit;
}

/** Which of some attempts a process comes from, by its limit alone: a test for each process. */
export function limitMark(attemptIds: readonly string[]): (pid: number) => boolean {
  const limits = new Set(attemptIds.map(limitOf));
  return (pid) => {
    const found = /^Max file locks +(\d+) /m.exec(readOrEmpty(`/proc/${pid}/limits`));
    return found !== null && limits.has(found[1] ?? "");
  };
}

/** Whether a variable begins with `marker`; a marker that is a whole variable fits only itself. */
export function hasInEnvironment(pid: number, marker: string): boolean {
  const text = readOrEmpty(`/proc/${pid}/environ`);
  return text.startsWith(marker) || text.includes(`\0${marker}`);
}

/** 48 bits of the hash: nobody sets such a limit by chance. */
function limitOf(attemptId: string): string {
  return String(Number.parseInt(sha256Hex(attemptId).slice(0, 12), 16) + 2 ** 48);
}
