import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { WorkerMessage } from "./link.ts";
import {
  newServerSession,
  onAssigned,
  onEndStored,
  onHello,
  onJobSeen,
  onLogDurable,
  onGivenUp,
  onWorkerMessage,
  type LiveAttemptView,
  type ServerAction,
  type ServerSession,
} from "./server-session.ts";
import { sampleJob, sampleResult } from "./session-fixtures.ts";
import type { AttemptPhase } from "./worker.ts";

function view(changes: Partial<LiveAttemptView> = {}): LiveAttemptView {
  return { attemptId: "a-1", attemptNumber: 1, job: sampleJob(), logDurable: 0, runnerId: "r-1", ...changes };
}

/** A session whose worker holds `a-1` and has said so. */
function setup(): ServerSession {
  const session = newServerSession("w-1", 0);
  onAssigned(session, view());
  onWorkerMessage(session, { type: "accepted", attemptId: "a-1" }, 1);
  return session;
}

const sent = (actions: ServerAction[]): string[] =>
  actions.flatMap((action) => (action.type === "send" ? [action.message.type] : []));
const inputs = (actions: ServerAction[]): string[] =>
  actions.flatMap((action) => (action.type === "apply" ? [action.input.type] : []));

function result(logEnd: number): WorkerMessage & { type: "result" } {
  return { type: "result", attemptId: "a-1", result: sampleResult({ logEnd }) };
}

function controls(actions: readonly ServerAction[]): string[] {
  return actions.flatMap((action) =>
    action.type === "send" && action.message.type === "control" ? [action.message.action] : [],
  );
}

function beat(phase: AttemptPhase) {
  const attempts = [{ attemptId: "a-1", phase, logEnd: 0 }];
  return { type: "heartbeat", sequence: 1, usage: null, attempts, draining: false } as const;
}

const silentBeat: Extract<WorkerMessage, { type: "heartbeat" }> = {
  type: "heartbeat",
  sequence: 4,
  usage: null,
  attempts: [],
  draining: false,
};

