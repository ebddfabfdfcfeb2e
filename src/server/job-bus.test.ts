import assert from "node:assert/strict";
import { test } from "node:test";
import { systemClock } from "../base/clock.ts";
import type { Job } from "../core/job.ts";
import { JobBus, JobWatch } from "./job-bus.ts";

const job = (id: string, version: number): Job => ({ id, version }) as Job;

function setup() {
  const bus = new JobBus();
  const watch = new JobWatch({ bus, clock: systemClock }, "a");
  return { bus, watch, signal: new AbortController().signal };
}

test("a subscriber hears of its job, of no other, and of nothing after it left", () => {
  const { bus, watch } = setup();
  const heard: number[] = [];
  const leave = bus.subscribe("a", ({ version }) => heard.push(version));
  bus.publish(job("a", 1));
  bus.publish(job("b", 2));
  leave();
  leave();
  bus.publish(job("a", 3));
  assert.deepEqual(heard, [1]);
  watch.close();
  assert.equal(bus.subscribers, 0);
});

test("a slow watcher finds the newest state only, whatever the order of arrival", async () => {
  const { bus, watch, signal } = setup();
  for (const version of [1, 5, 3]) bus.publish(job("a", version));
  assert.equal((await watch.next(10_000, signal))?.version, 5);
  assert.equal(await watch.next(1, signal), null);
  watch.close();
});

test("a waiting watcher is woken by the next change", async () => {
  const { bus, watch, signal } = setup();
  const next = watch.next(60_000, signal);
  bus.publish(job("a", 1));
  assert.equal((await next)?.version, 1);
  watch.close();
});

test("a waiting watcher ends with its signal", async () => {
  const { watch } = setup();
  const abort = new AbortController();
  const next = watch.next(60_000, abort.signal);
  abort.abort();
  assert.equal(await next, null);
  assert.equal(await watch.next(60_000, abort.signal), null);
  watch.close();
});

test("a listener may leave while it is being told", () => {
  const { bus, watch } = setup();
  const heard: string[] = [];
  const leaveFirst = bus.subscribe("a", () => {
    heard.push("first");
    leaveFirst();
  });
  const leaveSecond = bus.subscribe("a", () => heard.push("second"));
  bus.publish(job("a", 1));
  bus.publish(job("a", 2));
  assert.deepEqual(heard, ["first", "second", "second"]);
  leaveSecond();
  watch.close();
});
