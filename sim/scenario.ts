/**
 * What one seed stands for: the shape of the cluster, the jobs, and which faults happen how often.
 * Each seed has only some of the faults, so that rare combinations come up, and some seeds none.
 */

import type { JobDefinition } from "../src/core/job.ts";
import { definitionWith } from "../src/core/job.ts";
import type { WorkerCapacity } from "../src/core/worker.ts";
import { scriptText, type JobScript } from "./job-script.ts";
import type { WireConditions } from "./lane.ts";
import type { DiskConditions } from "./sim-logs.ts";
import type { MachineConditions } from "./sim-machine.ts";
import type { PlatformConditions } from "./sim-platform.ts";
import { SimRandom } from "./sim-random.ts";
import type { StoreConditions } from "./sim-store.ts";

export const FAULTS = [
  "network_cut",
  "network_away",
  "stream_stalled",
  "server_killed",
  "server_stopped",
  "server_frozen",
  "database_away",
  "disk_full",
  "disk_slow",
  "agent_killed",
  "runner_killed",
  "machine_lost",
  "agent_frozen",
  "runner_frozen",
  "machine_suspended",
  "clock_set",
  "socket_cut",
] as const;
export type FaultName = (typeof FAULTS)[number];

/** What a user does about a job, and when. */
export interface UserAct {
  atMs: number;
  kind: "cancel" | "pause" | "resume" | "retry" | "retry_forced";
}

export interface PlannedSubmission {
  atMs: number;
  key: string;
  /** The same submission is sent once more although it was answered. */
  isRepeated: boolean;
  definition: JobDefinition;
  acts: UserAct[];
}

export interface Scenario {
  seed: number;
  /** Something may break; else nothing at all does. */
  hasFaults: boolean;
  /** Faults stop after this time; then the cluster must settle. */
  faultsMs: number;
  /** Mean time between two faults of a kind, of those that happen at all. */
  faults: Map<FaultName, number>;
  halfOpen: number;
  /** How often a fault is followed by another one at the same place, at once. */
  echoRate: number;
  wire: WireConditions;
  store: StoreConditions;
  disk: DiskConditions;
  machine: MachineConditions;
  platform: PlatformConditions;
  pool: { capacity: WorkerCapacity; maxWorkers: number; idleTimeoutMs: number; ephemeral: boolean };
  clockSkewMs: number;
  serverRestartMs: number;
  drains: number[];
  submissions: PlannedSubmission[];
}

const MIB = 1024 * 1024;

/** So few seeds are about orders that wait for an agent which sleeps. */
const SLEEPY_SHARE = 0.02;

export function drawScenario(seed: number): Scenario {
  const scenario = drawAny(seed);
  const random = new SimRandom(seed, "sleepy");
  return scenario.hasFaults && random.chance(SLEEPY_SHARE) ? sleepy(scenario, random) : scenario;
}

/**
 * Long jobs for a worker that stays, whose agent sleeps and finds no network when it wakes: then it
 * has an old order, and nobody to ask whether that still holds.
 */
function sleepy(scenario: Scenario, random: SimRandom): Scenario {
  const faultsMs = 300_000;
  const pool = { ...drawPool(random), ephemeral: false, idleTimeoutMs: 2 * faultsMs, maxWorkers: 2 };
  const submissions = Array.from({ length: 12 }, (_, index) => {
    const script = drawScript(random, { isLoud: false, hasUnkillable: false, isLong: true });
    const drawn = drawDefinition(random, { index, script, isLong: true });
    const definition: JobDefinition = { ...drawn, leaseMs: 40_000, onWorkerLost: "retry" };
    return {
      atMs: random.between(0, faultsMs),
      key: `key-${index}`,
      isRepeated: false,
      definition,
      acts: [],
    };
  });
  const faults = new Map<FaultName, number>([
    ["agent_frozen", 30_000],
    ["network_away", 120_000],
  ]);
  return { ...scenario, faultsMs, faults, pool, drains: [], submissions };
}

function drawAny(seed: number): Scenario {
  const random = new SimRandom(seed, "scenario");
  const isLong = random.chance(0.25);
  const faultsMs = isLong ? random.between(150_000, 400_000) : random.between(20_000, 150_000);
  const hasFaults = !random.chance(0.08);
  const faultShare = random.pick([0.08, 0.2, 0.35]);
  const isBurst = random.chance(0.15);
  const faults = new Map<FaultName, number>();
  for (const name of FAULTS) {
    if (hasFaults && random.chance(faultShare))
      faults.set(name, isBurst ? random.between(2_000, 10_000) : random.between(8_000, 80_000));
  }
  const often = (probability: number, value: number): number =>
    hasFaults && random.chance(probability) ? value : 0;
  return {
    seed,
    hasFaults,
    faultsMs,
    faults,
    halfOpen: often(0.4, random.between(0.1, 0.8)),
    echoRate: often(0.6, random.pick([0.3, 0.7])),
    wire: {
      minLatencyMs: 0.1,
      maxLatencyMs: random.pick([0.5, 5, 80, 800]),
      bytesPerMs: random.pick([50, 1_000, 50_000]),
    },
    store: {
      latencyMs: random.pick([0, 0.3, 2, 60]),
      errorRate: often(0.25, random.pick([0.002, 0.02, 0.1])),
    },
    disk: { syncMs: random.pick([0.2, 2, 20]) },
    machine: {
      maxSpawnMs: random.pick([5, 50, 500]),
      spawnHangRate: often(0.1, 0.2),
      maxStartMs: random.pick([50, 300]),
      spoolLimitBytes: random.pick([32 * 1024, MIB, 64 * MIB]),
      offlineExitMs: random.pick([null, 60_000, 300_000]),
    },
    platform: {
      maxCreateMs: random.pick([10, 500, 8_000]),
      errorRate: often(0.2, random.pick([0.05, 0.3])),
      lostEventRate: often(0.3, random.pick([0.3, 1])),
    },
    pool: drawPool(random),
    clockSkewMs: random.pick([0, 100, 5_000, 3_600_000]),
    serverRestartMs: random.pick([500, 5_000, 40_000]),
    drains: random.chance(0.15) ? [random.between(0, faultsMs)] : [],
    submissions: drawSubmissions(random, { faultsMs, hasFaults, isLong }),
  };
}

