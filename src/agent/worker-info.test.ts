import assert from "node:assert/strict";
import { test } from "node:test";
import { formatTaint } from "../core/labels.ts";
import { parseLabels, parseTaints } from "./worker-info.ts";

test("labels and taints are read as they are written elsewhere", () => {
  assert.deepEqual(parseLabels("zone=eu, disk=ssd,,empty="), { zone: "eu", disk: "ssd", empty: "" });
  const taints = [
    "gpu=a100:NoSchedule",
    "shared:PreferNoSchedule",
    "example.com/night=:NoExecute",
    "at=host:80:NoSchedule",
  ];
  const parsed = parseTaints(` ${taints.join(" , ")},`);
  assert.deepEqual(parsed, [
    { key: "gpu", value: "a100", effect: "NoSchedule" },
    { key: "shared", value: "", effect: "PreferNoSchedule" },
    { key: "example.com/night", value: "", effect: "NoExecute" },
    { key: "at", value: "host:80", effect: "NoSchedule" },
  ]);
  assert.deepEqual(parseTaints(parsed.map(formatTaint).join(",")), parsed);
  assert.deepEqual(parseLabels(""), {});
  assert.deepEqual(parseTaints(""), []);
});

test("what is no label and no taint is refused by name", () => {
  for (const text of ["zone", "=eu", "-a=b", "a b=c"]) {
    assert.throws(() => parseLabels(text), { code: "invalid_argument", message: /^labels: / }, text);
  }
  for (const text of [
    "gpu",
    "gpu=1",
    "gpu=1:Never",
    ":NoSchedule",
    "=1:NoSchedule",
    "-a:NoSchedule",
    "a:b:NoExecute",
  ]) {
    assert.throws(() => parseTaints(text), { code: "invalid_argument", message: /^taints: / }, text);
  }
  assert.throws(() => parseTaints("gpu=1:noschedule"), {
    message: /NoSchedule, PreferNoSchedule, NoExecute/,
  });
});
