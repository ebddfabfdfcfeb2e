/**
 * Durations and sizes as people write them: `30s`, `1h30m`, `250ms`; `64Ki`, `256Mi`, `10GB`.
 *
 * Both refuse what could be read in two ways: a duration other than 0 needs its unit, and a size
 * means powers of 1024 only with an `i`. Null is the answer to anything that is not such a text.
 */

const DURATION_UNITS_MS: Readonly<Record<string, number>> = {
  ms: 1,
  s: 1_000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
};

const SIZE_UNITS_BYTES: Readonly<Record<string, number>> = {
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

/** Whole milliseconds, or null. Parts stand from the largest unit to the smallest, each once. */
export function parseDurationMs(text: string): number | null {
  if (text === "0") return 0;
  if (!/^(\d+(\.\d+)?(ms|s|m|h|d))+$/.test(text)) return null;
  let totalMs = 0;
  let lastUnitMs = Infinity;
  for (const [, amount = "", unit = ""] of text.matchAll(/(\d+(?:\.\d+)?)(ms|s|m|h|d)/g)) {
    const unitMs = DURATION_UNITS_MS[unit] ?? 0;
    if (unitMs >= lastUnitMs) return null;
    lastUnitMs = unitMs;
    totalMs += Number(amount) * unitMs;
  }
  const roundedMs = Math.round(totalMs);
  return Number.isSafeInteger(roundedMs) ? roundedMs : null;
}

/** Whole bytes, or null. A trailing `B` changes nothing, and letters may be of either case. */
export function parseBytes(text: string): number | null {
  const match = /^(\d+(?:\.\d+)?)([kmgt]i?)?b?$/.exec(text.toLowerCase());
  if (match === null) return null;
  const bytes = Math.round(Number(match[1]) * (SIZE_UNITS_BYTES[match[2] ?? ""] ?? Number.NaN));
  return Number.isSafeInteger(bytes) ? bytes : null;
}

/** The shortest text that `parseDurationMs` reads as this number of whole milliseconds. */
export function formatDurationMs(durationMs: number): string {
  if (durationMs === 0) return "0";
  let restMs = durationMs;
  let text = "";
  for (const [unit, unitMs] of Object.entries(DURATION_UNITS_MS).toReversed()) {
    const count = Math.floor(restMs / unitMs);
    if (count > 0) text += `${count}${unit}`;
    restMs -= count * unitMs;
  }
  return text;
}

/** A text that `parseBytes` reads as this number: in the largest binary unit that divides it. */
export function formatBytes(bytes: number): string {
  for (const unit of ["Ti", "Gi", "Mi", "Ki"]) {
    const unitBytes = SIZE_UNITS_BYTES[unit.toLowerCase()] ?? 1;
    if (bytes > 0 && bytes % unitBytes === 0) return `${bytes / unitBytes}${unit}`;
  }
  return String(bytes);
}