describe("the server's half of the session", () => {
  test("lets a held live attempt go on from where the log ends here", () => {
    const session = newServerSession("w-1", 0);
    const held = [{ attemptId: "a-1", phase: "running" as const, logEnd: 500 }];
    const running = view({ job: sampleJob({ state: "running", startedAtMs: 5 }), logDurable: 200 });
    const [welcome, ...rest] = onHello(session, {
      held,
      live: [running],
      draining: false,
      runnerId: "r-1",
      nowMs: 9,
    });
    assert.ok(welcome?.type === "send" && welcome.message.type === "welcome");
    assert.deepEqual(welcome.message.attempts, [{ attemptId: "a-1", proceed: true, logAcked: 200 }]);
    assert.deepEqual(rest, []);
    assert.equal(session.heardAtMs, 9);
  });

  test("tells the worker to kill what is not live any more", () => {
    const session = newServerSession("w-1", 0);
    const held = [{ attemptId: "old", phase: "running" as const, logEnd: 1 }];
    const [welcome] = onHello(session, { held, live: [], draining: false, runnerId: "r-1", nowMs: 0 });
    assert.ok(welcome?.type === "send" && welcome.message.type === "welcome");
    assert.deepEqual(welcome.message.attempts, [{ attemptId: "old", proceed: false, logAcked: 0 }]);
  });

  test("sends a live attempt that never started again, and misses one that did", () => {
    const fresh = onHello(newServerSession("w-1", 0), {
      held: [],
      live: [view()],
      draining: false,
      runnerId: "r-1",
      nowMs: 0,
    });
    assert.deepEqual(sent(fresh), ["welcome", "run_job"]);
    const started = view({ job: sampleJob({ state: "running", startedAtMs: 4 }) });
    const session = newServerSession("w-1", 0);
    const hello = { held: [], live: [started], draining: false, runnerId: "r-1", nowMs: 0 };
    assert.deepEqual(sent(onHello(session, hello)), ["welcome"]);
    assert.deepEqual(inputs(onWorkerMessage(session, silentBeat, 1)), ["lose"]);
  });

  test("loses nothing by a hello alone, which may be of a stream that the worker has left", () => {
    const started = view({ job: sampleJob({ state: "running", startedAtMs: 4 }) });
    const hello = { held: [], live: [started], draining: false, runnerId: "r-1", nowMs: 0 };
    assert.deepEqual(inputs(onHello(newServerSession("w-1", 0), hello)), []);
  });

  test("does not send an attempt again of which it has log, whatever the worker says", () => {
    const live = [view({ logDurable: 40 })];
    const session = newServerSession("w-1", 0);
    const actions = onHello(session, { held: [], live, draining: false, runnerId: "r-1", nowMs: 0 });
    assert.deepEqual(sent(actions), ["welcome"]);
    assert.deepEqual(inputs(onWorkerMessage(session, silentBeat, 1)), ["lose"]);
  });

  test("does not send an attempt again that an earlier runner was sent, and may have begun", () => {
    const live = [view()];
    const hello = { held: [], live, draining: false, nowMs: 0 };
    const session = newServerSession("w-1", 0);
    assert.deepEqual(sent(onHello(session, { ...hello, runnerId: "r-2" })), ["welcome"]);
    assert.deepEqual(inputs(onWorkerMessage(session, silentBeat, 1)), ["lose"]);
    const same = onHello(newServerSession("w-1", 0), { ...hello, runnerId: "r-1" });
    assert.deepEqual(sent(same), ["welcome", "run_job"]);
  });

  test("repeats a cancel to a worker that comes back", () => {
    const held = [{ attemptId: "a-1", phase: "running" as const, logEnd: 0 }];
    const cancelling = view({ job: sampleJob({ state: "cancelling", startedAtMs: 4 }) });
    assert.deepEqual(
      sent(
        onHello(newServerSession("w-1", 0), {
          held,
          live: [cancelling],
          draining: false,
          runnerId: "r-1",
          nowMs: 0,
        }),
      ),
      ["welcome", "control"],
    );
  });

  test("holds a result until the whole log is on disk, and applies it once", () => {
    const session = setup();
    assert.deepEqual(onWorkerMessage(session, result(100), 2), []);
    assert.deepEqual(inputs(onLogDurable(session, { attemptId: "a-1", logDurable: 60 })), []);
    assert.deepEqual(inputs(onLogDurable(session, { attemptId: "a-1", logDurable: 100 })), ["finish"]);
    assert.deepEqual(onWorkerMessage(session, result(100), 3), []);
    assert.deepEqual(sent(onEndStored(session, "a-1")), ["result_ack"]);
  });

  test("answers a stale attempt with a kill, and a stale result with its acknowledgement", () => {
    const session = newServerSession("w-1", 0);
    const batch: WorkerMessage & { type: "log_batch" } = {
      type: "log_batch",
      attemptId: "old",
      offset: 0,
      data: new Uint8Array(1),
    };
    assert.deepEqual(onWorkerMessage(session, batch, 0), [
      { type: "send", message: { type: "control", attemptId: "old", action: "kill" } },
    ]);
    const late = onWorkerMessage(session, { ...result(0), attemptId: "old" }, 0);
    assert.deepEqual(sent(late), ["result_ack"]);
  });

  test("tells the worker to kill an attempt that the store refused", () => {
    const session = setup();
    assert.deepEqual(sent(onGivenUp(session, "a-1")), ["control"]);
    assert.deepEqual(onGivenUp(session, "a-1"), []);
  });

  test("gives up a confirmed attempt that is missing in a heartbeat, and sends an unconfirmed one again", () => {
    const session = setup();
    onAssigned(session, view({ attemptId: "a-2", job: sampleJob({ id: "j-2", attemptId: "a-2" }) }));
    const beat = onWorkerMessage(session, silentBeat, 5);
    assert.deepEqual(inputs(beat), ["lose"]);
    assert.deepEqual(sent(beat), ["heartbeat_ack", "run_job"]);
    assert.deepEqual([...session.attempts.keys()], ["a-2"]);
  });

  test("sends an attempt once, though both the hello and the assignment bring it", () => {
    const session = setup();
    assert.deepEqual(onAssigned(session, view()), []);
    assert.equal(session.attempts.get("a-1")?.confirmed, true);
  });

  test("does not send an attempt again that was to be killed", () => {
    const session = newServerSession("w-1", 0);
    onAssigned(session, view());
    assert.deepEqual(sent(onGivenUp(session, "a-1")), ["control"]);
    const beat = onWorkerMessage(
      session,
      { type: "heartbeat", sequence: 1, usage: null, attempts: [], draining: false },
      1,
    );
    assert.deepEqual(sent(beat), ["heartbeat_ack"]);
  });

  test("does not give up an attempt whose end is on its way to the store", () => {
    const session = setup();
    onWorkerMessage(session, result(0), 2);
    const beat = onWorkerMessage(
      session,
      { type: "heartbeat", sequence: 1, usage: null, attempts: [], draining: false },
      3,
    );
    assert.deepEqual(inputs(beat), []);
  });

  test("stores a pause only when the worker has done it", () => {
    const session = setup();
    const wanted = onJobSeen(session, sampleJob({ state: "running", pauseWanted: true }));
    assert.deepEqual(controls(wanted), ["pause"]);
    const failed = { type: "control_ack", attemptId: "a-1", action: "pause", error: "no freezer" } as const;
    assert.deepEqual(inputs(onWorkerMessage(session, failed, 1)), ["refuse_pause"]);
    assert.deepEqual(inputs(onWorkerMessage(session, { ...failed, error: "" }, 2)), ["pause"]);
  });

  test("says what is wanted once, again with each heartbeat, and no more when it is done", () => {
    const session = setup();
    const running = sampleJob({ state: "running", pauseWanted: true });
    assert.deepEqual(controls(onJobSeen(session, running)), ["pause"]);
    assert.deepEqual(controls(onJobSeen(session, running)), []);
    assert.deepEqual(controls(onWorkerMessage(session, beat("running"), 1)), ["pause"]);
    onJobSeen(session, sampleJob({ state: "paused", pauseWanted: true }));
    assert.deepEqual(controls(onWorkerMessage(session, beat("paused"), 2)), []);
    assert.deepEqual(controls(onJobSeen(session, sampleJob({ state: "paused" }))), ["resume"]);
  });

  test("learns from a heartbeat of a pause, and of its end, whose acknowledgement was lost", () => {
    const session = setup();
    onJobSeen(session, sampleJob({ state: "running", pauseWanted: true }));
    assert.deepEqual(inputs(onWorkerMessage(session, beat("paused"), 1)), ["pause"]);
    onJobSeen(session, sampleJob({ state: "paused" }));
    assert.deepEqual(inputs(onWorkerMessage(session, beat("running"), 2)), ["resume"]);
  });

  test("takes back by a heartbeat that a job is unreachable, which overtook the worker's return", () => {
    const session = setup();
    onJobSeen(session, sampleJob({ state: "unreachable", startedAtMs: 5 }));
    assert.deepEqual(inputs(onWorkerMessage(session, beat("running"), 1)), ["start"]);
    assert.deepEqual(inputs(onWorkerMessage(session, beat("paused"), 2)), ["pause"]);
    assert.deepEqual(inputs(onWorkerMessage(session, beat("finished"), 3)), []);
  });

  test("tells a worker that comes back what it did not hear", () => {
    const wishes = [
      [sampleJob({ state: "cancelling" }), ["cancel"]],
      [sampleJob({ state: "running", pauseWanted: true }), ["pause"]],
      [sampleJob({ state: "paused" }), ["resume"]],
      [sampleJob({ state: "running" }), []],
    ] as const;
    for (const [job, expected] of wishes) {
      const session = newServerSession("w-1", 0);
      const phase = job.state === "paused" ? "paused" : "running";
      const held = [{ attemptId: "a-1", phase, logEnd: 0 } as const];
      const actions = onHello(session, {
        held,
        live: [view({ job })],
        draining: false,
        runnerId: "r-1",
        nowMs: 0,
      });
      assert.deepEqual(controls(actions), expected);
    }
  });

  test("takes no notice of a job that is older than the one it has seen", () => {
    const session = setup();
    const frozen = sampleJob({ state: "running", pauseWanted: true, version: 7 });
    assert.deepEqual(controls(onJobSeen(session, frozen)), ["pause"]);
    assert.deepEqual(onJobSeen(session, sampleJob({ state: "paused", version: 5 })), []);
    assert.deepEqual(controls(onWorkerMessage(session, beat("running"), 1)), ["pause"]);
  });

  test("has an attempt killed that the worker holds and the session does not know", () => {
    const session = newServerSession("w-1", 0);
    assert.deepEqual(controls(onWorkerMessage(session, beat("running"), 1)), ["kill"]);
  });

  test("takes a worker that says that it drains for draining", () => {
    const session = setup();
    onWorkerMessage(session, { ...beat("running"), draining: true }, 1);
    assert.equal(session.draining, true);
  });

  test("acknowledges log cumulatively and never backwards", () => {
    const session = setup();
    onLogDurable(session, { attemptId: "a-1", logDurable: 50 });
    assert.deepEqual(onLogDurable(session, { attemptId: "a-1", logDurable: 20 }), []);
    assert.equal(session.attempts.get("a-1")?.logDurable, 50);
  });
});
