/** What the jobs of the storm are like, drawn from a seed. */

import { WorkerLostPolicy } from "../src/protocol/gen/hodei/v1/jobs_pb.ts";
import type { SeededRandom } from "./seeded-random.ts";
import { witnessJob, type JobInit, type WitnessOptions } from "./witness-job.ts";

/** What the storm does to a job after it was submitted. */
export type Act =
  | { type: "none" }
  | { type: "cancel"; afterMs: number }
  | { type: "pause"; afterMs: number; forMs: number };

/** How a job ends if nothing but the storm itself happens to it. */
export type Expected =
  | { state: "succeeded" }
  | { state: "failed"; exitCode: number }
  | { state: "timed_out" };

export interface PlannedJob {
  kind: string;
  name: string;
  /** Of its trace. */
  directory: string;
  definition: JobInit;
  expected: Expected;
  /** It is not tried again when its worker is lost. */
  failsWhenLost: boolean;
  act: Act;
}

interface Kind {
  name: string;
  weight: number;
  draw(random: SeededRandom): {
    witness: Omit<WitnessOptions, "name" | "directory">;
    rest?: Omit<JobInit, "retry">;
    retry?: { maxRetries: number; exitCodes: number[] };
    expected?: Expected;
    act?: Act;
  };
}

/** Endless for the time of a storm: something else ends it. */
const ENDLESS = { rounds: 100_000, delaySeconds: 0.25 };

const KINDS: readonly Kind[] = [
  { name: "quick", weight: 24, draw: (random) => ({ witness: { rounds: random.integer(1, 5) } }) },
  {
    name: "steady",
    weight: 26,
    draw: (random) => ({
      witness: { rounds: random.integer(8, 50), delaySeconds: Number(random.spread(0.05, 0.5).toFixed(2)) },
    }),
  },
  {
    name: "long",
    weight: 3,
    draw: (random) => ({ witness: { rounds: random.integer(50, 100), delaySeconds: 0.5 } }),
  },
  {
    name: "loud",
    weight: 8,
    draw: (random) => ({
      witness: {
        rounds: random.integer(3, 10),
        burst: Math.round(random.spread(1_000, 20_000)),
        delaySeconds: 0.2,
      },
    }),
  },
  {
    name: "wide",
    weight: 6,
    draw: (random) => ({
      witness: { rounds: random.integer(10, 40), padBytes: random.integer(1_000, 3_500), delaySeconds: 0.1 },
    }),
  },
  {
    name: "failing",
    weight: 7,
    draw: (random) => {
      const exitCode = random.integer(1, 90);
      return {
        witness: { rounds: random.integer(1, 20), delaySeconds: 0.1, exitCode },
        expected: { state: "failed", exitCode },
      };
    },
  },
  {
    name: "flaky",
    weight: 5,
    draw: (random) => ({
      witness: { rounds: random.integer(1, 20), delaySeconds: 0.1, failures: 1 },
      retry: { maxRetries: 3, exitCodes: [3] },
    }),
  },
  {
    name: "forking",
    weight: 6,
    draw: (random) => ({
      witness: { rounds: random.integer(5, 20), delaySeconds: 0.1, children: random.integer(2, 5) },
    }),
  },
  {
    name: "steps",
    weight: 4,
    draw: (random) => ({ witness: { rounds: random.integer(3, 15), delaySeconds: 0.1, steps: 3 } }),
  },
  {
    name: "overdue",
    weight: 3,
    draw: (random) => ({
      witness: { ...ENDLESS, ignoresTerm: random.chance(0.5), children: random.integer(0, 2) },
      rest: { timeout: duration(random.integer(1_000, 5_000)), grace: duration(1_000) },
      expected: { state: "timed_out" },
    }),
  },
  {
    name: "cancelled",
    weight: 6,
    draw: (random) => ({
      witness: { ...ENDLESS, ignoresTerm: random.chance(0.5), children: random.integer(0, 3) },
      rest: { grace: duration(2_000) },
      act: { type: "cancel", afterMs: Math.round(random.spread(50, 10_000)) },
    }),
  },
  {
    name: "paused",
    weight: 5,
    draw: (random) => ({
      witness: { rounds: random.integer(20, 60), delaySeconds: 0.2, children: random.integer(0, 1) },
      act: {
        type: "pause",
        afterMs: Math.round(random.spread(200, 4_000)),
        forMs: Math.round(random.spread(500, 15_000)),
      },
    }),
  },
];

/** The shortest lease that the API takes: so that leases do end during a cut. */
const SHORT_LEASE_MS = 40_000;

/** One in ten fails with its worker, one in ten waits for it for ever. */
const LOST_POLICIES: readonly WorkerLostPolicy[] = [
  ...Array<WorkerLostPolicy>(8).fill(WorkerLostPolicy.RETRY),
  WorkerLostPolicy.FAIL,
  WorkerLostPolicy.WAIT,
];

export function drawJob(random: SeededRandom, name: string, directory: string): PlannedJob {
  const kind = drawKind(random);
  const drawn = kind.draw(random);
  const lease = random.chance(0.4) ? { lease: duration(SHORT_LEASE_MS) } : {};
  const patience = { maxInfrastructureRetries: 20, backoff: duration(200), maxBackoff: duration(2_000) };
  const onWorkerLost = random.pick(LOST_POLICIES) ?? WorkerLostPolicy.RETRY;
  const rest = { ...lease, onWorkerLost, ...drawn.rest, retry: { ...patience, ...drawn.retry } };
  return {
    kind: kind.name,
    name,
    directory,
    definition: witnessJob({ ...drawn.witness, name, directory }, rest),
    expected: drawn.expected ?? { state: "succeeded" },
    failsWhenLost: onWorkerLost === WorkerLostPolicy.FAIL,
    act: drawn.act ?? { type: "none" },
  };
}

function drawKind(random: SeededRandom): Kind {
  const total = KINDS.reduce((sum, { weight }) => sum + weight, 0);
  let left = random.fraction() * total;
  for (const kind of KINDS) {
    left -= kind.weight;
    if (left < 0) return kind;
  }
  throw new Error("draw a kind of job: the weights are wrong");
}

function duration(ms: number): { seconds: bigint; nanos: number } {
  return { seconds: BigInt(Math.floor(ms / 1_000)), nanos: (ms % 1_000) * 1_000_000 };
}
