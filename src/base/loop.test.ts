import assert from "node:assert/strict";
import { test } from "node:test";
import { systemClock } from "./clock.ts";
import { eventually } from "./eventually.ts";
import { silentLogger, type Logger } from "./log.ts";
import { Loop } from "./loop.ts";
import { stopAll, type Service } from "./service.ts";

const HOUR_MS = 3_600_000;

/** A loop whose rounds wait until they are let go. */
function setup(options: { periodMs?: number; log?: Logger; fail?: boolean } = {}) {
  let rounds = 0;
  let running = 0;
  let release: () => void = () => {};
  const loop = new Loop({
    name: "test",
    periodMs: options.periodMs ?? HOUR_MS,
    clock: systemClock,
    log: options.log ?? silentLogger,
    run: async () => {
      rounds += 1;
      running += 1;
      assert.equal(running, 1, "rounds do not overlap");
      await new Promise<void>((resolve) => (release = resolve));
      running -= 1;
      if (options.fail) throw new Error("planted");
    },
  });
  return { loop, rounds: () => rounds, running: () => running, release: () => release() };
}

test("hints during a round lead to exactly one more round after it", async () => {
  const { loop, rounds, running, release } = setup();
  await eventually(() => running() === 1);
  for (let count = 0; count < 5; count += 1) loop.hint();
  release();
  await eventually(() => rounds() === 2);
  release();
  await eventually(() => running() === 0);
  assert.equal(rounds(), 2);
  await loop.stop();
});

test("a hint between rounds starts one at once, and the period does without", async () => {
  const hinted = setup();
  hinted.release();
  await eventually(() => hinted.running() === 0);
  hinted.loop.hint();
  await eventually(() => hinted.rounds() === 2);
  hinted.release();
  await hinted.loop.stop();

  const periodic = setup({ periodMs: 1 });
  await eventually(() => {
    periodic.release();
    return periodic.rounds() >= 3;
  });
  const stopped = periodic.loop.stop();
  periodic.release();
  await stopped;
});

test("stopping waits for the round under way, starts no other, and may be done twice", async () => {
  const { loop, rounds, running, release } = setup({ periodMs: 0 });
  await eventually(() => running() === 1);
  let isStopped = false;
  const stopped = Promise.all([loop.stop(), loop.stop()]).then(() => (isStopped = true));
  loop.hint();
  await Promise.resolve();
  assert.equal(isStopped, false);
  release();
  await stopped;
  assert.deepEqual([rounds(), running()], [1, 0]);
  await loop.stop();
});

test("a round that fails is logged, and the next one comes with the period, not at once", async () => {
  const errors: unknown[] = [];
  const log: Logger = {
    ...silentLogger,
    child: () => log,
    error: (fields: unknown) => void errors.push(fields),
  };
  const { loop, rounds, running, release } = setup({ log, fail: true });
  await eventually(() => running() === 1);
  loop.hint();
  release();
  await eventually(() => errors.length === 1);
  assert.equal(rounds(), 1);
  await loop.stop();
});

test("services are stopped in order, also after one has failed, and the first failure is reported", async () => {
  const stopped: string[] = [];
  const service = (name: string, failure?: Error): Service => ({
    stop: async () => {
      stopped.push(name);
      if (failure) throw failure;
    },
  });
  const failing = [
    service("a"),
    service("b", new Error("first")),
    service("c", new Error("second")),
    service("d"),
  ];
  await assert.rejects(stopAll(failing), /first/);
  assert.deepEqual(stopped, ["a", "b", "c", "d"]);
});

test("rounds that fail for the same reason are logged once, and so is their end", async () => {
  const lines: string[] = [];
  const note = (fields: unknown, message?: string): void => {
    lines.push((fields as { err?: Error }).err?.message ?? message ?? "");
  };
  const log: Logger = { ...silentLogger, error: note, info: note };
  const outcomes = ["away", "away", "away", "full", "full", "", "", "away"];
  let rounds = 0;
  const loop = new Loop({
    name: "test",
    periodMs: 1,
    clock: systemClock,
    log,
    run: async () => {
      const outcome = outcomes[rounds] ?? "";
      rounds += 1;
      if (outcome !== "") throw new Error(outcome);
    },
  });
  await eventually(() => rounds > outcomes.length + 1);
  await loop.stop();
  assert.deepEqual(lines, ["away", "full", "loop rounds succeed again", "away", "loop rounds succeed again"]);
});
