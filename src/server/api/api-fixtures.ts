/** Samples for the tests of the API, and what each of them checks. */

import assert from "node:assert/strict";
import { Code, ConnectError } from "@connectrpc/connect";
import type { PlannedPool, PlannedWorker } from "../../core/plan.ts";

export const command = { commandType: { case: "shell" as const, value: { cmd: "true" } } };

export async function rejectsWith(call: Promise<unknown>, code: Code, message: RegExp): Promise<void> {
  await assert.rejects(call, (error) => {
    assert.ok(error instanceof ConnectError, String(error));
    assert.equal(Code[error.code], Code[code], error.message);
    assert.match(error.rawMessage, message);
    return true;
  });
}

const CAPACITY = { cpuMillis: 4_000, memoryBytes: 2 ** 33, diskBytes: 2 ** 40, gpu: 0, jobs: 4 };

/** An empty worker of four cores. */
export function plannedWorker(changes: Partial<PlannedWorker> & { id: string }): PlannedWorker {
  return {
    name: "worker",
    pool: "",
    labels: {},
    taints: [],
    capabilities: [],
    capacity: CAPACITY,
    free: CAPACITY,
    strategy: "least_loaded",
    running: [],
    lastAssigned: 0,
    unavailable: null,
    ...changes,
  };
}

/** A pool that can make a worker of four cores. */
export function plannedPool(changes: Partial<PlannedPool> & { name: string }): PlannedPool {
  return {
    labels: {},
    taints: [],
    capabilities: [],
    capacity: CAPACITY,
    room: 1,
    arriving: 0,
    maxWorkers: 1,
    rank: 0,
    problem: null,
    permanentProblem: null,
    ...changes,
  };
}
