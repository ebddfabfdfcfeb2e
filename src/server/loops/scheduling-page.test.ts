import assert from "node:assert/strict";
import { test } from "node:test";
import { mostKinds, pageOf } from "./scheduling-page.ts";

const job = (queue: string, placementKey: string) => ({ queue, placementKey });

test("a page ends in all queues before its jobs are of too many kinds", () => {
  const read = [job("a", "1"), job("a", "2"), job("a", "3"), job("b", "1"), job("b", "4")];
  const { jobs, queuesWithMore } = pageOf(read, { perQueue: 10, kinds: 2 });
  assert.deepEqual(jobs, [job("a", "1"), job("b", "1")]);
  assert.deepEqual([...queuesWithMore], ["a", "b"]);
});

test("a page of more kinds than it may have has one job of each queue, so that it goes on", () => {
  const read = [job("a", "1"), job("a", "1"), job("b", "2"), job("c", "3")];
  const { jobs, queuesWithMore } = pageOf(read, { perQueue: 10, kinds: 2 });
  assert.deepEqual(jobs, [job("a", "1"), job("b", "2"), job("c", "3")]);
  assert.deepEqual([...queuesWithMore], ["a"]);
});

test("a page of few kinds has all that was read, and a queue that gave all that was asked for has more", () => {
  const read = [job("a", "1"), job("a", "1"), job("b", "2")];
  const { jobs, queuesWithMore } = pageOf(read, { perQueue: 2, kinds: mostKinds(2_000) });
  assert.deepEqual(jobs, read);
  assert.deepEqual([...queuesWithMore], ["a"]);
});
