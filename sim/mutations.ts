/**
 * Bugs to plant in the compiled program, one at a time: proof that the rules can fail. Each text
 * stands exactly once in its file of src, as the compiler writes it.
 */

export interface Mutation {
  name: string;
  /** Below src. */
  file: string;
  find: string;
  replace: string;
}

export const MUTATIONS: readonly Mutation[] = [
  {
    name: "what comes from a stale attempt is taken",
    file: "core/job-change.ts",
    find: `if ("attemptId" in input && input.type !== "assign" && isStale(job, input.attemptId)) {`,
    replace: "if (false) {",
  },
  {
    name: "an attempt that is given up stays live in its row",
    file: "core/job-end.ts",
    find: `return accept(next, attempt, { type: "requeued", nowMs: context`,
    replace: `return accept(next, null, { type: "requeued", nowMs: context`,
  },
  {
    name: "a retry does not look at its budget",
    file: "core/retry.ts",
    find: "if (done >= budget)",
    replace: "if (false)",
  },
  {
    name: "the worker keeps its lease longer than the server",
    file: "core/lease.ts",
    find: "renewedAtMs + Math.max(0, leaseMs - LEASE_MARGIN_MS)",
    replace: "renewedAtMs + leaseMs + LEASE_MARGIN_MS",
  },
  {
    name: "the server gives up before the lease is over",
    file: "core/lease.ts",
    find: "return heardAtMs + leaseMs;",
    replace: "return heardAtMs + leaseMs / 2;",
  },
  {
    name: "a worker that comes back without an attempt is sent it again, though it had started",
    file: "core/server-session.ts",
    find: "const isKnown = job.startedAtMs !== null || view.logDurable > 0 || view.runnerId !== runnerId;",
    replace: "const isKnown = false;",
  },
  {
    name: "a new runner is sent again what the one before it had begun",
    file: "core/server-session.ts",
    find: " || view.runnerId !== runnerId;",
    replace: ";",
  },
  {
    name: "a result counts without its whole log",
    file: "core/server-session.ts",
    find: "|| attempt.logDurable < result.logEnd",
    replace: "",
  },
  {
    name: "an attempt that a heartbeat does not list is not missed",
    file: "core/server-session.ts",
    find: "if (attempt.isEnding || holding)",
    replace: "if (true)",
  },
  {
    name: "a wish is not repeated with the heartbeats",
    file: "core/server-session.ts",
    find: "actions.push(...repeatWanted(attempt), ...takePhase(attempt, holding, session.heardAtMs));",
    replace: "actions.push(...takePhase(attempt, holding, session.heardAtMs));",
  },
  {
    name: "log is acknowledged before it is on disk",
    file: "server/workers/log-intake.ts",
    find: "const appended = await logs.append(attemptId, offset, data);",
    replace:
      "onDurable(attemptId, offset + data.byteLength); const appended = await logs.append(attemptId, offset, data);",
  },
  {
    name: "log is not sent again from where the server has it",
    file: "core/agent-session.ts",
    find: "attempt.logSent = verdict.logAcked;",
    replace: "",
  },
  {
    name: "a result is said once only",
    file: "core/agent-session.ts",
    find: `if (attempt.result)\n        messages.push(`,
    replace: `if (false)\n        messages.push(`,
  },
  {
    name: "the lease is renewed by heartbeats that nobody has answered",
    file: "core/agent-session.ts",
    find: `draining: session.draining,\n    };\n    return [{ to: "server", message }];`,
    replace: `draining: session.draining,\n    };\n    return [{ to: "server", message }, { to: "runner", message: { type: "lease_renewed", leaseFromMs: nowMs } }];`,
  },
  {
    name: "the lease is never renewed on the worker",
    file: "core/agent-session.ts",
    find: `return [{ to: "runner", message: { type: "lease_renewed", leaseFromMs: session.renewedAtMs } }];`,
    replace: "return [];",
  },
  {
    name: "an old order gets a new lease",
    file: "core/agent-session.ts",
    find: "const leaseFromMs = session.renewedAtMs ?? nowMs;",
    replace: "const leaseFromMs = nowMs;",
  },
  {
    name: "what the runner does not hold any more is still believed in",
    file: "core/agent-session.ts",
    find: "session.attempts = new Map();\n    for (const attempt of hello.attempts)",
    replace: "session.attempts = new Map(known);\n    for (const attempt of hello.attempts)",
  },
  {
    name: "an order that is repeated begins again what died with its runner",
    file: "core/agent-session.ts",
    find: "if (session.gone.has(message.attemptId))",
    replace: "if (false)",
  },
  {
    name: "a silent server is not left",
    file: "agent/server-link.ts",
    find: `stream.abort(new Error("the server is silent"));`,
    replace: "return;",
  },
  {
    name: "a job whose worker is away is held to its time-out",
    file: "server/loops/deadlines.ts",
    find: "return outOfTime(live, nowMs, deps);",
    replace: `return { type: "cancel", cause: "timeout", reason: "planted" };`,
  },
  {
    name: "a job that nobody started has no deadline",
    file: "server/loops/deadlines.ts",
    find: "return unconfirmed(live, nowMs, deps);",
    replace: "return null;",
  },
  {
    name: "nobody asks the provider whether a silent worker is there",
    file: "server/pools/provider-upkeep.ts",
    find: `(await provider.inspect(workerId)) === "gone"`,
    replace: "false",
  },
  {
    name: "the stream of a worker that is gone may still be given jobs",
    file: "server/workers/worker-connections.ts",
    find: "this.get(workerId)?.close();\n        await this.assigned(workerId);",
    replace: "",
  },
  {
    name: "a worker for one job is taken for one for many",
    file: "server/pools/worker-maker.ts",
    find: "takesOneJob: ephemeral,",
    replace: "takesOneJob: false,",
  },
  {
    name: "what a lost worker held is not given up",
    file: "server/pools/owned-workers.ts",
    find: "for (const { attempt, job } of await store.listLiveAttempts(workerId)) {",
    replace: "for (const { attempt, job } of []) {",
  },
  {
    name: "deadlines follow the system clock",
    file: "base/steady-clock.ts",
    find: "return Math.round(startMs + sleptMs + passedMs);",
    replace: "return system.nowMs();",
  },
  {
    name: "the time-out goes on during a pause",
    file: "runner/pausable-timer.ts",
    find: "this.#callOff();\n        this.#callOff = null;\n        this.#remainingMs",
    replace: "return;\n        this.#remainingMs",
  },
  {
    name: "jobs at work are not counted for their concurrency key",
    file: "core/planner-board.ts",
    find: "for (const [key, running] of input.concurrency)",
    replace: "for (const [key, running] of [])",
  },
  {
    name: "any job makes room",
    file: "core/preemption.ts",
    find: "return placed.preemptible && placed.priority < job.priority;",
    replace: "return placed.priority < job.priority;",
  },
];