function drawPool(random: SimRandom): Scenario["pool"] {
  const ephemeral = random.chance(0.2);
  return {
    capacity: {
      cpuMillis: 4_000,
      memoryBytes: 2 ** 33,
      diskBytes: 2 ** 40,
      gpu: 0,
      jobs: ephemeral ? 1 : random.whole(1, 4),
    },
    maxWorkers: random.whole(1, 4),
    idleTimeoutMs: random.pick([2_000, 10_000]),
    ephemeral,
  };
}

function drawSubmissions(
  random: SimRandom,
  { faultsMs, hasFaults, isLong }: { faultsMs: number; hasFaults: boolean; isLong: boolean },
): PlannedSubmission[] {
  const count = random.whole(1, random.pick([1, 3, 6]));
  const isLoud = random.chance(0.04);
  const hasUnkillable = hasFaults && random.chance(0.04);
  const keys = random.pick([[], [], [{ key: "one", limit: 1 }], [{ key: "two", limit: 2 }]]);
  const preemptibleShare = random.pick([0, 0, 0.5, 1]);
  return Array.from({ length: count }, (_, index) => {
    const atMs = random.between(0, random.pick([1, 0.7]) * faultsMs * random.pick([0.1, 1]));
    const script = drawScript(random, { isLoud, hasUnkillable, isLong });
    return {
      atMs,
      key: `key-${index}`,
      isRepeated: random.chance(0.2),
      definition: {
        ...drawDefinition(random, { index, script, isLong }),
        concurrency: random.chance(0.7) ? (keys[0] ?? null) : null,
        preemptible: random.chance(preemptibleShare),
        queue: random.pick(["default", "default", "other"]),
      },
      acts: drawActs(random, atMs, faultsMs),
    };
  });
}

function drawScript(
  random: SimRandom,
  swarm: { isLoud: boolean; hasUnkillable: boolean; isLong: boolean },
): JobScript {
  const durations = swarm.isLong ? [500, 20_000, 120_000, 250_000] : [0, 500, 5_000, 20_000, 60_000];
  const durationMs = random.pick(durations) * random.between(0.5, 1.5);
  const steps = random.whole(1, swarm.isLoud ? 12 : 8);
  const bytes = swarm.isLoud ? random.pick([200_000, 1_500_000]) : random.pick([0, 40, 3_000, 90_000]);
  return {
    steps,
    stepMs: durationMs / steps,
    bytesPerStep: bytes === 0 ? 0 : random.whole(1, bytes),
    exitCode: random.pick([0, 0, 0, 1, 7]),
    ignoresTerm: random.chance(0.25),
    termMs: random.pick([0.1, 50, 4_000]),
    leavesProcesses: random.chance(0.1),
    unkillableMs: swarm.hasUnkillable && random.chance(0.5) ? random.between(10_000, 150_000) : 0,
    saysProgress: random.chance(0.3),
  };
}

function drawDefinition(
  random: SimRandom,
  { index, script, isLong }: { index: number; script: JobScript; isLong: boolean },
): JobDefinition {
  return definitionWith({
    name: `job-${index}`,
    command: { kind: "script", interpreter: "sim", content: scriptText(script), safetyHeaders: true },
    resources: { cpuMillis: random.pick([0, 1_000, 3_000]), memoryBytes: 0, diskBytes: 0, gpu: 0 },
    timeoutMs: random.pick(isLong ? [120_000, 400_000] : [5_000, 30_000, 120_000, 120_000]),
    queueTimeoutMs: random.pick([20_000, 600_000, 600_000, 600_000]),
    graceMs: random.pick([0, 1_000, 8_000]),
    leaseMs: random.pick([40_000, 40_000, 60_000, 120_000]),
    onWorkerLost: random.pick(["retry", "retry", "retry", "fail", "wait"]),
    retry: {
      maxRetries: random.pick([0, 0, 1, 2]),
      maxInfrastructureRetries: random.pick([0, 1, 2, 3]),
      backoffMs: random.pick([100, 2_000]),
      maxBackoffMs: 8_000,
      exitCodes: random.pick([[], [], [7]]),
    },
    priority: random.pick([0, 0, 5]),
  });
}

function drawActs(random: SimRandom, atMs: number, faultsMs: number): UserAct[] {
  if (random.chance(0.4)) return [];
  const kinds = ["cancel", "pause", "pause", "resume", "retry", "retry_forced"] as const;
  const count = random.whole(1, random.pick([1, 3, 5]));
  return Array.from({ length: count }, () => ({
    atMs: random.between(atMs, Math.max(atMs + 20_000, faultsMs)),
    kind: random.pick(kinds),
  })).toSorted((a, b) => a.atMs - b.atMs);
}
