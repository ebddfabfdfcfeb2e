import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { LabelRequirement, Toleration } from "./labels.ts";
import { meetsConstraints, reluctance } from "./placement.ts";
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
const worker = fc.record({ labels, taints: fc.array(taint, { maxLength: 2 }) });
const expression: LabelRequirement = { key: "zone", operator: "exists", values: [] };
const toleration: Toleration = { key: "gpu", operator: "equal", value: "a100", effect: null };
const job = fc.record({
  selector: labels,
  selectorExpressions: fc.array(fc.constant(expression), { maxLength: 1 }),
  tolerations: fc.array(fc.constant(toleration), { maxLength: 1 }),
  resources: fc.integer({ min: 1, max: 2 }).map(cpu),
});

test("a match has every kind whose labels, taints and capabilities will do, and no other", () => {
  fc.assert(
    fc.property(fc.array(worker, { maxLength: 8 }), fc.array(job, { maxLength: 8 }), (workers, jobs) => {
      const kinds = newWorkerKinds();
      for (const [index, given] of workers.entries()) addKind(kinds, aWorker(`w${index}`, given));
      for (const each of jobs.map((given, index) => aJob(`j${index}`, given))) {
        const expected = kinds.all.flatMap((kind, index) =>
          meetsConstraints(each.placement, kind) ? [[index, reluctance(each.placement, kind)]] : [],
        );
        const match = matchOf(kinds, each);
        assert.deepEqual(
          [...match].map(([index, fit]) => [index, fit.reluctance]),
          expected,
        );
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
