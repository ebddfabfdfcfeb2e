/**
 * Watches the cluster from outside, with what no part of it can know: every process, every byte and
 * every change, at the moment when it happens. The first violation ends the run.
 */

import type { JobInput } from "../src/core/job-input.ts";
import { isFinal, isInfrastructureCause, type Cause, type Job } from "../src/core/job.ts";
import { newJob } from "../src/core/new-job.ts";
import type {
  AppliedInput,
  InsertedJob,
  JobInputRecord,
  NewJob,
  WorkerChange,
} from "../src/storage/store.ts";
import { isLogBytes } from "./log-pattern.ts";
import { RULES, type Rule, type Violation } from "./rules.ts";
import type { SimTree, TreeExit } from "./sim-tree.ts";
import type { Trace } from "./trace.ts";
import type { VirtualTime } from "./virtual-time.ts";

/**
 * A machine that wakes up runs on for a moment before its runner, or the next one, looks at the
 * clock: no process can be stopped in its sleep.
 */
export const WAKE_SLACK_MS = 5_000;
/** The worker measures the time-out on its own clock, from a moment later than the start. */
const TIMEOUT_TOLERANCE_MS = 5;

interface AttemptFacts {
  tree: SimTree | null;
  exit: TreeExit | null;
  endedAtMs: number | null;
  runs: number;
  /** Bytes that the spool ever held, by the run that wrote them. */
  spool: { run: number; end: number } | null;
  /** The run whose bytes the server holds. */
  logRun: number | null;
  frozenSinceMs: number | null;
  frozenMs: number;
}

interface JobFacts {
  job: Job;
  userRetries: number;
  infrastructureRetries: number;
}

export class Checker {
  violation: Violation | null = null;
  readonly jobs = new Map<string, JobFacts>();
  readonly idempotency = new Map<string, string>();
  readonly trace: Trace;
  /** Set once there is a disk: it knows what is durable. */
  durableLog: (attemptId: string) => number = () => 0;
  /** Whether anything may go wrong in this run. */
  hasFaults = true;
  /** Whether a worker may be at something for long that cannot be called off, or cannot be told to. */
  mayResist = false;
  /** Whether each worker is for one job. */
  takesOneJob = false;
  readonly #time: VirtualTime;
  readonly #attempts = new Map<string, AttemptFacts>();
  readonly #trees: SimTree[] = [];
  #lastPid = 1_000;

  constructor(time: VirtualTime, trace: Trace) {
    this.#time = time;
    this.trace = trace;
  }

  fail(rule: Rule, details: string): void {
    if (this.violation) return;
    this.violation = { rule, details, atMs: this.#time.nowMs };
    this.trace.add(`VIOLATION ${RULES[rule]}: ${details}`);
  }

  nextPid(): number {
    this.#lastPid += 1;
    return this.#lastPid;
  }

  get livingTrees(): SimTree[] {
    return this.#trees.filter((tree) => tree.isAlive);
  }

  treeOf(attemptId: string): SimTree | null {
    return this.#attempts.get(attemptId)?.tree ?? null;
  }

  // ── Jobs ───────────────────────────────────────────────────────────────────────────────────────

  jobInserted(record: NewJob, inserted: InsertedJob | undefined): void {
    if (!inserted) return;
    const { idempotencyKey } = record;
    if (idempotencyKey !== null) {
      const known = this.idempotency.get(idempotencyKey);
      if (known !== undefined && known !== inserted.jobId) this.fail("submitted_twice", idempotencyKey);
      this.idempotency.set(idempotencyKey, inserted.jobId);
    }
    if (!inserted.created) return;
    const job = newJob(record);
    this.jobs.set(job.id, { job, userRetries: 0, infrastructureRetries: 0 });
    this.trace.add(`${this.#jobName(job.id)} queued`);
  }

  inputApplied(record: JobInputRecord, applied: AppliedInput): void {
    const facts = this.jobs.get(record.jobId);
    if (!facts || applied.job === null) return;
    const before = facts.job;
    const { input } = record;
    const name = `${this.#jobName(before.id)} ${describe(input)}`;
    if (!applied.ok) {
      this.trace.add(`${name} refused: ${applied.refusal} (${applied.job.state})`);
      return;
    }
    const after = applied.job;
    facts.job = after;
    this.trace.add(
      `${name}: ${before.state} → ${after.state}${after.workerId ? ` on ${this.trace.name(after.workerId, "w")}` : ""}`,
    );
    if (isFinal(before.state) && input.type !== "retry") {
      this.fail("final_changed", `${name}: ${before.state} → ${after.state}`);
    }
    const isOfAttempt = "attemptId" in input && input.type !== "assign";
    if (isOfAttempt && (input.attemptId !== before.attemptId || before.state === "pending")) {
      this.fail("stale_taken", name);
    }
    if (after.version !== before.version + 1) this.fail("version_skipped", name);
    if (input.type === "assign") this.#checkKey(after);
    if (input.type === "cancel" && input.cause === "preempted") this.#checkRoom(before, name);
    if (input.type === "retry") Object.assign(facts, { userRetries: 0, infrastructureRetries: 0 });
    if (input.type === "finish" || input.type === "lose") this.#attemptEnded(facts, { input, before });
  }

  #checkKey({ id, definition: { concurrency } }: Job): void {
    if (concurrency === null) return;
    let atWork = 0;
    for (const { job } of this.jobs.values()) {
      const isAtWork = job.state !== "pending" && !isFinal(job.state);
      if (isAtWork && job.definition.concurrency?.key === concurrency.key) atWork += 1;
    }
    if (atWork > concurrency.limit)
      this.fail("key_exceeded", `${this.#jobName(id)}: ${atWork} of ${concurrency.limit}`);
  }

