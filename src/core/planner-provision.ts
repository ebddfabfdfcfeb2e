/**
 * Books jobs on workers that are on their way, and asks for more of them.
 *
 * The pools of a group are in their order of choice. All that is on its way is booked before anything
 * is made, so the same jobs never make a second set of workers.
 */

import { hasRoom } from "./placement.ts";
import type { PlannedJob } from "./plan.ts";
import { add } from "./planner-board.ts";
import type { Group, GroupPool } from "./planner-group.ts";

/** What the job waits for, or null if there is nothing on its way and nothing can be made. */
export function waitForMachine(group: Group, job: PlannedJob): string | null {
  return bookMachine(group, job) ?? makeMachine(group, job) ?? learnFromFirst(group, job);
}

function bookMachine(group: Group, { placement: { resources } }: PlannedJob): string | null {
  for (const entry of group.pools) {
    const { machines, pool } = entry.state;
    for (; entry.firstMachine < machines.length; entry.firstMachine += 1) {
      const machine = machines[entry.firstMachine];
      if (!machine || !hasRoom(machine, resources)) continue;
      add(machine, resources, -1);
      return entry.firstMachine < pool.arriving
        ? `waiting for a worker of pool ${pool.name} to connect`
        : `a worker of pool ${pool.name} is being made`;
    }
  }
  return null;
}

function makeMachine(group: Group, job: PlannedJob): string | null {
  const { resources } = job.placement;
  for (const { state } of group.pools) {
    const { pool, machines } = state;
    if (state.room <= 0 || pool.problem !== null || isRefused(state, job)) continue;
    if (isUnknown(state, job) && machines.length > 0) continue;
    const machine = { ...pool.capacity };
    add(machine, resources, -1);
    machines.push(machine);
    state.room -= 1;
    state.jobIds.push(job.id);
    return `a worker of pool ${pool.name} is being made`;
  }
  return null;
}

/** What a pool can do is known when its first worker has connected: one is enough to find out. */
function learnFromFirst(group: Group, job: PlannedJob): string | null {
  const entry = group.pools.find(({ state }) => isUnknown(state, job) && state.machines.length > 0);
  return entry ? `the first worker of pool ${entry.state.pool.name} will show what its workers can do` : null;
}

function isUnknown({ pool }: GroupPool["state"], { placement }: PlannedJob): boolean {
  return pool.capabilities === null && placement.capabilities.length > 0;
}

/** The pool was tried since the job waits, and failed in a way that waiting does not mend. */
function isRefused({ pool }: GroupPool["state"], job: PlannedJob): boolean {
  return pool.permanentProblem !== null && job.pendingSinceMs < pool.permanentProblem.triedAtMs;
}

/** Why no worker will ever be there for the job, or null if one may be. */
export function failsForGood(group: Group, job: PlannedJob): string | null {
  const [first] = group.pools;
  if (!first || group.candidates.length > 0) return null;
  if (!group.pools.every(({ state }) => isRefused(state, job))) return null;
  return first.state.pool.permanentProblem?.message ?? null;
}
