import assert from "node:assert/strict";
import { test } from "node:test";
import { definitionWith } from "./job.ts";
import { placementOfKey } from "./placement-key.ts";
import { placementKey, placementOf } from "./placement.ts";

const RESOURCES = { cpuMillis: 1, memoryBytes: 2, diskBytes: 3, gpu: 4 };

test("a placement key holds all of a placement but whether the job is preemptible", () => {
  const plain = definitionWith({ name: "a" });
  const selective = definitionWith({ name: "a", resources: RESOURCES, selector: { z: "1", "\0": "\ud800" } });
  const full = definitionWith({
    name: "a",
    resources: RESOURCES,
    selector: { __proto__: null, os: "linux" } as unknown as Record<string, string>,
    selectorExpressions: [{ key: "zone", operator: "in", values: ["a", "b"] }],
    tolerations: [{ key: "", operator: "exists", value: "", effect: null }],
    capabilities: ["pause"],
    preferences: [{ weight: -7, workerLabels: [], jobLabels: { app: "db" } }],
  });
  for (const definition of [plain, selective, full, { ...plain, capabilities: ["pause"] }]) {
    const { preemptible: _, ...expected } = placementOf(definition);
    const found = placementOfKey(placementKey(definition));
    assert.deepEqual(
      { ...found, selector: { ...found.selector } },
      { ...expected, selector: { ...expected.selector } },
    );
  }
});
