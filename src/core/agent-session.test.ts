import assert from "node:assert/strict";
import { describe, test } from "node:test";
import {
  helloMessage,
  mayLeave,
  newAgentSession,
  onDrainWanted,
  nextLogRange,
  onHeartbeatDue,
  onLogSent,
  onLogUnreadable,
  onRunnerMessage,
  onServerMessage,
  onStreamClosed,
  type AgentAction,
  type AgentSession,
} from "./agent-session.ts";
import { MAX_LOG_BATCH_BYTES, type ServerMessage } from "./link.ts";
import type { RunnerToAgent } from "./runner-link.ts";
import { runnerHello, sampleDefinition, sampleResult, sampleWorker } from "./session-fixtures.ts";

const welcome: ServerMessage = {
  type: "welcome",
  heartbeatIntervalMs: 5_000,
  leaseMs: 900_000,
  attempts: [],
  logCreditBytes: 200_000,
};

function runJob(attemptId: string): ServerMessage {
  return {
    type: "run_job",
    attemptId,
    jobId: `job of ${attemptId}`,
    attemptNumber: 1,
    definition: sampleDefinition,
  };
}

/** A session that is online and runs these attempts. */
function setup(...attemptIds: string[]): AgentSession {
  const session = newAgentSession();
  onServerMessage(session, welcome, 0);
  for (const attemptId of attemptIds) onServerMessage(session, runJob(attemptId), 0);
  return session;
}

const toServer = (actions: AgentAction[]): string[] =>
  actions.flatMap((action) => (action.to === "server" ? [action.message.type] : []));
const toRunner = (actions: AgentAction[]): string[] =>
  actions.flatMap((action) => (action.to === "runner" ? [action.message.type] : []));

