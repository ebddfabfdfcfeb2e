import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { fulfils, type LabelRequirement, type Toleration } from "./labels.ts";
import { meetsConstraints, reluctance, type Placement } from "./placement.ts";
import { aJob, aWorker, cpu } from "./planner-fixtures.ts";
import { addKind, matchOf, newWorkerKinds } from "./planner-match.ts";

const os = fc.constantFrom("linux", "mac", "plan9");
const zone = fc.constantFrom("a", "b");
const labels = fc.oneof(fc.record({}), fc.record({ os }), fc.record({ zone }), fc.record({ os, zone }));
const taint = fc.record({
  key: fc.constant("gpu"),
  value: fc.constantFrom("", "a100"),
  effect: fc.constantFrom("NoSchedule" as const, "PreferNoSchedule" as const),
});
const expression: fc.Arbitrary<LabelRequirement> = fc.constantFrom(
  { key: "zone", operator: "in", values: ["a", "c"] },
  { key: "zone", operator: "not_in", values: ["a"] },
  { key: "zone", operator: "exists", values: [] },
  { key: "os", operator: "not_exists", values: [] },
  { key: "cores", operator: "gt", values: ["4"] },
  { key: "cores", operator: "lt", values: ["8"] },
);
const toleration: fc.Arbitrary<Toleration> = fc.constantFrom(
  { key: "gpu", operator: "equal", value: "a100", effect: null },
  { key: "", operator: "exists", value: "", effect: null },
);
const preference = fc.record({
  weight: fc.integer({ min: -2, max: 2 }),
  workerLabels: fc.array(expression, { minLength: 1, maxLength: 2 }),
  jobLabels: fc.constantFrom({}, { team: "a" }),
});
const capabilities = fc.subarray(["pause", "cgroup"]);
const worker = fc.record({
  labels: fc.oneof(labels, fc.constantFrom({ cores: "6" }, { os: "linux", cores: "many" })),
  taints: fc.array(taint, { maxLength: 2 }),
  capabilities,
});
const job = fc.record({
  selector: labels,
  selectorExpressions: fc.array(expression, { maxLength: 2 }),
  tolerations: fc.array(toleration, { maxLength: 1 }),
  capabilities,
  preferences: fc.array(preference, { maxLength: 1 }),
  resources: fc.integer({ min: 1, max: 2 }).map(cpu),
});

/** Of preferences that say nothing of other jobs. */
function weightOf({ preferences }: Placement, labels: Record<string, string>): number {
  return preferences
    .filter(({ jobLabels }) => Object.keys(jobLabels).length === 0)
    .filter(({ workerLabels }) => workerLabels.every((each) => fulfils(labels, each)))
    .reduce((sum, { weight }) => sum + weight, 0);
}

test("a match has every kind whose labels, taints and capabilities will do, and no other", () => {
  fc.assert(
    fc.property(fc.array(worker, { maxLength: 8 }), fc.array(job, { maxLength: 8 }), (workers, jobs) => {
      const kinds = newWorkerKinds();
      for (const [index, given] of workers.entries()) addKind(kinds, aWorker(`w${index}`, given));
      for (const each of jobs.map((given, index) => aJob(`j${index}`, given))) {
        const { placement } = each;
        const expected = kinds.all.flatMap((kind, index) => {
          const fit = { reluctance: reluctance(placement, kind), weight: weightOf(placement, kind.labels) };
          return meetsConstraints(placement, kind) ? [[index, fit]] : [];
        });
        assert.deepEqual([...matchOf(kinds, each)], expected);
      }
    }),
    { numRuns: 500 },
  );
});

test("jobs that differ in their size alone are matched once", () => {
  const kinds = newWorkerKinds();
  addKind(kinds, aWorker("w", { labels: { os: "linux" } }));
  const ofSize = (cores: number, selector: Record<string, string>) =>
    matchOf(kinds, aJob("j", { resources: cpu(cores), selector }));
  assert.equal(ofSize(1, { os: "linux" }), ofSize(2, { os: "linux" }));
  assert.notEqual(ofSize(1, { os: "linux" }), ofSize(1, {}));
  assert.equal(ofSize(1, {}), ofSize(64, {}));
});
