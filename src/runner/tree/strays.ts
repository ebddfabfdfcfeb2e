/**
 * Ends what a dead runner of a directory has left: processes, wherever its mark says that they are
 * and whatever bears the mark of one of its attempts, and then its cgroups.
 */

import { existsSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import type { Clock } from "../../base/clock.ts";
import { readRunnerMark, removeRunnerMark } from "../../base/runner-mark.ts";
import { removeCgroupSoon } from "./cgroup-files.ts";
import { killInFreezer } from "./cgroup-v1.ts";
import { killInCgroup } from "./cgroup-v2.ts";
import { describeProcesses, listProcesses } from "./process-list.ts";
import { hasInEnvironment, limitMark } from "./process-marks.ts";
import { killUntilEmpty, sendSignal } from "./process-tree.ts";

export interface StrayOptions {
  workerDirectory: string;
  clock: Clock;
  /** How long they may resist. */
  limitMs: number;
}

export interface StrayEnd {
  /** How many processes there were. */
  met: number;
  /** What could not be ended, for people. Empty: nothing of that runner is left, nor its mark. */
  left: string;
}

/** The runner must be dead, and no other may begin meanwhile: the caller holds its socket. */
export async function endStrays({ workerDirectory, clock, limitMs }: StrayOptions): Promise<StrayEnd> {
  const mark = await readRunnerMark(workerDirectory);
  if (mark === null) return { met: 0, left: "" };
  const attemptIds = await heldAttempts(workerDirectory);
  const killRound = async (): Promise<number[]> => {
    const inCgroups = await Promise.all(mark.cgroups.map((directory) => killIn(directory, clock)));
    return [...new Set([...inCgroups.flat(), ...killMarked(workerDirectory, attemptIds)])];
  };
  const { met, left } = await killUntilEmpty({ killRound }, clock, limitMs);
  if (left.length > 0) return { met: met.size, left: describeProcesses(left) };
  for (const directory of mark.cgroups) {
    // Processes of another pid namespace do not show in it, but hold it all the same.
    const isRemoved = await removeCgroupSoon(directory, clock);
    if (!isRemoved) return { met: met.size, left: `whatever holds the cgroup ${directory}` };
  }
  await removeRunnerMark(workerDirectory);
  return { met: met.size, left: "" };
}

/** The cgroups that measure hold the same processes as the freezer. */
async function killIn(directory: string, clock: Clock): Promise<number[]> {
  if (existsSync(join(directory, "freezer.state"))) return await killInFreezer(directory, clock);
  return existsSync(join(directory, "cgroup.events")) ? await killInCgroup(directory, clock) : [];
}

/** Also with cgroups, which a job of root can leave. Stopped first, fewer fork away from the list. */
function killMarked(workerDirectory: string, attemptIds: readonly string[]): number[] {
  if (!existsSync("/proc/self/stat")) return [];
  const hasLimit = limitMark(attemptIds);
  const environmentMark = `HODEI_WORKSPACE=${join(workerDirectory, "attempts")}/`;
  const signalMarked = (name: NodeJS.Signals): number[] => {
    const pids = listProcesses(0)
      .map(({ pid }) => pid)
      .filter((pid) => hasLimit(pid) || hasInEnvironment(pid, environmentMark));
    for (const pid of pids) sendSignal(pid, name);
    return pids;
  };
  if (signalMarked("SIGSTOP").length === 0) return [];
  return signalMarked("SIGKILL");
}

/** An attempt has its directories until its processes were seen to be gone and it was forgotten. */
async function heldAttempts(workerDirectory: string): Promise<string[]> {
  const names = await Promise.all(
    ["attempts", "spool"].map((name) => readdir(join(workerDirectory, name)).catch(() => [])),
  );
  return [...new Set(names.flat())];
}
