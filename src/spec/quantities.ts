/** Durations, sizes and CPU shares as people write them. Null stands for a text that is none. */

const MS_PER_UNIT: Record<string, number> = {
  ms: 1,
  s: 1_000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
};

const DURATION_PATTERN = /^(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+$/;
export const DURATION_EXAMPLES = "90s, 5m, 1h30m or a number of seconds";

/** Milliseconds in a text such as `1h30m`, `250ms` or `90` (seconds), or in a number of seconds. */
export function parseDurationMs(value: string | number): number | null {
  if (typeof value === "number") return Number.isFinite(value) && value >= 0 ? Math.round(value * 1000) : null;
  const text = value.trim();
  if (/^\d+(?:\.\d+)?$/.test(text)) return parseDurationMs(Number(text));
  if (!DURATION_PATTERN.test(text)) return null;
  let totalMs = 0;
  for (const [, amount, unit] of text.matchAll(/(\d+(?:\.\d+)?)(ms|s|m|h|d)/g)) {
    totalMs += Number(amount) * (MS_PER_UNIT[unit ?? ""] ?? 0);
  }
  return Number.isFinite(totalMs) ? Math.round(totalMs) : null;
}

const BYTES_PER_UNIT: Record<string, number> = {
  "": 1,
  k: 1e3,
  m: 1e6,
  g: 1e9,
  t: 1e12,
  ki: 2 ** 10,
  mi: 2 ** 20,
  gi: 2 ** 30,
  ti: 2 ** 40,
};

export const SIZE_EXAMPLES = "512Mi, 2Gi, 1G or a number of bytes";

/** Bytes in a text such as `512Mi` (powers of 1024) or `1G` (powers of 1000), or in a number. */
export function parseSizeBytes(value: string | number): number | null {
  if (typeof value === "number") return Number.isSafeInteger(value) && value >= 0 ? value : null;
  const match = /^(\d+(?:\.\d+)?)\s*([kmgt]i?)?b?$/i.exec(value.trim());
  const unit = BYTES_PER_UNIT[(match?.[2] ?? "").toLowerCase()];
  if (!match || unit === undefined) return null;
  const bytes = Math.round(Number(match[1]) * unit);
  return Number.isSafeInteger(bytes) ? bytes : null;
}

export const CPU_EXAMPLES = "500m (thousandths of a core) or 1.5 (cores)";

/** Thousandths of a core in a text such as `500m` or `1.5`, or in a number of cores. */
export function parseCpuMillis(value: string | number): number | null {
  if (typeof value === "number") return Number.isFinite(value) && value >= 0 ? Math.round(value * 1000) : null;
  const match = /^(\d+(?:\.\d+)?)(m?)$/.exec(value.trim());
  if (!match) return null;
  const amount = Number(match[1]);
  return Math.round(match[2] === "m" ? amount : amount * 1000);
}

/** A duration for people, in the notation that `parseDurationMs` reads. */
export function formatDurationText(durationMs: number): string {
  if (durationMs === 0) return "0s";
  let rest = durationMs;
  let text = "";
  for (const unit of ["d", "h", "m", "s", "ms"]) {
    const size = MS_PER_UNIT[unit] ?? 1;
    const amount = Math.floor(rest / size);
    if (amount > 0) text += `${amount}${unit}`;
    rest -= amount * size;
  }
  return text || `${durationMs}ms`;
}
