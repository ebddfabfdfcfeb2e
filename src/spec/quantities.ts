/**
 * Quantities as job files and options write them: those of base/quantities.ts, and besides bare
 * numbers, because YAML has them. Null stands for what is none.
 */

import { parseBytes, parseDurationMs as parseDurationText } from "../base/quantities.ts";

export const DURATION_EXAMPLES = "90s, 5m, 1h30m or a number of seconds";

/** Milliseconds in a text such as `1h30m`, `250ms` or `90` (seconds), or in a number of seconds. */
export function parseDurationMs(value: string | number): number | null {
  if (typeof value === "number")
    return Number.isFinite(value) && value >= 0 ? Math.round(value * 1000) : null;
  const text = value.trim();
  return /^\d+(?:\.\d+)?$/.test(text) ? parseDurationMs(Number(text)) : parseDurationText(text);
}

export const SIZE_EXAMPLES = "512Mi, 2Gi, 1G or a number of bytes";

/** Bytes in a text such as `512Mi` (powers of 1024) or `1G` (powers of 1000), or in a number. */
export function parseSizeBytes(value: string | number): number | null {
  if (typeof value === "number") return Number.isSafeInteger(value) && value >= 0 ? value : null;
  return parseBytes(value.trim());
}

export const CPU_EXAMPLES = "500m (thousandths of a core) or 1.5 (cores)";

/** Thousandths of a core in a text such as `500m` or `1.5`, or in a number of cores. */
export function parseCpuMillis(value: string | number): number | null {
  if (typeof value === "number")
    return Number.isFinite(value) && value >= 0 ? Math.round(value * 1000) : null;
  const match = /^(\d+(?:\.\d+)?)(m?)$/.exec(value.trim());
  if (!match) return null;
  const amount = Number(match[1]);
  return Math.round(match[2] === "m" ? amount : amount * 1000);
}
