import assert from "node:assert/strict";
import { test } from "node:test";
import { PullProgress } from "./pull-progress.ts";

function line(status: string, id?: string, current?: number, total?: number): string {
  return JSON.stringify({ status, id, progressDetail: { current, total } });
}

test("a download is described by the layers that were begun", () => {
  const progress = new PullProgress();
  progress.take(line("Pulling from library/x", "latest"));
  assert.equal(progress.describe(), "");
  progress.take(line("Downloading", "a", 3_000_000, 40_000_000));
  progress.take(line("Downloading", "b", 9_500_000, 40_000_000));
  assert.equal(progress.describe(), "12 of 80 MB");
  progress.take(line("Download complete", "a"));
  progress.take(line("Extracting", "a", 1, 40_000_000));
  assert.equal(progress.describe(), "49 of 80 MB");
});

test("what the engine calls an error is kept, and the first one counts", () => {
  const progress = new PullProgress();
  assert.equal(progress.problem, null);
  progress.take(JSON.stringify({ error: "manifest unknown", errorDetail: {} }));
  progress.take(JSON.stringify({ error: "another" }));
  assert.equal(progress.problem, "manifest unknown");
});