  #checkRoom({ definition }: Job, name: string): void {
    const isFor = [...this.jobs.values()].some(({ job }) => job.definition.priority > definition.priority);
    if (!definition.preemptible || !isFor) this.fail("room_for_nothing", name);
  }

  #attemptEnded(
    facts: JobFacts,
    end: { input: Extract<JobInput, { type: "finish" | "lose" }>; before: Job },
  ): void {
    const { input, before } = end;
    const { job } = facts;
    const tree = this.treeOf(input.attemptId);
    const name = `${this.#jobName(job.id)} attempt ${before.attemptCount}`;
    const cause: Cause | null = input.type === "finish" ? input.result.cause : input.cause;
    if (tree?.isAlive && cause !== "worker_lost")
      this.fail("ended_alive", `${name}: ${cause ?? "succeeded"}`);
    if (tree && job.state === "pending" && this.#runsOn(tree))
      this.fail("given_up_alive", `${name} on ${tree.machineName}`);
    if (cause === "worker_lost" && !this.hasFaults) this.fail("lost_for_nothing", name);
    if (input.type === "finish") this.#checkLog(input.attemptId, input.result.logEnd, name);
    const exit = this.#attempts.get(input.attemptId)?.exit;
    if (job.state === "succeeded" && exit?.exitCode !== 0) this.fail("false_success", name);
    if (job.state === "timed_out") this.#checkTimeout(input.attemptId, job, name);
    const madeRoom = before.cancelCause === "preempted" && cause === "cancelled";
    if (job.state === "pending" && !madeRoom) this.#countRetry(facts, cause, name);
  }

  #checkLog(attemptId: string, logEnd: number, name: string): void {
    const durable = this.durableLog(attemptId);
    const written = this.#attempts.get(attemptId)?.spool?.end ?? 0;
    if (durable < logEnd || logEnd !== written) {
      this.fail("log_incomplete", `${name}: ${durable} durable, ${logEnd} reported, ${written} written`);
    }
  }

  #checkTimeout(attemptId: string, { definition }: Job, name: string): void {
    const facts = this.#attempts.get(attemptId);
    if (!facts?.tree) {
      this.fail("early_timeout", `${name}: it never ran`);
      return;
    }
    const nowMs = facts.endedAtMs ?? this.#time.nowMs;
    const frozenMs = facts.frozenMs + (facts.frozenSinceMs === null ? 0 : nowMs - facts.frozenSinceMs);
    const ranMs = nowMs - facts.tree.startedAtMs - frozenMs;
    // A runner says nothing of any attempt while a process of an earlier one cannot be ended.
    const isMute = this.#trees.some(
      (tree) => tree.machineName === facts.tree?.machineName && tree.isUnkillable,
    );
    if (ranMs < definition.timeoutMs - TIMEOUT_TOLERANCE_MS && !isMute) {
      this.fail("early_timeout", `${name}: ran ${Math.round(ranMs)} of ${definition.timeoutMs} ms`);
    }
  }

  #countRetry(facts: JobFacts, cause: Cause | null, name: string): void {
    const { retry } = facts.job.definition;
    if (cause !== null && isInfrastructureCause(cause)) facts.infrastructureRetries += 1;
    else if (cause === "cancelled") facts.infrastructureRetries += 1;
    else facts.userRetries += 1;
    const isOver =
      facts.userRetries > retry.maxRetries || facts.infrastructureRetries > retry.maxInfrastructureRetries;
    if (isOver)
      this.fail("over_budget", `${name}: ${facts.userRetries} and ${facts.infrastructureRetries} retries`);
  }

  workerChanged(change: WorkerChange): void {
    if (change.state === "broken" && !this.mayResist && !this.#hasUnkillable(change.workerId)) {
      this.fail("broken_for_nothing", this.trace.name(change.workerId, "w"));
    }
    if (change.state)
      this.trace.add(`${this.trace.name(change.workerId, "w")} is ${change.state}: ${change.message ?? ""}`);
  }

  #hasUnkillable(workerId: string): boolean {
    const name = this.trace.name(workerId, "w");
    return this.#trees.some((tree) => tree.machineName === name && tree.isUnkillable);
  }

  // ── Processes ──────────────────────────────────────────────────────────────────────────────────

  /** Returns how often the command of this attempt has been started, this time included. */
  treeStarted(tree: SimTree): number {
    const facts = this.#facts(tree.attemptId);
    facts.tree = tree;
    facts.runs += 1;
    facts.exit = null;
    const { attemptId, machineName } = tree;
    const isUsed = this.#trees.some((old) => old.machineName === machineName && old.attemptId !== attemptId);
    if (this.takesOneJob && isUsed) this.fail("second_job", machineName);
    this.#trees.push(tree);
    this.trace.add(`${this.#jobName(tree.jobId)} runs on ${tree.machineName}`);
    if (facts.runs > 1) this.fail("started_twice", `${this.#jobName(tree.jobId)} on ${tree.machineName}`);
    this.#checkAlone(tree);
    return facts.runs;
  }

  /** The command itself has ended; what it left behind may still run. */
  treeExited(tree: SimTree, exit: TreeExit): void {
    const facts = this.#facts(tree.attemptId);
    if (facts.tree === tree) facts.exit = exit;
    const how = exit.signal ?? `exit ${exit.exitCode}`;
    this.trace.add(`${this.#jobName(tree.jobId)} ended on ${tree.machineName}: ${how}`);
  }

  treeEnded(tree: SimTree): void {
    this.#facts(tree.attemptId).endedAtMs = this.#time.nowMs;
    this.trace.add(`${this.#jobName(tree.jobId)} has left no process on ${tree.machineName}`);
  }

  treeFrozen(tree: SimTree, isFrozen: boolean): void {
    const facts = this.#facts(tree.attemptId);
    if (isFrozen) facts.frozenSinceMs = this.#time.nowMs;
    else if (facts.frozenSinceMs !== null) {
      facts.frozenMs += this.#time.nowMs - facts.frozenSinceMs;
      facts.frozenSinceMs = null;
    }
    this.trace.add(`${this.#jobName(tree.jobId)} ${isFrozen ? "frozen" : "thawed"} on ${tree.machineName}`);
  }

  /** Looks at what no single event shows. */
  checkProcesses(): void {
    for (const tree of this.#trees) if (tree.isAlive) this.#checkAlone(tree);
  }

  #checkAlone(tree: SimTree): void {
    if (!this.#runsOn(tree)) return;
    for (const other of this.#trees) {
      if (other === tree || other.jobId !== tree.jobId || !this.#runsOn(other)) continue;
      this.fail("two_live", `${this.#jobName(tree.jobId)} on ${tree.machineName} and ${other.machineName}`);
    }
  }

  /** Takes steps, and something could have been done about it. */
  #runsOn(tree: SimTree): boolean {
    const isWaking = this.#time.nowMs - tree.resumedAtMs < WAKE_SLACK_MS;
    return tree.isActive && !tree.isUnkillable && !isWaking;
  }

  // ── Logs ───────────────────────────────────────────────────────────────────────────────────────

  spoolGrew(attemptId: string, spool: { run: number; end: number }): void {
    this.#facts(attemptId).spool = spool;
  }

  spoolLetGo(attemptId: string, acked: number): void {
    const durable = this.durableLog(attemptId);
    if (durable < acked) this.fail("log_lost", `${acked} bytes let go, ${durable} durable`);
  }

  /** Harmless once the attempt is over: then the worker is about to hear that it may forget it. */
  spoolMissed(attemptId: string, offset: number): void {
    const job = this.jobs.get(this.treeOf(attemptId)?.jobId ?? "")?.job;
    const isLive = job?.attemptId === attemptId && !isFinal(job.state) && job.state !== "pending";
    if (isLive) this.fail("log_needed", `attempt ${this.#facts(attemptId).runs} at byte ${offset}`);
  }

  logArrived(attemptId: string, offset: number, data: Uint8Array): void {
    const facts = this.#facts(attemptId);
    // Nothing on the disk: what an earlier run wrote is gone, and a later one may begin anew.
    if (this.durableLog(attemptId) === 0) facts.logRun = facts.runs;
    const run = (facts.logRun ??= facts.runs);
    const isRight = facts.spool !== null && isLogBytes(data, { attemptId, run, offset });
    if (!isRight) this.fail("log_changed", `${data.byteLength} bytes at ${offset}`);
  }

  #facts(attemptId: string): AttemptFacts {
    const known = this.#attempts.get(attemptId);
    if (known) return known;
    const facts: AttemptFacts = {
      tree: null,
      exit: null,
      endedAtMs: null,
      runs: 0,
      spool: null,
      logRun: null,
      frozenSinceMs: null,
      frozenMs: 0,
    };
    this.#attempts.set(attemptId, facts);
    return facts;
  }

  #jobName(jobId: string): string {
    return this.trace.name(jobId, "j");
  }
}

function describe(input: JobInput): string {
  switch (input.type) {
    case "finish":
      return `finish(${input.result.state}${input.result.cause ? `, ${input.result.cause}` : ""})`;
    case "lose":
      return `lose(${input.cause}: ${input.message})`;
    case "cancel":
      return `cancel(${input.reason})`;
    default:
      return input.type;
  }
}
