import assert from "node:assert/strict";
import { test } from "node:test";
import { silentLogger } from "../base/log.ts";
import { ManualClock } from "../base/manual-clock.ts";
import { newAgentSession, onServerMessage } from "../core/agent-session.ts";
import { definitionWith } from "../core/job.ts";
import { Drain, RESULTS_TIMEOUT_MS } from "./drain.ts";

function setup() {
  const clock = new ManualClock();
  const session = newAgentSession();
  const killed: string[] = [];
  let overs = 0;
  const drain = new Drain({
    session,
    clock,
    log: silentLogger,
    kill: (attemptId) => killed.push(attemptId),
    onTimeOver: () => (overs += 1),
  });
  const run = (attemptId: string): void => {
    const definition = definitionWith({ name: "x" });
    onServerMessage(session, { type: "run_job", attemptId, jobId: "j", attemptNumber: 1, definition }, 0);
  };
  return { clock, session, drain, killed, run, overs: () => overs };
}

test("what runs has its time; what still runs then is ended, and the results have theirs", () => {
  const { clock, drain, killed, run, overs, session } = setup();
  run("long");
  run("done");
  const done = session.attempts.get("done");
  if (done) done.phase = "finished";
  drain.begin(30_000);
  clock.advance(29_999);
  assert.deepEqual(killed, []);
  clock.advance(1);
  assert.deepEqual(killed, ["long"], "one that has ended waits for the server only");
  clock.advance(RESULTS_TIMEOUT_MS - 1);
  assert.equal(overs(), 0);
  clock.advance(1);
  assert.equal(overs(), 1);
  assert.equal(clock.waiting, 0);
});

test("the second time what runs is ended at once, and so it is without any time", () => {
  const twice = setup();
  twice.run("a");
  twice.drain.begin(30_000);
  twice.drain.begin(30_000);
  assert.deepEqual(twice.killed, ["a"]);
  twice.drain.begin(30_000);
  assert.deepEqual(twice.killed, ["a"], "the third time changes nothing");
  twice.drain.stop();
  assert.equal(twice.clock.waiting, 0);

  const none = setup();
  none.run("b");
  none.drain.begin(0);
  assert.deepEqual(none.killed, ["b"]);
});

test("an order that comes while the rest is being ended is ended, too, and before that it runs", () => {
  const { drain, killed, run } = setup();
  drain.onChange();
  drain.begin(30_000);
  run("late");
  drain.onChange();
  assert.deepEqual(killed, []);
  drain.begin(30_000);
  assert.deepEqual(killed, ["late"]);
  run("later");
  drain.onChange();
  assert.equal(killed.at(-1), "later");
});

test("a signal that comes when the agent has left waits for nothing", () => {
  for (const timeoutMs of [0, 30_000]) {
    const { clock, drain, overs } = setup();
    drain.stop();
    drain.begin(timeoutMs);
    drain.begin(timeoutMs);
    assert.equal(clock.waiting, 0);
    assert.equal(overs(), 0);
  }
});
