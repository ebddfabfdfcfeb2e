import assert from "node:assert/strict";
import { test } from "node:test";
import { systemClock } from "../../base/clock.ts";
import { eventually } from "../../base/eventually.ts";
import { ManualClock } from "../../base/manual-clock.ts";
import { databaseHealth } from "./health-report.ts";

test("a server is ready as long as its database answers, and says why it does not", async () => {
  let failure: Error | null = null;
  const store = { ping: () => (failure ? Promise.reject(failure) : Promise.resolve()) };
  const check = databaseHealth({ store, clock: systemClock });
  assert.deepEqual(await check(), { ready: true, problems: [] });
  failure = new Error("ping database: gone");
  assert.deepEqual(await check(), { ready: false, problems: ["database: ping database: gone"] });
});

test("what is known of the database is told without asking it", async () => {
  let problem: string | null = "it is being started again";
  let pings = 0;
  const store = {
    async ping() {
      pings += 1;
    },
  };
  const check = databaseHealth({ store, clock: systemClock, problem: () => problem });
  assert.deepEqual(await check(), { ready: false, problems: ["database: it is being started again"] });
  assert.equal(pings, 0);
  problem = null;
  assert.deepEqual(await check(), { ready: true, problems: [] });
});

test("a database that does not answer is not waited for, and no timer is left behind", async () => {
  const clock = new ManualClock();
  const check = databaseHealth({ store: { ping: () => new Promise(() => {}) }, clock });
  const report = check();
  await eventually(() => clock.waiting === 1);
  clock.advance(2_000);
  assert.deepEqual(await report, { ready: false, problems: ["database: no answer within 2000 ms"] });
  assert.equal(clock.waiting, 0);
});
