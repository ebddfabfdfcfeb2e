/** What decides on which workers a job may run. */

import type { JobDefinition, Resources } from "./job.ts";
import {
  formatRequirement,
  formatTaint,
  fulfils,
  tolerates,
  type LabelRequirement,
  type Taint,
} from "./labels.ts";
import type { Place } from "./plan.ts";
import type { WorkerCapacity } from "./worker.ts";

/** The part of a job's definition that says where it may run and where it would rather. */
export type Placement = Pick<
  JobDefinition,
  | "resources"
  | "selector"
  | "selectorExpressions"
  | "tolerations"
  | "capabilities"
  | "preferences"
  | "preemptible"
>;

export function placementOf(definition: JobDefinition): Placement {
  const { resources, selector, selectorExpressions, tolerations, capabilities, preferences, preemptible } =
    definition;
  return { resources, selector, selectorExpressions, tolerations, capabilities, preferences, preemptible };
}

/**
 * A text that is equal for two jobs exactly if every worker that fits one fits the other, equally well.
 * The scheduler uses it to look at a thousand alike jobs once.
 */
export function placementKey(definition: JobDefinition): string {
  const { resources, selector, selectorExpressions, tolerations, capabilities, preferences } = definition;
  const { cpuMillis, memoryBytes, diskBytes, gpu } = resources;
  const hasMore =
    selectorExpressions.length + tolerations.length + capabilities.length + preferences.length > 0;
  const names = Object.keys(selector);
  // Most jobs are such, and there are thousands of them in a submission.
  if (names.length === 0 && !hasMore) return `[${cpuMillis},${memoryBytes},${diskBytes},${gpu},[]]`;
  const labels = names.toSorted().map((key) => [key, selector[key]]);
  const plain = [cpuMillis, memoryBytes, diskBytes, gpu, labels];
  return JSON.stringify(
    hasMore ? [...plain, selectorExpressions, tolerations, capabilities, preferences] : plain,
  );
}

/** Why a job is not on a worker; the same kinds as on the wire. */
export const BLOCKER_KINDS = [
  "label",
  "too_small",
  "busy",
  "taint",
  "capability",
  "unavailable",
  "pool_full",
  "provider",
] as const;
export type BlockerKind = (typeof BLOCKER_KINDS)[number];

/** One thing that keeps a job from a worker or pool, for people. */
export interface Blocker {
  kind: BlockerKind;
  /** What is so, such as `has 2 of 4 cores free, the job needs 3`. */
  message: string;
  /** What would have to change. */
  change: string;
}

/**
 * True if the place could take the job when it is empty. Capabilities that are not known yet may be
 * there. Makes no texts, because the planner asks it of every worker.
 */
export function canEver(placement: Placement, place: Place): boolean {
  return meetsConstraints(placement, place) && hasRoom(place.capacity, placement.resources);
}

/** True if the place could take the job were it large enough. */
export function meetsConstraints(placement: Placement, place: Place): boolean {
  return (
    hasLabels(placement, place.labels) &&
    !place.taints.some((taint) => keepsAway(placement, taint)) &&
    (place.capabilities === null || missingCapability(placement, place.capabilities) === null)
  );
}

/** Room for one job more with these claims. */
export function hasRoom(free: WorkerCapacity, wanted: Resources): boolean {
  return (
    free.jobs >= 1 &&
    free.cpuMillis >= wanted.cpuMillis &&
    free.memoryBytes >= wanted.memoryBytes &&
    free.diskBytes >= wanted.diskBytes &&
    free.gpu >= wanted.gpu
  );
}

export function hasLabels(placement: Placement, labels: Readonly<Record<string, string>>): boolean {
  const { selector, selectorExpressions } = placement;
  for (const key in selector) if (!Object.hasOwn(labels, key) || labels[key] !== selector[key]) return false;
  return selectorExpressions.every((requirement) => fulfils(labels, requirement));
}

/** True if the taint forbids the place; `PreferNoSchedule` never does. */
export function keepsAway(placement: Placement, taint: Taint): boolean {
  return taint.effect !== "PreferNoSchedule" && !tolerates(placement.tolerations, taint);
}

/** How many taints ask the job to go elsewhere if it can. */
export function reluctance(placement: Placement, place: Place): number {
  let count = 0;
  for (const taint of place.taints) {
    if (taint.effect === "PreferNoSchedule" && !tolerates(placement.tolerations, taint)) count += 1;
  }
  return count;
}

function missingCapability(placement: Placement, capabilities: readonly string[]): string | null {
  return placement.capabilities.find((wanted) => !capabilities.includes(wanted)) ?? null;
}

/** The conditions of the selector and the expressions, in one list. */
export function labelRequirements({ selector, selectorExpressions }: Placement): LabelRequirement[] {
  const equal = Object.entries(selector).map(([key, value]): LabelRequirement => ({
    key,
    operator: "in",
    values: [value],
  }));
  return [...equal, ...selectorExpressions];
}

