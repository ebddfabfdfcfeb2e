/**
 * The people of the cluster: they submit, cancel, pause, resume, retry and drain through the real
 * API, over a network that may lose the answer, and try a submission again until it is answered.
 */

import { create } from "@bufbuild/protobuf";
import type { HandlerContext } from "@connectrpc/connect";
import { isFinal } from "../src/core/job.ts";
import { definitionToWire } from "../src/protocol/convert-definition.ts";
import {
  CancelJobRequestSchema,
  PauseJobRequestSchema,
  QueueJobRequestSchema,
  ResumeJobRequestSchema,
  RetryJobRequestSchema,
} from "../src/protocol/gen/hodei/v1/jobs_pb.ts";
import { DrainWorkerRequestSchema } from "../src/protocol/gen/hodei/v1/workers_pb.ts";
import type { Checker } from "./checker.ts";
import type { PlannedSubmission, UserAct } from "./scenario.ts";
import { SimHost, SimProcess } from "./sim-process.ts";
import type { SimRandom } from "./sim-random.ts";
import type { SimServer } from "./sim-server.ts";
import type { VirtualTime } from "./virtual-time.ts";

type Apis = NonNullable<SimServer["api"]>;
type Answer<T> = { isAnswered: true; value: T } | { isAnswered: false };

const RETRY_MS = 3_000;
const CONTEXT = {} as HandlerContext;

export class SimUsers {
  /** Jobs whose submission was answered. */
  readonly answered = new Set<string>();
  /** People who still try to do something. */
  busy = 0;
  /** From when on everything goes well and everybody resumes what is paused. */
  isCalm = false;
  readonly #process: SimProcess;
  readonly #random: SimRandom;
  readonly #checker: Checker;
  readonly #server: () => SimServer | null;
  readonly #lossRate: number;

  constructor(deps: {
    time: VirtualTime;
    random: SimRandom;
    checker: Checker;
    lossRate: number;
    server: () => SimServer | null;
  }) {
    this.#process = new SimProcess(new SimHost(deps.time, "user"), "user");
    this.#random = deps.random;
    this.#checker = deps.checker;
    this.#server = deps.server;
    this.#lossRate = deps.lossRate;
  }

  submit(submission: PlannedSubmission): void {
    this.#during(async () => {
      await this.#process.clock.sleep(submission.atMs);
      const jobId = await this.#submitUntilAnswered(submission);
      for (const act of submission.acts) this.#act(jobId, act);
      if (submission.isRepeated) await this.#submitUntilAnswered(submission);
    });
  }

  drainSomeWorker(atMs: number): void {
    this.#during(async () => {
      await this.#process.clock.sleep(atMs);
      const workers = await this.#call(async (api) => {
        const page = await api.listWorkers({ includeTerminated: false } as never, CONTEXT);
        return page.workers ?? [];
      });
      if (!workers.isAnswered || workers.value.length === 0) return;
      const { workerId = "" } = this.#random.pick(workers.value).info ?? {};
      const answer = await this.#call((api) =>
        Promise.resolve(api.drainWorker(create(DrainWorkerRequestSchema, { workerId }), CONTEXT)),
      );
      this.#checker.trace.add(
        `drain of ${this.#checker.trace.name(workerId, "w")} ${answer.isAnswered ? "asked" : "failed"}`,
      );
    });
  }

  /** Whoever has paused a job lets it go on. */
  resumePaused(): void {
    for (const { job } of this.#checker.jobs.values()) {
      if (job.state !== "paused" && !job.pauseWanted) continue;
      this.#act(job.id, { atMs: 0, kind: "resume" });
    }
  }

  async #submitUntilAnswered(submission: PlannedSubmission): Promise<string> {
    const request = create(QueueJobRequestSchema, {
      definition: definitionToWire(submission.definition),
      idempotencyKey: submission.key,
    });
    for (;;) {
      const answer = await this.#call(async (api) => (await api.queueJob(request, CONTEXT)).jobId ?? "");
      if (answer.isAnswered) {
        this.answered.add(answer.value);
        return answer.value;
      }
      await this.#process.clock.sleep(this.#random.between(0, RETRY_MS));
    }
  }

  /** Refused or lost, people leave it at that. */
  #act(jobId: string, act: UserAct): void {
    this.#during(async () => {
      await this.#process.clock.sleep(act.atMs - this.#process.clock.monotonicMs());
      if (this.isCalm && act.kind !== "resume") return;
      await this.#call((api) => Promise.resolve(actOn(api, jobId, act.kind)));
    });
  }

  #during(work: () => Promise<void>): void {
    this.busy += 1;
    void work().finally(() => {
      this.busy -= 1;
    });
  }

  #call<T>(run: (api: Apis) => Promise<T>): Promise<Answer<T>> {
    const server = this.#server();
    const lost: Answer<T> = { isAnswered: false };
    return new Promise((resolve) => {
      const answer = (value: Answer<T>): void => {
        const isLost = !this.isCalm && this.#random.chance(this.#lossRate);
        this.#process.deliverAfter(this.#random.between(0.1, 5), () => resolve(isLost ? lost : value));
      };
      const api = server?.api;
      if (!server || !api || !server.process.isAlive) {
        answer(lost);
        return;
      }
      server.process.onDeath(() => answer(lost));
      server.process.deliver(() => {
        run(api).then(
          (value) => answer({ isAnswered: true, value }),
          () => answer(lost),
        );
      });
    });
  }

  /** Nobody waits, and every job that they know of has ended. */
  get isDone(): boolean {
    return this.busy === 0 && [...this.#checker.jobs.values()].every(({ job }) => isFinal(job.state));
  }
}

async function actOn(api: Apis, jobId: string, kind: UserAct["kind"]): Promise<void> {
  switch (kind) {
    case "cancel":
      await api.cancelJob(create(CancelJobRequestSchema, { jobId, reason: "by hand" }), CONTEXT);
      break;
    case "pause":
      await api.pauseJob(create(PauseJobRequestSchema, { jobId }), CONTEXT);
      break;
    case "resume":
      await api.resumeJob(create(ResumeJobRequestSchema, { jobId }), CONTEXT);
      break;
    case "retry":
    case "retry_forced":
      await api.retryJob(create(RetryJobRequestSchema, { jobId, force: kind === "retry_forced" }), CONTEXT);
      break;
  }
}
