import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { checkoutRoot } from "./base/checkout-root.ts";
import { JOB_STATES } from "./core/job.ts";
import { jobStateDiagram } from "./core/job-state-diagram.ts";

test("docs/states.md shows the table of job states as it is", () => {
  const text = readFileSync(join(checkoutRoot(), "docs/states.md"), "utf8");
  const diagram = /```mermaid\n([\s\S]*?)```/.exec(text)?.[1];
  assert.equal(diagram, jobStateDiagram(), "run: npm run build && node scripts/print-states.mjs");
});

test("docs/states.md describes every state", () => {
  const text = readFileSync(join(checkoutRoot(), "docs/states.md"), "utf8");
  for (const state of JOB_STATES) assert.match(text, new RegExp(`^\\| \`${state}\` \\|`, "m"), state);
});
