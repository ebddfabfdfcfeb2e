/**
 * Books jobs on workers that are on their way, and asks for more of them.
 *
 * All that is on its way is booked before anything is made, and a job that is booked moves to another
 * such worker if that lets one more find a place. So the same jobs never make a second set of workers,
 * whatever the order in which they are looked at.
 */

import { hasRoom } from "./placement.ts";
import type { PlannedJob, PlannedPool } from "./plan.ts";
import { add, type BoardPool } from "./planner-board.ts";
import type { Group, GroupPool } from "./planner-group.ts";
import type { WorkerCapacity } from "./worker.ts";

/** What the job waits for, or null if there is nothing on its way and nothing can be made. */
export function waitForMachine(group: Group, job: PlannedJob): string | null {
  return bookFirst(group) ?? bookByMoving(group) ?? makeMachine(group, job) ?? learning(group);
}

/** False if all that is on its way is full, and nothing more can be made. */
export function mayGetMachine({ pools, placement }: Group): boolean {
  return pools.some(({ state: { pool, room, machines } }) => {
    const canMake = room > 0 && pool.problem === null;
    return canMake || machines.some((machine) => hasRoom(machine, placement.resources));
  });
}

function bookFirst(group: Group): string | null {
  for (const entry of group.pools) {
    if (isUnknown(entry.state.pool, group) || !bookIn(entry, group)) continue;
    const { pool } = entry.state;
    return entry.firstMachine < pool.arriving ? onItsWay(pool) : beingMade(pool);
  }
  return null;
}

/** Books one job on the first worker of the pool that has room. */
function bookIn(entry: GroupPool, group: Group): boolean {
  const { machines } = entry.state;
  for (; entry.firstMachine < machines.length; entry.firstMachine += 1) {
    const machine = machines[entry.firstMachine];
    if (!machine || !hasRoom(machine, group.placement.resources)) continue;
    book(entry.state, machine, group);
    return true;
  }
  return false;
}

function onItsWay({ name, activity }: PlannedPool): string {
  return `waiting for a worker of pool ${name} to connect${activity ? `; ${activity}` : ""}`;
}

function beingMade({ name, activity }: PlannedPool): string {
  return `a worker of pool ${name} is being made${activity ? `; ${activity}` : ""}`;
}

/**
 * Books a job where one of another group is that can go elsewhere, or can push aside another one.
 * A pool is looked at once: if nobody found a way out of it, there is none.
 */
function bookByMoving(group: Group, seen: Set<BoardPool> = new Set()): string | null {
  for (const { state } of group.pools) {
    if (seen.has(state) || isUnknown(state.pool, group)) continue;
    seen.add(state);
    for (const [other, machines] of state.booked) {
      const machine =
        other === group ? undefined : machines.find((each) => hasRoomWithout(each, other, group));
      if (!machine || !moveOne(other, seen)) continue;
      machines.splice(machines.indexOf(machine), 1);
      add(machine, other.placement.resources, 1);
      book(state, machine, group);
      return onItsWay(state.pool);
    }
  }
  return null;
}

/** True if one job more of the group is booked in a pool that was not looked at. */
function moveOne(group: Group, seen: Set<BoardPool>): boolean {
  const unseen = group.pools.filter(({ state }) => !seen.has(state) && !isUnknown(state.pool, group));
  return unseen.some((entry) => bookIn(entry, group)) || bookByMoving(group, seen) !== null;
}

function hasRoomWithout(machine: WorkerCapacity, other: Group, group: Group): boolean {
  const room = { ...machine };
  add(room, other.placement.resources, 1);
  return hasRoom(room, group.placement.resources);
}

function book({ booked }: BoardPool, machine: WorkerCapacity, group: Group): void {
  add(machine, group.placement.resources, -1);
  const machines = booked.get(group);
  if (machines) machines.push(machine);
  else booked.set(group, [machine]);
}

function makeMachine(group: Group, job: PlannedJob): string | null {
  for (const { state } of group.pools) {
    const { pool, machines } = state;
    if (state.room <= 0 || pool.problem !== null || refusal(pool, job) !== null) continue;
    if (isUnknown(pool, group) && learning(group) !== null) continue;
    const machine = { ...pool.capacity };
    book(state, machine, group);
    machines.push(machine);
    state.room -= 1;
    state.jobIds.push(job.id);
    return beingMade(pool);
  }
  return null;
}

/**
 * What a pool can do is known when its first worker has connected: one is enough to find out, and nobody
 * is booked on it for what it may not be able to do.
 */
function learning(group: Group): string | null {
  const entry = group.pools.find(
    ({ state }: GroupPool) => isUnknown(state.pool, group) && state.machines.length > 0,
  );
  return entry ? `the first worker of pool ${entry.state.pool.name} will show what its workers can do` : null;
}

function isUnknown({ capabilities }: PlannedPool, { placement }: Group): boolean {
  return capabilities === null && placement.capabilities.length > 0;
}

/** How the pool failed since the job waits, in a way that waiting does not mend; null if it did not. */
export function refusal(
  { permanentProblem }: PlannedPool,
  job: Pick<PlannedJob, "pendingSinceMs">,
): string | null {
  const hasTried = permanentProblem !== null && job.pendingSinceMs < permanentProblem.triedAtMs;
  return hasTried ? permanentProblem.message : null;
}

/** Why no worker will ever be there for the job, or null if one may be. */
export function failsForGood(group: Group, job: PlannedJob): string | null {
  if (group.candidateCount > 0) return null;
  const refusals = group.pools.map(({ state }) => refusal(state.pool, job));
  return refusals.includes(null) ? null : (refusals[0] ?? null);
}
