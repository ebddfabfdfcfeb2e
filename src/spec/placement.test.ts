import assert from "node:assert/strict";
import { test } from "node:test";
import type { JobDefinition } from "../core/job.ts";
import { parseJobFile } from "./job-file.ts";
import { formatToleration, parsePreference, parseTaint, parseToleration } from "./placement-texts.ts";
import { formatProblem } from "./problem.ts";

function definition(text: string): JobDefinition {
  const result = parseJobFile(`run: x\n${text}`, { fileName: "j.yaml" });
  assert.ok(
    result.ok,
    result.ok ? "" : result.problems.map((problem) => formatProblem(problem, "j")).join("\n"),
  );
  const [job] = result.jobs;
  assert.ok(job);
  return job.definition;
}

function complaint(text: string): string {
  const result = parseJobFile(`run: x\n${text}`, { fileName: "j.yaml" });
  assert.ok(!result.ok, "the file was accepted");
  return result.problems.map((problem) => formatProblem(problem, "j.yaml")).join("\n");
}

function assertProblem(parsed: object | string, expected: RegExp): void {
  assert.ok(typeof parsed === "string", "it was accepted");
  assert.match(parsed, expected);
}

test("a selector is a mapping, a text or a list of texts", () => {
  const asMap = definition("selector: { os: linux, release: 1.10 }");
  assert.deepEqual(asMap.selector, { os: "linux", release: "1.10" });
  assert.deepEqual(asMap.selectorExpressions, []);
  const asText = definition("selector: os=linux,zone in (a,b),!spot,cores>4");
  assert.deepEqual(asText.selector, { os: "linux" });
  assert.deepEqual(asText.selectorExpressions, [
    { key: "zone", operator: "in", values: ["a", "b"] },
    { key: "spot", operator: "not_exists", values: [] },
    { key: "cores", operator: "gt", values: ["4"] },
  ]);
  const asList = definition('selector:\n  - os=linux\n  - "zone in (a,b)"\n  - "!spot"\n  - cores>4');
  assert.deepEqual(asList.selector, asText.selector);
  assert.deepEqual(asList.selectorExpressions, asText.selectorExpressions);
});

test("what is wrong with a selector is said at its line, with what to write", () => {
  assert.match(complaint("selector: os=linux,zone >= 3"), /^j\.yaml:2:11: selector: column 10: .*>=/);
  assert.match(complaint("selector: [os=linux, os=mac]"), /no worker has both os=linux and os=mac/);
  assert.match(complaint("selector:\n  b@d: x"), /^j\.yaml:3:3: selector\["b@d"\]: is not a possible name/);
  assert.match(complaint("selector: !spot"), /^j\.yaml:2:11: .*put a text that begins with ! in quotes/);
  assert.match(complaint("selector: [os=linux, ' ']"), /selector: is empty; write conditions such as/);
  assert.match(complaint("selector: 7"), /must be a mapping of labels, or text such as/);
});

test("tolerations, capabilities, preferences, concurrency and preemption reach the definition", () => {
  const job = definition(`
tolerations: [gpu, gpu=a100:NoExecute, "*:PreferNoSchedule", { key: team, value: 7 }, { effect: NoExecute }]
capabilities: [pause]
preferences:
  - { weight: 50, selector: "zone=a" }
  - { weight: -100, jobLabels: { app: 1.10 } }
concurrency: { key: deploy, limit: 2 }
preemptible: true
`);
  assert.deepEqual(job.tolerations, [
    { key: "gpu", operator: "exists", value: "", effect: null },
    { key: "gpu", operator: "equal", value: "a100", effect: "NoExecute" },
    { key: "", operator: "exists", value: "", effect: "PreferNoSchedule" },
    { key: "team", operator: "equal", value: "7", effect: null },
    { key: "", operator: "exists", value: "", effect: "NoExecute" },
  ]);
  assert.deepEqual(job.capabilities, ["pause"]);
  assert.deepEqual(job.preferences, [
    { weight: 50, workerLabels: [{ key: "zone", operator: "in", values: ["a"] }], jobLabels: {} },
    { weight: -100, workerLabels: [], jobLabels: { app: "1.10" } },
  ]);
  assert.deepEqual(job.concurrency, { key: "deploy", limit: 2 });
  assert.equal(job.preemptible, true);
  assert.deepEqual(definition("concurrency: deploy").concurrency, { key: "deploy", limit: 1 });
});

test("every problem of the placement of a job is told with its line", () => {
  const text = complaint(`
tolerations:
  - gpu:NoSchedul
  - { kye: gpu }
  - { value: x }
preferences:
  - { weight: 200, selector: zone=a }
  - { weight: 1 }
concurrency: { limit: 0, key: a }
`);
  for (const expected of [
    /^j\.yaml:4:5: tolerations\[0\]: .*"NoSchedul" is none of NoSchedule.*did you mean NoSchedule\?/m,
    /^j\.yaml:5:7: tolerations\[1\]\.kye: unknown key `kye`; did you mean `key`\?/m,
    /^j\.yaml:6:5: tolerations\[2\]: .*needs the name of the taint/m,
    /^j\.yaml:8:15: preferences\[0\]\.weight: must be a whole number from -100 to 100/m,
    /^j\.yaml:9:5: preferences\[1\]: must have exactly one of selector and jobLabels/m,
    /^j\.yaml:10:23: concurrency\.limit: must be a whole number from 1 to 100000/m,
  ]) {
    assert.match(text, expected);
  }
});

test("tolerations, taints and preferences are read from texts, and wrong ones say what to write", () => {
  for (const text of ["gpu", "gpu=a100", "gpu=a100:NoSchedule", "*", "*:NoExecute", "gpu="]) {
    const toleration = parseToleration(text);
    assert.ok(typeof toleration !== "string", text);
    assert.equal(formatToleration(toleration), text);
  }
  assert.deepEqual(parseTaint("gpu:NoSchedule"), { key: "gpu", value: "", effect: "NoSchedule" });
  assertProblem(parseTaint("gpu=1"), /has no effect: write gpu:NoSchedule/);
  assertProblem(parseTaint("=1:NoSchedule"), /"" is not the name of a taint/);
  assertProblem(parseToleration("*=1"), /"\*" is not the name of a taint/);
  assert.deepEqual(parsePreference("spot:-100"), {
    weight: -100,
    workerLabels: [{ key: "spot", operator: "exists", values: [] }],
    jobLabels: {},
  });
  assertProblem(parsePreference("zone=a"), /does not end in a weight from -100 to 100/);
  assertProblem(parsePreference("zone=a:101"), /does not end in a weight/);
  assertProblem(parsePreference("a=1,,b:1"), /column/);
});
