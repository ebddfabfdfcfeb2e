/** Reading and writing the files of cgroup hierarchies, alike for v1 and v2. */

import {
  closeSync,
  existsSync,
  openSync,
  readdirSync,
  readSync,
  rmdirSync,
  statSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { dirname, join } from "node:path";
import type { Clock } from "../../base/clock.ts";
import { AppError, systemErrorCode } from "../../base/errors.ts";

/** A directory in a hierarchy that this process can fork into. */
export interface CgroupHome {
  /** The file through which a cgroup of this hierarchy is entered. */
  entrance: Entrance;
  /** That of the cgroup this process lives in, kept open: moving back must not fail for want of file descriptors. */
  fd: number;
}

/**
 * `tasks` of version 1 moves the writing thread alone, and it is this thread that forks, so its
 * child is born inside. `cgroup.procs` moves the whole process, for which the kernel must keep
 * every process of the machine from forking and ending meanwhile: under load that costs
 * milliseconds. In version 2 a process cannot be spread over cgroups that have controllers.
 */
type Entrance = "tasks" | "cgroup.procs";

export function openCgroupHome(path: string, entrance: Entrance): CgroupHome {
  return { entrance, fd: openSync(join(path, entrance), "w") };
}

export function closeCgroupHome(home: CgroupHome): void {
  closeSync(home.fd);
}

/**
 * Moves this thread into `places`, one in each hierarchy, for the time of `fork`, which must be
 * synchronous. The child is so born in its cgroup, without a wrapper and without a moment
 * outside. "0" means the writer itself in whatever pid namespace it is (cgroups(7)).
 */
export function forkInside<T>(places: readonly { home: CgroupHome; directory: string }[], fork: () => T): T {
  const entered: CgroupHome[] = [];
  try {
    for (const { home, directory } of places) {
      writeFileSync(join(directory, home.entrance), "0");
      entered.push(home);
    }
    return fork();
  } finally {
    for (const home of entered) writeSync(home.fd, "0");
  }
}

/** The pids in a cgroup and in those that its processes made below it. */
export function readCgroupPids(directory: string): number[] {
  const pids: number[] = [];
  for (const path of withSubdirectories(directory)) {
    for (const line of readOrEmpty(join(path, "cgroup.procs")).split("\n")) {
      // A "0" is a process outside of our pid namespace; nothing can be done to it from here.
      if (line !== "" && line !== "0") pids.push(Number(line));
    }
  }
  return pids;
}

/** The directory and all below it, children before their parents. */
export function withSubdirectories(directory: string): string[] {
  // In cgroup file systems the link count is two more than the number of subdirectories.
  const stats = statSync(directory, { throwIfNoEntry: false });
  if (stats === undefined) return [];
  if (stats.nlink === 2) return [directory];
  const below = readdirSync(directory, { withFileTypes: true }).filter((entry) => entry.isDirectory());
  return [...below.flatMap((entry) => withSubdirectories(join(directory, entry.name))), directory];
}

/** Removes an empty cgroup and those below it. False if a process that just ended still holds it. */
function removeCgroup(directory: string): boolean {
  try {
    for (const path of withSubdirectories(directory)) rmdirSync(path);
    return true;
  } catch (error) {
    if (systemErrorCode(error) === "ENOENT") return true;
    return false;
  }
}

const REMOVE_TRIES = 8;

/** Tries again for a second. False if it is still there, which is left to the next runner or sweep. */
export async function removeCgroupSoon(directory: string, clock: Clock): Promise<boolean> {
  for (let pauseMs = 4, tries = 0; tries < REMOVE_TRIES; pauseMs *= 2, tries++) {
    if (removeCgroup(directory)) return true;
    await clock.sleep(pauseMs);
  }
  return false;
}

/** Kernel files are read into here: `readFileSync` would take 64 KiB of fresh memory for each. */
const readBuffer = Buffer.allocUnsafeSlow(16 * 1024);
const SHORT_READ_BYTES = 1024;

export function readOrEmpty(path: string): string {
  let fd = -1;
  try {
    fd = openSync(path, "r");
    let text = "";
    for (;;) {
      const count = readSync(fd, readBuffer, 0, readBuffer.byteLength, null);
      text += readBuffer.toString("latin1", 0, count);
      // The kernel gives these files in pieces of whole lines up to a page; a short one is the last.
      if (count < SHORT_READ_BYTES) return text;
    }
  } catch {
    // A controller that is not there, or a cgroup or process that is gone: there is nothing to tell.
    return "";
  } finally {
    if (fd >= 0) closeSync(fd);
  }
}

/** A file that holds one number; 0 if there is none. */
export function readNumber(path: string): number {
  const value = Number.parseInt(readOrEmpty(path), 10);
  return Number.isFinite(value) ? value : 0;
}

/** The number after `key` in a file of `key value` lines; 0 if there is none. */
export function readKeyed(path: string, key: string): number {
  const line = readOrEmpty(path)
    .split("\n")
    .find((text) => text.startsWith(`${key} `));
  return line === undefined ? 0 : Number(line.slice(key.length + 1));
}

export function writeCgroupFile(path: string, value: string): void {
  try {
    writeFileSync(path, value);
  } catch (cause) {
    // A cgroup that is gone has no processes for which the value could count.
    if (systemErrorCode(cause) === "ENOENT" && !existsSync(dirname(path))) return;
    throw new AppError("internal", `write ${value} to ${path}`, { cause });
  }
}