/** The text of a condition, with `os=linux` for one value. */
export function requirementText(requirement: LabelRequirement): string {
  const { key, operator, values } = requirement;
  return operator === "in" && values.length === 1 ? `${key}=${values[0]}` : formatRequirement(requirement);
}

/**
 * What keeps a job from a place: labels, taints, capabilities, its size, and, unless `free` is null,
 * what others have taken of it. None of them if `canEver` and, with `free`, `hasRoom`.
 */
export function blockersOf(placement: Placement, place: Place, free: WorkerCapacity | null): Blocker[] {
  return [
    ...labelRequirements(placement)
      .filter((requirement) => !fulfils(place.labels, requirement))
      .map((requirement) => labelBlocker(place, requirement)),
    ...place.taints.filter((taint) => keepsAway(placement, taint)).map(taintBlocker),
    ...placement.capabilities
      .filter((wanted) => place.capabilities !== null && !place.capabilities.includes(wanted))
      .map(capabilityBlocker),
    ...sizeBlockers(placement.resources, place.capacity, free),
  ];
}

function labelBlocker({ labels }: Place, requirement: LabelRequirement): Blocker {
  const { key } = requirement;
  const has = Object.hasOwn(labels, key) ? `has ${key}=${labels[key]}` : `has no label ${key}`;
  const wanted = requirementText(requirement);
  return {
    kind: "label",
    message: `${has}, the job needs ${wanted}`,
    change: `give it a label that fulfils ${wanted}, or ask for another one`,
  };
}

function taintBlocker(taint: Taint): Blocker {
  const text = formatTaint(taint);
  return {
    kind: "taint",
    message: `has the taint ${text}, which the job does not tolerate`,
    change: `add a toleration of ${text} to the job, or remove the taint`,
  };
}

function capabilityBlocker(capability: string): Blocker {
  return {
    kind: "capability",
    message: `cannot do ${capability}, which the job needs`,
    change: `use a worker that can do ${capability}, or do not ask for it`,
  };
}

function sizeBlockers(wanted: Resources, capacity: WorkerCapacity, free: WorkerCapacity | null): Blocker[] {
  const blockers: Blocker[] = [];
  for (const amount of AMOUNTS) {
    const needs = amount.name === "jobs" ? 1 : wanted[amount.name];
    if (capacity[amount.name] < needs) blockers.push(tooSmall(amount, needs, capacity));
    else if (free !== null && free[amount.name] < needs)
      blockers.push(busy(amount, needs, { capacity, free }));
  }
  return blockers;
}

function tooSmall(amount: Amount, needs: number, capacity: WorkerCapacity): Blocker {
  const has = amount.text(capacity[amount.name]);
  return {
    kind: "too_small",
    message: `has ${has}, the job needs ${amount.number(needs)}`,
    change: `ask for ${has} at most, or add a larger worker`,
  };
}

function busy(
  amount: Amount,
  needs: number,
  { capacity, free }: { capacity: WorkerCapacity; free: WorkerCapacity },
): Blocker {
  if (amount.name === "jobs") {
    const message = `runs as many jobs as it may, ${amount.number(capacity.jobs)}`;
    return { kind: "busy", message, change: "wait" };
  }
  const left = amount.number(Math.max(0, free[amount.name]));
  return {
    kind: "busy",
    message: `has ${left} of ${amount.text(capacity[amount.name])} free, the job needs ${amount.number(needs)}`,
    change: `wait, or ask for less ${amount.what}`,
  };
}

/** How an amount of something is told to people. */
export interface Amount {
  name: keyof WorkerCapacity;
  what: string;
  /** Such as `1.5`, `512 MiB`. */
  number(amount: number): string;
  /** Such as `1.5 cores`, `512 MiB of memory`. */
  text(amount: number): string;
}

const cores = (millis: number): string => String(Math.round(millis) / 1_000);

export const AMOUNTS: readonly Amount[] = [
  {
    name: "cpuMillis",
    what: "cpu",
    number: cores,
    text: (millis) => `${cores(millis)} ${millis === 1_000 ? "core" : "cores"}`,
  },
  { name: "memoryBytes", what: "memory", number: sizeText, text: (size) => `${sizeText(size)} of memory` },
  { name: "diskBytes", what: "disk", number: sizeText, text: (size) => `${sizeText(size)} of disk` },
  { name: "gpu", what: "gpu", number: String, text: (count) => `${count} ${count === 1 ? "GPU" : "GPUs"}` },
  { name: "jobs", what: "jobs", number: String, text: (count) => `room for ${count} jobs` },
];

const SIZE_UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];

/** In the largest unit of which there is one, with three digits at most after the point. */
function sizeText(bytes: number): string {
  let amount = bytes;
  let unit = 0;
  while (amount >= 1_024 && unit < SIZE_UNITS.length - 1) {
    amount /= 1_024;
    unit += 1;
  }
  return `${Math.round(amount * 1_000) / 1_000} ${SIZE_UNITS[unit]}`;
}
