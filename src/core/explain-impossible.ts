/** Why no worker that is known and no pool could ever take a job, with what comes closest. */

import { fulfils, type LabelRequirement } from "./labels.ts";
import {
  AMOUNTS,
  blockersOf,
  canEver,
  hasLabels,
  keepsAway,
  labelRequirements,
  meetsConstraints,
  requirementText,
  type Amount,
  type Placement,
} from "./placement.ts";
import type { Place, PlannedPool, PlannedWorker } from "./plan.ts";

export interface Places {
  workers: readonly PlannedWorker[];
  pools: readonly PlannedPool[];
}

export interface NamedPlace {
  what: "pool" | "worker";
  place: Place & { name: string };
}

/** Null if some worker that is known could take the job when it is empty, or some pool can make one. */
export function isEverPossible(placement: Placement, { workers, pools }: Places): boolean {
  const canTake = (place: Place): boolean => canEver(placement, place);
  return workers.some(canTake) || pools.some((pool) => pool.maxWorkers > 0 && canTake(pool));
}

/** Where a worker may be or come to be. */
export function namedPlaces({ workers, pools }: Places): NamedPlace[] {
  return [
    ...pools
      .filter(({ maxWorkers }) => maxWorkers > 0)
      .map((pool) => ({ what: "pool", place: pool }) as const),
    ...workers.map((worker) => ({ what: "worker", place: worker }) as const),
  ];
}

/** Call it only if `isEverPossible` says no. */
export function whyImpossible(placement: Placement, all: readonly NamedPlace[]): string {
  if (all.length === 0) return "there is no worker, and no pool that could make one";
  const labelled = all.filter(({ place }) => hasLabels(placement, place.labels));
  if (labelled.length === 0) return whyNoLabels(placement, all);
  const able = labelled.filter(({ place }) => meetsConstraints(placement, place));
  if (able.length > 0) return whyTooSmall(placement, able);
  const open = labelled.filter(({ place }) => !place.taints.some((taint) => keepsAway(placement, taint)));
  const which =
    placement.selectorExpressions.length + Object.keys(placement.selector).length > 0
      ? " with its labels"
      : "";
  if (open.length === 0)
    return `every worker and pool${which} keeps it away: ${firstBlocker(placement, labelled)}`;
  return `no worker and no pool${which} can do what it needs: ${firstBlocker(placement, open)}`;
}

function titleOf({ what, place }: NamedPlace): string {
  return `${what} ${place.name}`;
}

/**
 * Places, and values of a label, that are compared to find the closest one: the scheduler says of each
 * kind of job why it waits, and must not stand still over it where there are thousands of both.
 */
const MAX_COMPARED = 100;

/** What keeps the job from the place with the fewest things in its way. */
function firstBlocker(placement: Placement, places: readonly NamedPlace[]): string {
  let best = { count: Infinity, text: "" };
  for (const named of places.slice(0, MAX_COMPARED)) {
    const blockers = blockersOf(placement, named.place, null);
    if (blockers.length >= best.count) continue;
    const messages = blockers.map(({ message }) => message).join(", ");
    best = { count: blockers.length, text: `${titleOf(named)} ${messages}` };
  }
  return best.text;
}

function whyNoLabels(placement: Placement, places: readonly NamedPlace[]): string {
  const missing = labelRequirements(placement).filter(
    (requirement) => !places.some(({ place }) => fulfils(place.labels, requirement)),
  );
  if (missing.length === 0) {
    const texts = labelRequirements(placement).map(requirementText).join(" and ");
    return `no worker and no pool fulfils ${texts} together; the closest: ${firstBlocker(placement, places)}`;
  }
  return missing
    .map(
      (requirement) =>
        `no worker and no pool has ${requirementText(requirement)}; ${closest(requirement, places)}`,
    )
    .join("; ");
}

/** Labels that are shown as the closest ones. */
const MAX_SHOWN = 5;

function closest({ key, values }: LabelRequirement, places: readonly NamedPlace[]): string {
  const known = new Set<string>();
  const keys = new Set<string>();
  for (const { place } of places) {
    if (known.size >= MAX_COMPARED || keys.size >= MAX_COMPARED) break;
    for (const name in place.labels) keys.add(name);
    const value = place.labels[key];
    if (value !== undefined && Object.hasOwn(place.labels, key)) known.add(value);
  }
  if (known.size > 0) {
    const near = nearest([...known], values[0] ?? "").map((value) => `${key}=${value}`);
    return `there is ${near.join(", ")}`;
  }
  const near = nearest([...keys], key);
  return `none has a label ${key}${near.length === 0 ? "" : `; there are labels ${near.join(", ")}`}`;
}

/** Those that differ in the fewest characters first; equal ones by their text. */
function nearest(texts: readonly string[], wanted: string): string[] {
  return texts
    .map((text) => ({ text, distance: editDistance(text, wanted) }))
    .toSorted((left, right) => left.distance - right.distance || (left.text < right.text ? -1 : 1))
    .slice(0, MAX_SHOWN)
    .map(({ text }) => text);
}

/** How many characters must be added, removed or replaced (Levenshtein). */
function editDistance(left: string, right: string): number {
  let above = Array.from({ length: right.length + 1 }, (_, index) => index);
  for (let row = 1; row <= left.length; row += 1) {
    const line = [row];
    for (let column = 1; column <= right.length; column += 1) {
      const isSame = left[row - 1] === right[column - 1];
      const replaced = (above[column - 1] ?? 0) + (isSame ? 0 : 1);
      line.push(Math.min(replaced, (above[column] ?? 0) + 1, (line[column - 1] ?? 0) + 1));
    }
    above = line;
  }
  return above[right.length] ?? 0;
}

function whyTooSmall({ resources }: Placement, places: readonly NamedPlace[]): string {
  const needs = (amount: Amount): number => (amount.name === "jobs" ? 1 : resources[amount.name]);
  const problems: string[] = [];
  for (const amount of AMOUNTS) {
    if (needs(amount) === 0) continue;
    const largest = places.reduce((best, each) =>
      each.place.capacity[amount.name] > best.place.capacity[amount.name] ? each : best,
    );
    const most = largest.place.capacity[amount.name];
    if (most >= needs(amount)) continue;
    problems.push(
      `needs ${amount.text(needs(amount))}; the largest is ${titleOf(largest)} with ${amount.number(most)}`,
    );
  }
  if (problems.length > 0) return problems.join("; ");
  const wanted = AMOUNTS.filter((amount) => amount.name !== "jobs" && needs(amount) > 0);
  const texts = wanted.map((amount) => amount.text(needs(amount))).join(" and ");
  return `no worker and no pool has ${texts} together`;
}
