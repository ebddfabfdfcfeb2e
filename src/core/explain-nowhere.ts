/** Why jobs have no worker and none is made for them. */

import { namedPlaces, whyImpossible } from "./explain-impossible.ts";
import type { Board, BoardPool, BoardWorker } from "./planner-board.ts";
import { candidatesOf, type Group } from "./planner-group.ts";

/** Of a group that found no worker, no pool and nobody who makes room. */
export function whyNowhere(board: Board, group: Group): string {
  if (group.candidateCount === 0 && group.pools.length === 0) {
    board.places ??= namedPlaces({
      workers: board.kinds.all,
      pools: board.pools.map(({ pool }) => pool),
    });
    return whyImpossible(group.placement, board.places);
  }
  const workers = group.candidateCount === 0 ? [] : [whyNoWorker(candidatesOf(board, group))];
  return [...workers, ...group.pools.map(({ state }) => whyNoMachine(state))].join("; ");
}

function whyNoWorker(candidates: readonly BoardWorker[]): string {
  const taking = candidates.filter(({ worker }) => worker.unavailable === null);
  const [only] = candidates;
  if (candidates.length === 1 && only) {
    const { name, unavailable } = only.worker;
    const why = unavailable === null ? "is busy" : `takes no jobs: ${unavailable}`;
    return `worker ${name}, the only one that fits, ${why}`;
  }
  if (taking.length === candidates.length) return `all ${candidates.length} workers that fit are busy`;
  const away = candidates.length - taking.length;
  const why = candidates.find(({ worker }) => worker.unavailable !== null)?.worker;
  const example = `${away} of ${candidates.length} workers that fit take no jobs (${why?.name}: ${why?.unavailable})`;
  return taking.length === 0 ? example : `${example}, the others are busy`;
}

function whyNoMachine({ pool }: BoardPool): string {
  const failed = pool.problem ?? pool.permanentProblem?.message ?? null;
  if (failed !== null) return `pool ${pool.name} cannot make a worker: ${failed}`;
  const { name, maxWorkers } = pool;
  return `pool ${name} is at its maximum of ${maxWorkers} ${maxWorkers === 1 ? "worker" : "workers"}`;
}
