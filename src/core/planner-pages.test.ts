import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { PlanInput, PlannedJob } from "./plan.ts";
import { aJob, aPool, aQueue, aSnapshot, aWorker, capacityOf, cpu, placed } from "./planner-fixtures.ts";
import { plan } from "./planner.ts";

const QUEUES = ["a", "b", "c"];
const PAGE = 4;

/** Jobs in the order of each queue, as they are read. */
const job = fc.record({
  queue: fc.constantFrom(...QUEUES),
  priority: fc.integer({ min: 0, max: 2 }),
  resources: fc.integer({ min: 1, max: 3 }).map(cpu),
  selector: fc.constantFrom({}, { os: "linux" }, { os: "plan9" }),
  concurrency: fc.constantFrom(null, null, { key: "k", limit: 2 }),
});
const cluster = fc
  .record({
    jobs: fc.array(job, { maxLength: 30 }),
    sizes: fc.array(fc.integer({ min: 1, max: 4 }), { maxLength: 4 }),
    room: fc.integer({ min: 0, max: 2 }),
    maxRunning: fc.constantFrom(null, 2),
  })
  .map(({ jobs, sizes, room, maxRunning }) =>
    aSnapshot({
      jobs: jobs
        .map((given, index) => aJob(`job-${index}`, given))
        .toSorted((left, right) => right.priority - left.priority),
      workers: sizes.map((size, index) =>
        aWorker(`worker-${index}`, {
          capacity: capacityOf(size, size),
          labels: index % 2 === 0 ? { os: "linux" } : {},
        }),
      ),
      pools: [aPool("pool", { room, capacity: capacityOf(2, 1) })],
      queues: QUEUES.map((name) => aQueue(name, name === "a" ? { maxRunning } : { weight: 2 })),
    }),
  );

/** The first jobs of each queue alone. */
function firstPage(input: PlanInput): PlanInput & { queuesWithMore: Set<string> } {
  const jobs: PlannedJob[] = [];
  const queuesWithMore = new Set<string>();
  for (const name of QUEUES) {
    const all = input.jobs.filter(({ queue }) => queue === name);
    jobs.push(...all.slice(0, PAGE));
    if (all.length > PAGE) queuesWithMore.add(name);
  }
  return { ...input, jobs, queuesWithMore };
}

test("what a page of each queue starts is what would start first if all jobs had been read", () => {
  fc.assert(
    fc.property(cluster, (input) => {
      const { assign } = plan(firstPage(input));
      const all = plan(input).assign;
      assert.deepEqual(assign, all.slice(0, assign.length));
    }),
    { numRuns: 500 },
  );
});

test("whoever waits according to a page that was cut off would wait if all jobs had been read", () => {
  fc.assert(
    fc.property(cluster, (input) => {
      const page = firstPage({ ...input, pools: [] });
      const { reasons, assign } = plan(page);
      const started = new Set(plan({ ...input, pools: [] }).assign.map(({ jobId }) => jobId));
      const pageStarted = new Set(assign.map(({ jobId }) => jobId));
      for (const { id, placementKey, queue, concurrency } of page.jobs) {
        const isHeld = [placementKey, `queue ${queue}`, `concurrency ${concurrency?.key}`].some((key) =>
          reasons.has(key),
        );
        if (isHeld && !pageStarted.has(id)) assert.ok(!started.has(id), id);
      }
    }),
    { numRuns: 500 },
  );
});

test("room that somebody is ended for is told, so that nobody else is given it", () => {
  const victim = placed("low", { preemptible: true, resources: cpu(3) });
  const { promised, preempt } = plan(
    aSnapshot({
      jobs: [aJob("high", { priority: 5, resources: cpu(4) })],
      workers: [aWorker("worker", { running: [victim] })],
    }),
  );
  assert.equal(preempt.length, 1);
  assert.deepEqual(promised.kept, [{ workerId: "worker", resources: cpu(4) }]);
});

test("what a limited queue holds up tells nothing of alike jobs of another queue", () => {
  const alike = { resources: cpu(2) };
  const later = aJob("later", { ...alike, queue: "a", priority: 5 });
  const input = aSnapshot({
    jobs: [aJob("first", { queue: "a", priority: 5 }), later, aJob("other", { ...alike, queue: "b" })],
    pools: [aPool("pool", { room: 1, maxWorkers: 1 })],
    queues: [aQueue("a", { maxRunning: 1 }), aQueue("b")],
  });
  const reasonOf = (given: PlanInput) => plan(given).reasons.get(later.placementKey)?.message ?? "";
  assert.match(reasonOf(input), /^pool pool is at its maximum of 1 worker$/);
  assert.match(reasonOf({ ...input, jobs: input.jobs.slice(0, 2) }), /^jobs of queue a that go first are/);
});
