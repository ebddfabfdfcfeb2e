/**
 * Books jobs on workers that are on their way, and asks for more of them.
 *
 * All that is on its way is booked before anything is made, and a job that is booked moves to another
 * such worker if that lets one more find a place. So the same jobs never make a second set of workers,
 * whatever the order in which they are looked at.
 */

import { hasRoom } from "./placement.ts";
import type { PlannedJob, PlannedPool } from "./plan.ts";
import { add, newMachine, type Machine } from "./planner-board.ts";
import type { Group, GroupPool } from "./planner-group.ts";

/** What the job waits for, or null if there is nothing on its way and nothing can be made. */
export function waitForMachine(group: Group, job: PlannedJob): string | null {
  return bookFirst(group) ?? bookByMoving(group) ?? makeMachine(group, job) ?? learning(group);
}

function bookFirst(group: Group): string | null {
  for (const entry of group.pools) {
    const { machines, pool } = entry.state;
    if (isUnknown(pool, group)) continue;
    for (; entry.firstMachine < machines.length; entry.firstMachine += 1) {
      const machine = machines[entry.firstMachine];
      if (!machine || !hasRoom(machine.free, group.placement.resources)) continue;
      book(machine, group);
      return entry.firstMachine < pool.arriving ? onItsWay(pool) : beingMade(pool);
    }
  }
  return null;
}

function onItsWay({ name }: PlannedPool): string {
  return `waiting for a worker of pool ${name} to connect`;
}

function beingMade({ name }: PlannedPool): string {
  return `a worker of pool ${name} is being made`;
}

function bookByMoving(group: Group): string | null {
  const seen = new Set<Machine>();
  for (const { state } of group.pools) {
    if (isUnknown(state.pool, group)) continue;
    if (moveAside(state.machines, group, seen)) return onItsWay(state.pool);
  }
  return null;
}

/** Books the group on a machine from which a job of another group can move, as others may for that one. */
function moveAside(machines: readonly Machine[], group: Group, seen: Set<Machine>): boolean {
  for (const machine of machines) {
    if (seen.has(machine)) continue;
    seen.add(machine);
    for (const other of new Set(machine.booked)) {
      if (other === group || other.pools.length < 2) continue;
      unbook(machine, other);
      if (hasRoom(machine.free, group.placement.resources)) {
        book(machine, group);
        if (moveTo(other, seen)) return true;
        unbook(machine, group);
      }
      book(machine, other);
    }
  }
  return false;
}

function moveTo(group: Group, seen: Set<Machine>): boolean {
  const { resources } = group.placement;
  const known = group.pools.filter(({ state }) => !isUnknown(state.pool, group));
  for (const { state } of known) {
    const machine = state.machines.find((each) => !seen.has(each) && hasRoom(each.free, resources));
    if (!machine) continue;
    book(machine, group);
    return true;
  }
  return known.some(({ state }) => moveAside(state.machines, group, seen));
}

function book(machine: Machine, group: Group): void {
  add(machine.free, group.placement.resources, -1);
  machine.booked.push(group);
}

function unbook(machine: Machine, group: Group): void {
  add(machine.free, group.placement.resources, 1);
  machine.booked.splice(machine.booked.indexOf(group), 1);
}

function makeMachine(group: Group, job: PlannedJob): string | null {
  for (const { state } of group.pools) {
    const { pool, machines } = state;
    if (state.room <= 0 || pool.problem !== null || refusal(pool, job) !== null) continue;
    if (isUnknown(pool, group) && learning(group) !== null) continue;
    const machine = newMachine(pool);
    book(machine, group);
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
  if (group.candidates.length > 0) return null;
  const refusals = group.pools.map(({ state }) => refusal(state.pool, job));
  return refusals.includes(null) ? null : (refusals[0] ?? null);
}
