/**
 * A clock for leases: it goes on while the machine sleeps.
 *
 * A laptop or virtual machine that was suspended for an hour must know at once, when it wakes up,
 * that its lease is gone; CLOCK_MONOTONIC, which Node.js reads, stood still meanwhile. Linux gives
 * CLOCK_BOOTTIME as the first number of /proc/uptime (proc_uptime(5)), in steps of 10 ms.
 */

import { readFileSync } from "node:fs";

const UPTIME_PATH = "/proc/uptime";

/**
 * Milliseconds since the machine was started, the same in all its processes. Falls back to the
 * machine's monotonic clock where there is no /proc; without sleep the two agree.
 */
export function bootClock(): () => number {
  try {
    readUptimeMs();
    return readUptimeMs;
  } catch {
    // No Linux, or /proc is hidden. hrtime has the same zero in all processes, performance.now() has not.
    return () => Math.round(Number(process.hrtime.bigint() / 1_000n) / 1_000);
  }
}

function readUptimeMs(): number {
  const seconds = Number.parseFloat(readFileSync(UPTIME_PATH, "latin1"));
  if (!Number.isFinite(seconds)) throw new Error(`read ${UPTIME_PATH}: not a number`);
  return Math.round(seconds * 1000);
}
