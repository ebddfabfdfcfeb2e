/** Jobs in words. */

import type { Job } from "../core/job.ts";
import type { Colors } from "./command.ts";
import { exitCodeOfJob } from "./exit-codes.ts";

/** `0.4 s`, `12.3 s`, `4 min 5 s`, `3 h 20 min`, `2 d 4 h`. */
export function formatDuration(durationMs: number): string {
  const seconds = Math.max(0, durationMs) / 1000;
  if (seconds < 0.1) return `${Math.round(seconds * 1_000)} ms`;
  if (seconds < 59.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  if (whole < 86_400) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
  return `${Math.floor(whole / 86_400)} d ${Math.floor((whole % 86_400) / 3600)} h`;
}

/** How long ago, in one unit: for tables. */
export function formatAge(ageMs: number): string {
  const seconds = Math.max(0, Math.floor(ageMs / 1000));
  if (seconds < 60) return `${seconds}s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)}m`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)}h`;
  return `${Math.floor(seconds / 86_400)}d`;
}

export function formatBytes(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let amount = bytes;
  let unit = 0;
  while (amount >= 1024 && unit < units.length - 1) {
    amount /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? amount : amount.toFixed(1)} ${units[unit]}`;
}

/** From start to end, or to now; null if it never started. */
export function ranForMs(job: Pick<Job, "startedAtMs" | "finishedAtMs">, nowMs: number): number | null {
  return job.startedAtMs === null ? null : Math.max(0, (job.finishedAtMs ?? nowMs) - job.startedAtMs);
}

type EndedJob = Pick<
  Job,
  "id" | "state" | "cause" | "exitCode" | "signal" | "message" | "startedAtMs" | "finishedAtMs"
>;

/** The line after the end: `✓ succeeded in 1.2 s`, `✗ failed: exit code 7 (job 0198…)`. */
export function resultLine(job: EndedJob, colors: Colors, nowMs: number): string {
  const ranMs = ranForMs(job, nowMs);
  const time = ranMs === null ? "" : ` in ${formatDuration(ranMs)}`;
  if (job.state === "succeeded") return `${colors.green("✓")} succeeded${time}`;
  const mark = job.state === "cancelled" ? colors.yellow("✗") : colors.red("✗");
  return `${mark} ${describeEnd(job)}${colors.dim(` (job ${job.id})`)}`;
}

function describeEnd(job: EndedJob): string {
  const word = job.state === "timed_out" ? "timed out" : job.state;
  // Such as "timed out after 3.0 s".
  if (job.message.startsWith(word)) return job.message;
  const parts = [word, describeCause(job)];
  // The message of a plain exit code or signal says nothing that the cause did not say.
  const isPlain = job.cause === "exit_code" || job.cause === "signal";
  const isSaid = isPlain && /exit code|signal|killed by|ended by/.test(job.message);
  if (!isSaid) parts.push(job.message);
  return parts.filter((part) => part !== "").join(": ");
}

function describeCause(job: EndedJob): string {
  switch (job.cause) {
    case null:
    case "cancelled":
    case "timeout":
      return "";
    case "exit_code":
      return `exit code ${exitCodeOfJob(job)}`;
    case "signal":
      return job.signal === null ? "ended by a signal" : `ended by ${job.signal}`;
    default:
      return job.cause.replaceAll("_", " ");
  }
}

export function colorState(state: string, colors: Colors): string {
  switch (state) {
    case "succeeded":
    case "ready":
      return colors.green(state);
    case "failed":
    case "timed_out":
    case "broken":
      return colors.red(state);
    case "running":
    case "busy":
      return colors.cyan(state);
    case "unreachable":
    case "cancelling":
    case "cancelled":
      return colors.yellow(state);
    default:
      return state;
  }
}
