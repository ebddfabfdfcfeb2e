/**
 * The record that stands in a log where output is missing, whatever the reason: nothing is left out
 * without a word.
 *
 * Its stream is `gap` and its payload a JSON object without a line break, so that programs can read
 * it and people can be shown a sentence. When output begins to be left out, a gap without a number
 * is written at once; the one with the number follows when it is known.
 */

import type { LogRecord } from "./log-record.ts";

export const LOG_GAP_REASONS = ["log_quota", "disk_full", "worker_lost", "not_received"] as const;
/**
 * `log_quota`: the job has printed more than it may. `disk_full`: the disk of the worker did not
 * take it. `worker_lost`: it was on a worker that is lost. `not_received`: its worker never sent it.
 */
type LogGapReason = (typeof LOG_GAP_REASONS)[number];

export interface LogGap {
  reason: LogGapReason;
  /** Of output that is missing; null if nobody knows, or not yet. */
  bytes: number | null;
  /** The quota; null if the reason is another one. */
  limitBytes: number | null;
}

export function gapRecord(gap: LogGap, timeMs: number): LogRecord {
  const { reason, bytes, limitBytes } = gap;
  const text = JSON.stringify({ reason, bytes, limit_bytes: limitBytes });
  return { stream: "gap", timeMs, data: asciiBytes(text) };
}

/** Null if the payload is not one that this version understands. */
export function readGap(data: Uint8Array): LogGap | null {
  let value: unknown;
  try {
    value = JSON.parse(String.fromCharCode(...data));
  } catch {
    return null;
  }
  if (typeof value !== "object" || value === null) return null;
  const { reason, bytes, limit_bytes: limitBytes } = value as Record<string, unknown>;
  const known = LOG_GAP_REASONS.find((name) => name === reason);
  if (known === undefined || !isCount(bytes) || !isCount(limitBytes)) return null;
  return { reason: known, bytes, limitBytes };
}

/** What people read: `12.3 GiB of output left out: log quota of 4 GiB`. */
export function describeGap({ reason, bytes, limitBytes }: LogGap): string {
  const what = bytes === null ? "output from here on" : `${describeSize(bytes)} of output`;
  switch (reason) {
    case "log_quota":
      return `${what} left out: log quota of ${describeSize(limitBytes ?? 0)}`;
    case "disk_full":
      return `${what} lost: the disk of the worker was full`;
    case "worker_lost":
      return bytes === null
        ? "what came after this was lost with the worker"
        : `${what} lost with the worker`;
    case "not_received":
      return `${what} never arrived from the worker`;
  }
}

/** With at most one decimal, in the largest unit that leaves at least one of it: `4 GiB`, `1.5 KiB`. */
export function describeSize(bytes: number): string {
  let amount = bytes;
  let unit = 0;
  while (Math.round(amount * 10) / 10 >= 1024 && unit < SIZE_UNITS.length - 1) {
    amount /= 1024;
    unit += 1;
  }
  return `${Math.round(amount * 10) / 10} ${SIZE_UNITS[unit]}`;
}

const SIZE_UNITS = ["B", "KiB", "MiB", "GiB", "TiB"] as const;

function isCount(value: unknown): value is number | null {
  return value === null || (Number.isSafeInteger(value) && (value as number) >= 0);
}

function asciiBytes(text: string): Uint8Array {
  return Uint8Array.from(text, (letter) => letter.charCodeAt(0));
}