describe("the agent's half of the session", () => {
  test("hands a new attempt to the runner once, however often the server sends it", () => {
    const session = setup();
    assert.deepEqual(toRunner(onServerMessage(session, runJob("a"), 0)), ["run"]);
    assert.deepEqual(toRunner(onServerMessage(session, runJob("a"), 0)), []);
  });

  test("says everything again after a reconnect, from the acknowledged place of the log", () => {
    const session = setup("a");
    onRunnerMessage(session, { type: "started", attemptId: "a", startedAtMs: 5 }, 0);
    onRunnerMessage(session, { type: "log", attemptId: "a", logEnd: 900 }, 0);
    onLogSent(session, { attemptId: "a", logSent: 900 });
    onStreamClosed(session);
    const actions = onServerMessage(
      session,
      { ...welcome, attempts: [{ attemptId: "a", proceed: true, logAcked: 300 }] },
      0,
    );
    assert.deepEqual(toServer(actions), ["accepted", "started", "heartbeat"]);
    assert.deepEqual(nextLogRange(session, null), { attemptId: "a", offset: 300, maxBytes: 600 });
  });

  test("tells the runner with each welcome and each hello of it what is acknowledged", () => {
    const session = setup("a", "b");
    onStreamClosed(session);
    const attempts = [
      { attemptId: "a", proceed: true, logAcked: 700 },
      { attemptId: "b", proceed: true, logAcked: 0 },
    ];
    const acked = { to: "runner", message: { type: "log_acked", attemptId: "a", logAcked: 700 } };
    const isAck = (action: AgentAction): boolean =>
      action.to === "runner" && action.message.type === "log_acked";
    assert.deepEqual(onServerMessage(session, { ...welcome, attempts }, 0).filter(isAck), [acked]);
    onStreamClosed(session);
    const held = [...session.attempts.values()];
    assert.deepEqual(onRunnerMessage(session, runnerHello("r-1", held), 0).filter(isAck), [acked]);
  });

  test("sends a result again until it is acknowledged, and then forgets the attempt", () => {
    const session = setup("a");
    const first = onRunnerMessage(session, { type: "result", attemptId: "a", result: sampleResult() }, 0);
    assert.deepEqual(toServer(first), ["result"]);
    onStreamClosed(session);
    const again = onServerMessage(
      session,
      { ...welcome, attempts: [{ attemptId: "a", proceed: true, logAcked: 0 }] },
      0,
    );
    assert.ok(toServer(again).includes("result"));
    assert.deepEqual(toRunner(onServerMessage(session, { type: "result_ack", attemptId: "a" }, 0)), [
      "forget",
    ]);
    assert.equal(session.attempts.size, 0);
  });

  test("kills and forgets what the server calls stale", () => {
    const session = setup("a", "b");
    onStreamClosed(session);
    const actions = onServerMessage(
      session,
      {
        ...welcome,
        attempts: [
          { attemptId: "a", proceed: false, logAcked: 0 },
          { attemptId: "b", proceed: true, logAcked: 0 },
        ],
      },
      0,
    );
    assert.deepEqual(
      actions.filter((action) => action.to === "runner" && action.message.type === "control"),
      [{ to: "runner", message: { type: "control", attemptId: "a", action: "kill" } }],
    );
    assert.deepEqual([...session.attempts.keys()], ["b"]);
  });

  test("skips what a runner of a later version says that it does not know", () => {
    const session = setup("a");
    const unknown = { type: "of_a_later_version", attemptId: "a" } as unknown as RunnerToAgent;
    assert.deepEqual(onRunnerMessage(session, unknown, 0), []);
  });

  test("keeps quiet while offline", () => {
    const session = setup("a");
    onStreamClosed(session);
    onRunnerMessage(session, { type: "log", attemptId: "a", logEnd: 10 }, 0);
    assert.deepEqual(onRunnerMessage(session, { type: "started", attemptId: "a", startedAtMs: 1 }, 0), []);
    assert.deepEqual(onHeartbeatDue(session, 0), []);
    assert.equal(nextLogRange(session, null), null);
  });

  test("counts the lease from the moment the acknowledged heartbeat was sent", () => {
    const session = setup();
    onHeartbeatDue(session, 1_000);
    onHeartbeatDue(session, 6_000);
    // The first one was said right after the welcome.
    const actions = onServerMessage(session, { type: "heartbeat_ack", sequence: 2 }, 7_500);
    assert.deepEqual(actions, [{ to: "runner", message: { type: "lease_renewed", leaseFromMs: 1_000 } }]);
    assert.deepEqual(onServerMessage(session, { type: "heartbeat_ack", sequence: 2 }, 8_000), []);
  });

  test("stops sending log when the credit is used up, and goes on after an acknowledgement", () => {
    const session = setup("a");
    onRunnerMessage(session, { type: "log", attemptId: "a", logEnd: 1_000_000 }, 0);
    let sent = 0;
    for (let range = nextLogRange(session, null); range; range = nextLogRange(session, null)) {
      assert.ok(range.maxBytes <= MAX_LOG_BATCH_BYTES);
      assert.equal(range.offset, sent);
      sent += range.maxBytes;
      onLogSent(session, { attemptId: "a", logSent: sent });
    }
    assert.ok(sent >= welcome.logCreditBytes && sent < welcome.logCreditBytes + MAX_LOG_BATCH_BYTES);
    onServerMessage(session, { type: "log_ack", attemptId: "a", logAcked: sent }, 0);
    assert.equal(nextLogRange(session, null)?.offset, sent);
  });

  test("lets attempts take turns with their logs", () => {
    const session = setup("a", "b", "c");
    for (const attemptId of ["a", "b", "c"])
      onRunnerMessage(session, { type: "log", attemptId, logEnd: 10_000 }, 0);
    const turns: string[] = [];
    let last: string | null = null;
    for (let turn = 0; turn < 6; turn += 1) {
      last = nextLogRange(session, last)?.attemptId ?? null;
      turns.push(last ?? "none");
    }
    assert.deepEqual(turns, ["a", "b", "c", "a", "b", "c"]);
  });

  test("ends an attempt whose log cannot be read before it gives it up, and goes on with the others", () => {
    const session = setup("bad", "good");
    for (const attemptId of ["bad", "good"])
      onRunnerMessage(session, { type: "log", attemptId, logEnd: 10 }, 0);
    assert.deepEqual(toRunner(onLogUnreadable(session, "bad")), ["control"]);
    assert.equal(nextLogRange(session, "good")?.attemptId, "good");
    assert.ok(session.attempts.has("bad"), "its processes may still run");
    const end = onRunnerMessage(session, { type: "result", attemptId: "bad", result: sampleResult() }, 0);
    assert.deepEqual([toServer(end), toRunner(end)], [[], ["forget"]]);
    assert.deepEqual([...session.attempts.keys()], ["good"]);
    assert.deepEqual(onLogUnreadable(session, "bad"), []);
  });

  test("ends an attempt whose log cannot be read once more when the runner says what it holds", () => {
    const session = setup("bad");
    onRunnerMessage(session, { type: "log", attemptId: "bad", logEnd: 10 }, 0);
    onLogUnreadable(session, "bad");
    assert.equal(nextLogRange(session, null), null);
    onRunnerMessage(session, runnerHello("r-1", [...session.attempts.values()]), 0);
    assert.equal(nextLogRange(session, null)?.attemptId, "bad");
    assert.deepEqual(toRunner(onLogUnreadable(session, "bad")), ["control"]);
  });

  test("gives up an attempt at once that has ended and whose log cannot be read", () => {
    const session = setup("bad");
    onRunnerMessage(session, { type: "result", attemptId: "bad", result: sampleResult() }, 0);
    assert.deepEqual(toRunner(onLogUnreadable(session, "bad")), ["forget"]);
    assert.equal(session.attempts.size, 0);
  });

  test("answers a control for an attempt that it does not hold", () => {
    const session = setup();
    const actions = onServerMessage(session, { type: "control", attemptId: "x", action: "cancel" }, 0);
    assert.equal(actions.length, 1);
    assert.match(JSON.stringify(actions[0]), /does not hold/);
  });

  test("takes the runner's list for the truth", () => {
    const session = setup("gone", "kept");
    onRunnerMessage(session, { type: "log", attemptId: "kept", logEnd: 50 }, 0);
    onLogSent(session, { attemptId: "kept", logSent: 50 });
    const held = {
      attemptId: "kept",
      phase: "running" as const,
      startedAtMs: 3,
      progress: null,
      result: null,
      logEnd: 70,
    };
    const actions = onRunnerMessage(session, runnerHello("r-1", [held]), 0);
    assert.deepEqual(toServer(actions), ["accepted", "started"]);
    assert.deepEqual(actions[0], { to: "runner", message: { type: "forget", attemptId: "gone" } });
    assert.deepEqual([...session.attempts.keys()], ["kept"]);
    assert.equal(nextLogRange(session, null)?.offset, 50);
  });

  test("does not begin again what died with its runner, and says that it came", () => {
    const session = setup("a-1");
    onRunnerMessage(session, runnerHello("r-2", []), 0);
    const actions = onServerMessage(session, runJob("a-1"), 5);
    assert.deepEqual(actions, [{ to: "server", message: { type: "accepted", attemptId: "a-1" } }]);
    assert.equal(session.attempts.size, 0);
  });

  test("may leave only when it drains and holds nothing", () => {
    const session = setup("a");
    assert.equal(mayLeave(session), false);
    onServerMessage(session, { type: "drain", reason: "" }, 0);
    assert.equal(mayLeave(session), false);
    onServerMessage(session, { type: "result_ack", attemptId: "a" }, 0);
    assert.equal(mayLeave(session), true);
  });

  test("renews the lease from when the hello was sent, however late its welcome comes", () => {
    const session = newAgentSession();
    helloMessage(session, sampleWorker, 1_000);
    const [renewal, ...rest] = onServerMessage(session, welcome, 19_000);
    assert.deepEqual(renewal, { to: "runner", message: { type: "lease_renewed", leaseFromMs: 1_000 } });
    assert.deepEqual(toServer(rest), ["heartbeat"]);
    onStreamClosed(session);
    const unasked = onServerMessage(session, welcome, 20_000);
    assert.deepEqual(toRunner(unasked), [], "a welcome that no hello asked for renews nothing");
  });

  test("says at once that it drains, and again with each hello and heartbeat", () => {
    const session = setup("a");
    const [said] = onDrainWanted(session, 5);
    assert.ok(said?.to === "server" && said.message.type === "heartbeat" && said.message.draining);
    assert.deepEqual(onDrainWanted(session, 6), []);
    const hello = helloMessage(session, sampleWorker, 7);
    assert.ok(hello.type === "hello" && hello.draining);
  });

  test("tells the runner how old the lease of an order is, which may have lain in the stream for long", () => {
    const session = newAgentSession();
    helloMessage(session, sampleWorker, 1_000);
    onServerMessage(session, welcome, 1_200);
    const [run] = onServerMessage(session, runJob("a"), 61_000);
    assert.ok(run?.to === "runner" && run.message.type === "run");
    assert.equal(run.message.leaseFromMs, 1_000);
  });

  test("lists what it holds in hello and heartbeat", () => {
    const session = setup("a");
    onRunnerMessage(session, { type: "log", attemptId: "a", logEnd: 7 }, 0);
    const held = [{ attemptId: "a", phase: "accepted", logEnd: 7 }];
    assert.deepEqual(helloMessage(session, sampleWorker, 0), {
      type: "hello",
      worker: sampleWorker,
      attempts: held,
      draining: false,
      runnerId: "",
    });
    const [beat] = onHeartbeatDue(session, 0);
    assert.ok(beat?.to === "server" && beat.message.type === "heartbeat");
    assert.deepEqual(beat.message.attempts, held);
  });
});
