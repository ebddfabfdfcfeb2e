/** A promise that was broken, and which. */

export const VIOLATION_KINDS = {
  lost: "jobs lost or never ended",
  twice: "attempts alive at once or run twice",
  log: "logs with lines missing or repeated",
  state: "wrong states",
  leftover: "processes, cgroups and mounts left behind",
  run: "failures of the run itself",
} as const;

export interface Violation {
  kind: keyof typeof VIOLATION_KINDS;
  /** What was seen. */
  text: string;
}

export function violation(kind: Violation["kind"], text: string): Violation {
  return { kind, text };
}

/** How many there are of each kind, in words. */
export function countViolations(violations: readonly Violation[]): string {
  return Object.entries(VIOLATION_KINDS)
    .map(([kind, words]) => `${violations.filter((each) => each.kind === kind).length} ${words}`)
    .join(", ");
}
