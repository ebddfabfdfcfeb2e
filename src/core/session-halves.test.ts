import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import {
  helloMessage,
  newAgentSession,
  nextLogRange,
  onLogSent,
  onRunnerMessage,
  onServerMessage,
  onStreamClosed,
  type AgentAction,
} from "./agent-session.ts";
import { changeJob } from "./job-change.ts";
import type { Attempt, Job } from "./job.ts";
import type { ServerMessage, WorkerMessage } from "./link.ts";
import {
  newServerSession,
  onAssigned,
  onEndStored,
  onHello,
  onLogDurable,
  onGivenUp,
  onWorkerMessage,
  type ServerAction,
  type ServerSession,
} from "./server-session.ts";
import { runnerHello, sampleJob, sampleResult, sampleWorker } from "./session-fixtures.ts";

const LOG_BYTES = 300_000;

/**
 * Both halves with one job between them, over a stream that breaks where the test says. The runner
 * runs the job to its end by itself; the store is a row and a log.
 */
class Pair {
  readonly agent = newAgentSession();
  job: Job = sampleJob();
  logLength = 0;
  starts = 0;
  finishes = 0;
  #server: ServerSession | null = null;
  #toServer: WorkerMessage[] = [];
  #toAgent: ServerMessage[] = [];
  #isForgotten = false;
  #phase: "none" | "accepted" | "running" | "finished" = "none";
  #logEnd = 0;

  connect(): void {
    this.disconnect();
    this.#server = newServerSession("w-1", 0);
    this.#toServer.push(helloMessage(this.agent, sampleWorker, 0));
  }

  disconnect(): void {
    onStreamClosed(this.agent);
    this.#server = null;
    this.#toServer = [];
    this.#toAgent = [];
  }

