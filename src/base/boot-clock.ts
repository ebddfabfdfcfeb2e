/**
 * A clock for leases: it goes on while the machine sleeps.
 *
 * A laptop or virtual machine that was suspended for an hour must know at once, when it wakes up,
 * that its lease is gone; CLOCK_MONOTONIC, which Node.js reads, stood still meanwhile. Linux gives
 * CLOCK_BOOTTIME as the first number of /proc/uptime (proc_uptime(5)), in steps of 10 ms.
 */

import { readFileSync } from "node:fs";
import type { Clock } from "./clock.ts";

const UPTIME_PATH = "/proc/uptime";

/** Milliseconds from an unknown zero. Falls back to the monotonic clock where there is no /proc. */
export function bootClock(clock: Clock): () => number {
  try {
    readUptimeMs();
    return readUptimeMs;
  } catch {
    // No Linux, or /proc is hidden: without suspend the two clocks agree.
    return () => clock.monotonicMs();
  }
}

function readUptimeMs(): number {
  const seconds = Number.parseFloat(readFileSync(UPTIME_PATH, "latin1"));
  if (!Number.isFinite(seconds)) throw new Error(`read ${UPTIME_PATH}: not a number`);
  return Math.round(seconds * 1000);
}
