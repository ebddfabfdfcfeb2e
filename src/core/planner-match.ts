/**
 * Which kinds of workers jobs may be on as far as labels, taints and capabilities go: worked out once
 * for all jobs that ask for the same, whatever their size, and only for kinds with the rarest label that
 * is asked for. So thousands of kinds of jobs are matched with thousands of kinds of workers.
 */

import { fulfils } from "./labels.ts";
import { constraintsInKey } from "./placement-key.ts";
import { meetsConstraints, reluctance, type Placement } from "./placement.ts";
import type { PlannedJob, PlannedWorker } from "./plan.ts";

export interface KindFit {
  reluctance: number;
  /** Of the preferences that are about the labels of the worker alone. */
  weight: number;
}

/** By index of the kind, in order; kinds that the jobs are never on are missing. */
export type Match = ReadonlyMap<number, KindFit>;

/** One worker of each kind, and what was found out about them. */
export interface WorkerKinds {
  all: PlannedWorker[];
  /** By `label=value`, in order. */
  byLabel: Map<string, number[]>;
  matches: Map<string, Match>;
}

export function newWorkerKinds(): WorkerKinds {
  return { all: [], byLabel: new Map(), matches: new Map() };
}

export function addKind({ all, byLabel }: WorkerKinds, worker: PlannedWorker): void {
  for (const key in worker.labels) {
    const label = `${key}=${worker.labels[key]}`;
    const kinds = byLabel.get(label);
    if (kinds) kinds.push(all.length);
    else byLabel.set(label, [all.length]);
  }
  all.push(worker);
}

export function matchOf(kinds: WorkerKinds, { placement, placementKey }: PlannedJob): Match {
  const key = constraintsInKey(placementKey);
  let match = kinds.matches.get(key);
  if (!match) {
    match = newMatch(kinds, placement);
    kinds.matches.set(key, match);
  }
  return match;
}

function newMatch(kinds: WorkerKinds, placement: Placement): Match {
  const match = new Map<number, KindFit>();
  for (const index of rarestLabel(kinds, placement) ?? kinds.all.keys()) {
    const kind = kinds.all[index];
    if (!kind || !meetsConstraints(placement, kind)) continue;
    match.set(index, { reluctance: reluctance(placement, kind), weight: workerWeight(placement, kind) });
  }
  return match;
}

/** The kinds with that label of the selector that the fewest have; null without a selector. */
function rarestLabel({ byLabel }: WorkerKinds, { selector }: Placement): readonly number[] | null {
  let fewest: readonly number[] | null = null;
  for (const key in selector) {
    const having = byLabel.get(`${key}=${selector[key]}`) ?? [];
    if (fewest === null || having.length < fewest.length) fewest = having;
  }
  return fewest;
}

function workerWeight({ preferences }: Placement, { labels }: PlannedWorker): number {
  let sum = 0;
  for (const { weight, workerLabels, jobLabels } of preferences) {
    if (Object.keys(jobLabels).length > 0 || workerLabels.length === 0) continue;
    if (workerLabels.every((requirement) => fulfils(labels, requirement))) sum += weight;
  }
  return sum;
}
