import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import { runSeed } from "./cluster.ts";
import { isLogBytes, logBytes } from "./log-pattern.ts";
import { MUTATIONS } from "./mutations.ts";
import { RULES } from "./rules.ts";
import { drawScenario, FAULTS } from "./scenario.ts";
import { SimHost, SimProcess } from "./sim-process.ts";
import { VirtualTime } from "./virtual-time.ts";

/** Enough for every fault to meet every other one; `npm run sim` runs many more. */
const SEEDS = 1_000;
/** Each violated a rule until a bug was mended. */
const REGRESSION_SEEDS = [2_221, 6_457, 7_256];

async function assertPasses(seed: number): Promise<void> {
  const { violation, lastLines } = await runSeed(seed);
  if (violation === null) return;
  assert.fail(`seed ${seed}: ${RULES[violation.rule]}: ${violation.details}\n${lastLines.join("\n")}`);
}

describe("the simulated cluster", () => {
  test(`keeps its promises with ${SEEDS} seeds`, async () => {
    const { stackTraceLimit } = Error;
    // Errors are normal in there, and their stacks take a tenth of the time.
    Error.stackTraceLimit = 0;
    try {
      for (let seed = 1; seed <= SEEDS; seed += 1) await assertPasses(seed);
    } finally {
      Error.stackTraceLimit = stackTraceLimit;
    }
  });

  test("keeps them where it once did not: an order repeated to a new runner, a time-out while away", async () => {
    for (const seed of REGRESSION_SEEDS) await assertPasses(seed);
  });

  test("does the same at the same times for the same seed, and something else for another", async () => {
    const hashes = new Set<string>();
    for (const seed of [3, 17, 94, 587]) {
      const first = await runSeed(seed);
      const again = await runSeed(seed);
      assert.equal(again.traceHash, first.traceHash, `seed ${seed}`);
      assert.equal(again.events, first.events, `seed ${seed}`);
      hashes.add(first.traceHash);
    }
    assert.equal(hashes.size, 4);
  });

  test("draws every fault, and some clusters without any", () => {
    const scenarios = Array.from({ length: 300 }, (_, seed) => drawScenario(seed + 1));
    for (const fault of FAULTS)
      assert.ok(
        scenarios.some(({ faults }) => faults.has(fault)),
        fault,
      );
    assert.ok(scenarios.some(({ hasFaults, faults }) => !hasFaults && faults.size === 0));
  });

  test("finds the place of each planted bug in the compiled program", () => {
    assert.ok(MUTATIONS.length >= 12);
    assert.equal(new Set(MUTATIONS.map(({ name }) => name)).size, MUTATIONS.length);
    for (const { name, file, find } of MUTATIONS) {
      const text = readFileSync(join(import.meta.dirname, "../src", file.replace(/\.ts$/, ".js")), "utf8");
      assert.equal(text.split(find).length - 1, 1, `${name}: its text in ${file}`);
    }
  });
});

describe("simulated time", () => {
  test("lets events happen in the order of their times, and all promises settle between two", async () => {
    const time = new VirtualTime();
    const seen: string[] = [];
    time.schedule(20, () => seen.push("second"));
    time.schedule(10, () => {
      seen.push("first");
      void Promise.resolve()
        .then(() => Promise.resolve())
        .then(() => seen.push("promise"));
    });
    time.schedule(30, () => seen.push("never"))();
    await time.run({ endMs: 100, isOver: () => false });
    assert.deepEqual(seen, ["first", "promise", "second"]);
  });

  test("lets nothing reach a killed process, and everything a stopped one, late", async () => {
    const time = new VirtualTime();
    const host = new SimHost(time, "host");
    const [dead, stopped] = [new SimProcess(host, "dead"), new SimProcess(host, "stopped")];
    const seen: string[] = [];
    for (const process of [dead, stopped]) {
      process.clock.schedule(10, () => seen.push(`${process.name} at ${time.nowMs}`));
    }
    dead.kill();
    stopped.stop();
    time.schedule(50, () => stopped.proceed());
    await time.run({ endMs: 100, isOver: () => false });
    assert.deepEqual(seen, ["stopped at 50"]);
  });

  test("stops the timers of a suspended machine, but not the time since it was started", async () => {
    const time = new VirtualTime();
    const host = new SimHost(time, "host");
    const process = new SimProcess(host, "process");
    let firedMs = 0;
    process.clock.schedule(100, () => (firedMs = time.nowMs));
    time.schedule(40, () => host.suspend());
    time.schedule(1_040, () => host.resume());
    await time.run({ endMs: 5_000, isOver: () => false });
    assert.equal(firedMs, 1_100);
    assert.equal(host.bootMs - host.monotonicMs, 1_000);
  });
});

test("bytes of a log that are changed, moved or of another run are noticed", () => {
  const place = { attemptId: "018bcfe5-68b1-7793-9745-a7892b4b3ed9", run: 1, offset: 300 };
  const data = Uint8Array.from(logBytes({ ...place, length: 1_000 }));
  assert.ok(isLogBytes(data, place));
  assert.ok(!isLogBytes(data, { ...place, offset: 301 }));
  assert.ok(!isLogBytes(data, { ...place, run: 2 }));
  data[500] = (data[500] ?? 0) ^ 1;
  assert.ok(!isLogBytes(data, place));
});