  /** The agent dies, and its successor learns everything from the runner. */
  restartAgent(): void {
    this.disconnect();
    Object.assign(this.agent, newAgentSession());
    if (this.#phase === "none" || this.#isForgotten) return;
    const isFinished = this.#phase === "finished";
    const held = {
      attemptId: "a-1",
      phase: isFinished ? ("finished" as const) : ("running" as const),
      startedAtMs: 5,
      progress: null,
      result: isFinished ? sampleResult({ logEnd: LOG_BYTES }) : null,
      logEnd: this.#logEnd,
    };
    onRunnerMessage(this.agent, runnerHello("", [held]), 0);
  }

  deliverToServer(): void {
    const message = this.#toServer.shift() ?? this.#nextLog();
    if (!message || !this.#server) return;
    if (message.type === "hello") {
      const isLive = this.job.finishedAtMs === null;
      const live = isLive
        ? [{ attemptId: "a-1", attemptNumber: 1, job: this.job, logDurable: this.logLength, runnerId: "" }]
        : [];
      this.#performServer(
        onHello(this.#server, { held: message.attempts, live, draining: false, runnerId: "", nowMs: 0 }),
      );
    } else {
      this.#performServer(onWorkerMessage(this.#server, message, 0));
    }
  }

  deliverToAgent(): void {
    const message = this.#toAgent.shift();
    if (message) this.#performAgent(onServerMessage(this.agent, message, 0));
  }

  /** The runner takes its next step. */
  work(): void {
    if (this.#phase === "accepted") {
      this.#phase = "running";
      this.#performAgent(onRunnerMessage(this.agent, { type: "accepted", attemptId: "a-1" }, 0));
      this.#performAgent(
        onRunnerMessage(this.agent, { type: "started", attemptId: "a-1", startedAtMs: 5 }, 0),
      );
    } else if (this.#phase === "running" && this.#logEnd < LOG_BYTES) {
      this.#logEnd += 50_000;
      onRunnerMessage(this.agent, { type: "log", attemptId: "a-1", logEnd: this.#logEnd }, 0);
    } else if (this.#phase === "running") {
      this.#phase = "finished";
      this.#performAgent(
        onRunnerMessage(
          this.agent,
          { type: "result", attemptId: "a-1", result: sampleResult({ logEnd: LOG_BYTES }) },
          0,
        ),
      );
    }
  }

  get isSettled(): boolean {
    return this.job.state === "succeeded" && this.#isForgotten;
  }

  #nextLog(): WorkerMessage | null {
    const range = nextLogRange(this.agent, null);
    if (!range) return null;
    onLogSent(this.agent, { attemptId: range.attemptId, logSent: range.offset + range.maxBytes });
    return {
      type: "log_batch",
      attemptId: range.attemptId,
      offset: range.offset,
      data: new Uint8Array(range.maxBytes),
    };
  }

  #performAgent(actions: AgentAction[]): void {
    for (const action of actions) {
      if (action.to === "server") this.#toServer.push(action.message);
      if (action.to !== "runner") continue;
      if (action.message.type === "run" && this.#phase === "none") this.#phase = "accepted";
      if (action.message.type === "control") assert.fail("the only attempt was called stale");
      if (action.message.type === "forget") {
        assert.equal(this.job.state, "succeeded", "forgotten before its end was stored");
        this.#isForgotten = true;
      }
    }
  }

  #performServer(actions: ServerAction[]): void {
    const server = this.#server;
    if (!server) return;
    for (const action of actions) {
      if (action.type === "send") this.#toAgent.push(action.message);
      if (action.type === "append_log") {
        assert.ok(action.offset <= this.logLength, "a gap in the log");
        this.logLength = Math.max(this.logLength, action.offset + action.data.byteLength);
        this.#performServer(onLogDurable(server, { attemptId: "a-1", logDurable: this.logLength }));
      }
      if (action.type !== "apply") continue;
      assert.notEqual(action.input.type, "lose", "a healthy attempt was given up");
      const change = changeJob(this.job, action.input, {
        nowMs: 0,
        jitter: 0,
        attempt: null as Attempt | null,
      });
      if (change.ok) {
        this.job = change.job;
        if (action.input.type === "start" && change.event.type === "started") this.starts += 1;
        if (action.input.type === "finish") this.finishes += 1;
      }
      if (action.input.type === "finish") this.#performServer(onEndStored(server, "a-1"));
      else if (!change.ok && change.refusal !== "not_possible") this.#performServer(onGivenUp(server, "a-1"));
    }
  }

  assign(): void {
    this.connect();
    this.deliverToServer();
    this.deliverToAgent();
    if (this.#server) {
      this.#performServer(
        onAssigned(this.#server, {
          attemptId: "a-1",
          attemptNumber: 1,
          job: this.job,
          logDurable: 0,
          runnerId: "",
        }),
      );
    }
  }
}

const step = fc.oneof(
  { weight: 6, arbitrary: fc.constant("deliverToServer" as const) },
  { weight: 6, arbitrary: fc.constant("deliverToAgent" as const) },
  { weight: 6, arbitrary: fc.constant("work" as const) },
  { weight: 1, arbitrary: fc.constant("connect" as const) },
  { weight: 1, arbitrary: fc.constant("disconnect" as const) },
  { weight: 1, arbitrary: fc.constant("restartAgent" as const) },
);

describe("both halves of the session together", () => {
  test("wherever the stream breaks, the job ends once with its whole log once it holds", () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
        const pair = new Pair();
        pair.assign();
        for (const name of steps) pair[name]();
        pair.connect();
        for (let round = 0; round < 200 && !pair.isSettled; round += 1) {
          pair.work();
          pair.deliverToServer();
          pair.deliverToAgent();
        }
        assert.ok(pair.isSettled, `stuck in ${pair.job.state}`);
        assert.equal(pair.logLength, LOG_BYTES);
        assert.equal(pair.finishes, 1);
        assert.ok(pair.starts <= 1);
      }),
      { numRuns: 500 },
    );
  });
});
