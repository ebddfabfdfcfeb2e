import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { preferredModes } from "./detect-process-trees.ts";

/** The modes for a hierarchy of version 2 that has these controllers. */
function modesWith(controllers: string): string[] {
  const directory = mkdtempSync(join(tmpdir(), "hodei-cgroup-"));
  try {
    writeFileSync(join(directory, "cgroup.controllers"), `${controllers}\n`);
    return preferredModes({ v2: directory });
  } finally {
    rmSync(directory, { recursive: true });
  }
}

test("version 2 comes first only where it can measure memory", () => {
  assert.deepEqual(modesWith("cpuset cpu io memory hugetlb pids"), ["v2", "v1"]);
  assert.deepEqual(modesWith("hugetlb"), ["v1", "v2"]);
  assert.deepEqual(modesWith(""), ["v1", "v2"]);
  assert.deepEqual(preferredModes({ v2: null }), ["v1", "v2"]);
});
