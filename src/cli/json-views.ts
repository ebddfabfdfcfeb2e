/** Jobs, workers and events as `--output json` prints them. */

/**
 * The same value with times as people and programs write them: a field `createdAtMs` becomes
 * `createdAt`, an RFC 3339 text, and `atMs` becomes `at`. Durations keep their milliseconds.
 */
export function toJsonView(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(toJsonView);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, item]) => {
      if ((key === "atMs" || key.endsWith("AtMs")) && (typeof item === "number" || item === null)) {
        return [key.slice(0, -2), item === null ? null : new Date(item).toISOString()];
      }
      // What users named themselves is not looked into: `{"env": {"startedAtMs": …}}`.
      return [key, USER_MAPS.has(key) ? item : toJsonView(item)];
    }),
  );
}

const USER_MAPS = new Set(["env", "labels", "jobLabels", "selector", "outputs"]);

export function toJsonText(value: unknown): string {
  return `${JSON.stringify(toJsonView(value), null, 2)}\n`;
}
