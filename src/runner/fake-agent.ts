/** The far end of the runner's socket, for tests: sends orders, keeps what it hears, reads the spool. */

import { mkdtemp, readFile, readdir, rm } from "node:fs/promises";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { bootClock } from "../base/boot-clock.ts";
import { systemClock } from "../base/clock.ts";
import { eventually } from "../base/eventually.ts";
import { silentLogger } from "../base/log.ts";
import { systemRandom, uuidV7 } from "../base/random.ts";
import { withSocketPath } from "../base/socket-path.ts";
import { definitionWith, type AttemptResult, type JobDefinition, type Step } from "../core/job.ts";
import { decodeRecords, type LogStreamName } from "../core/log-record.ts";
import type { AgentToRunner, RunnerToAgent } from "../core/runner-link.ts";
import { LineSplitter } from "../protocol/line-splitter.ts";
import { runnerSocketPath, spoolDirectory } from "../protocol/spool-layout.ts";
import { startRunner, type Runner, type RunnerOptions } from "./runner.ts";

export function bash(content: string): Pick<JobDefinition, "command"> {
  return { command: { kind: "script", interpreter: "bash", content, safetyHeaders: true } };
}

export function makeDefinition(changes: Partial<JobDefinition>): JobDefinition {
  return definitionWith({
    name: "test",
    graceMs: 2_000,
    retry: { maxInfrastructureRetries: 0 },
    ...changes,
  });
}

export function makeStep(name: string, content: string, changes: Partial<Step> = {}): Step {
  return {
    name,
    command: { kind: "script", interpreter: "bash", content, safetyHeaders: true },
    env: {},
    workingDirectory: "",
    condition: "success",
    timeoutMs: null,
    continueOnError: false,
    ...changes,
  };
}

export class FakeAgent {
  readonly heard: RunnerToAgent[] = [];
  readonly directory: string;
  readonly #socket: Socket;

  private constructor(directory: string, socket: Socket) {
    this.directory = directory;
    this.#socket = socket;
    const splitter = new LineSplitter();
    socket.on("data", (chunk) => {
      for (const line of splitter.push(chunk)) this.heard.push(JSON.parse(line) as RunnerToAgent);
    });
    socket.on("error", () => {
      // The runner may go away while a test still writes.
    });
  }

  static async connect(directory: string): Promise<FakeAgent> {
    const fake = await FakeAgent.open(directory);
    await fake.next("hello");
    return fake;
  }

  /** Does not wait for the hello. */
  static async open(directory: string): Promise<FakeAgent> {
    const agent = await eventually(() => tryConnect(directory), { what: "the runner's socket" });
    return new FakeAgent(directory, agent);
  }

  get isConnected(): boolean {
    return !this.#socket.destroyed;
  }

  send(message: AgentToRunner): void {
    this.#socket.write(`${JSON.stringify(message)}\n`);
  }

  /** Orders an attempt and returns its id. */
  run(changes: Partial<JobDefinition>, { leaseFromMs = bootClock()() } = {}): string {
    const attemptId = uuidV7(systemClock, systemRandom);
    this.send({
      type: "run",
      attemptId,
      jobId: `job-of-${attemptId}`,
      attemptNumber: 1,
      definition: makeDefinition(changes),
      leaseFromMs,
    });
    return attemptId;
  }

  /** The first message of a type that fits, heard already or to come. */
  async next<T extends RunnerToAgent["type"]>(
    type: T,
    fits: (message: Extract<RunnerToAgent, { type: T }>) => boolean = () => true,
  ): Promise<Extract<RunnerToAgent, { type: T }>> {
    const isWanted = (message: RunnerToAgent): message is Extract<RunnerToAgent, { type: T }> =>
      message.type === type && fits(message as Extract<RunnerToAgent, { type: T }>);
    return await eventually(() => this.heard.find(isWanted), { timeoutMs: 20_000, what: `message ${type}` });
  }

  async result(attemptId: string): Promise<AttemptResult> {
    return (await this.next("result", (message) => message.attemptId === attemptId)).result;
  }

  async started(attemptId: string): Promise<void> {
    await this.next("started", (message) => message.attemptId === attemptId);
  }

  /** Runs a job to its end. */
  async finish(changes: Partial<JobDefinition>): Promise<AttemptResult & { attemptId: string; log: string }> {
    const attemptId = this.run(changes);
    const result = await this.result(attemptId);
    return { ...result, attemptId, log: (await this.logBytes(attemptId)).toString("utf8") };
  }

  /** The payloads in the spool, of one stream or of all. */
  async logBytes(attemptId: string, stream?: LogStreamName): Promise<Buffer> {
    const records = [...decodeRecords(await this.spoolBytes(attemptId))];
    return Buffer.concat(
      records.filter((record) => !stream || record.stream === stream).map(({ data }) => data),
    );
  }

  /** The log of a paused job: what it last printed may still be on its way into the spool. */
  async settledLog(attemptId: string): Promise<Buffer> {
    let last = -1;
    let equalLooks = 0;
    return await eventually(
      async () => {
        const log = await this.logBytes(attemptId);
        equalLooks = log.length === last ? equalLooks + 1 : 0;
        last = log.length;
        return equalLooks >= 10 ? log : null;
      },
      { intervalMs: 30, what: "the end of what was printed" },
    );
  }

  async spoolBytes(attemptId: string): Promise<Buffer> {
    const directory = spoolDirectory(this.directory, attemptId);
    const names = (await readdir(directory).catch(() => [] as string[])).toSorted(
      (a, b) => Number.parseInt(a) - Number.parseInt(b),
    );
    return Buffer.concat(await Promise.all(names.map((name) => readFile(join(directory, name)))));
  }

  close(): void {
    this.#socket.destroy();
  }
}

function tryConnect(directory: string): Promise<Socket | null> {
  const connected = (path: string): Promise<Socket | null> =>
    new Promise((resolve) => {
      const socket = connect(path);
      socket.once("connect", () => resolve(socket));
      socket.once("error", () => resolve(null));
    });
  return withSocketPath(runnerSocketPath(directory), connected);
}

export interface RunnerUnderTest {
  runner: Runner;
  agent: FakeAgent;
  directory: string;
  stop(): Promise<void>;
}

/** A runner in this process, in a directory of its own, and an agent that is connected to it. */
export async function startRunnerUnderTest(options: Partial<RunnerOptions> = {}): Promise<RunnerUnderTest> {
  const directory = options.directory ?? (await mkdtemp(join(tmpdir(), "hodei-runner-")));
  const runner = await startRunner({
    directory,
    clock: systemClock,
    random: systemRandom,
    log: silentLogger,
    version: "test",
    environment: {
      PATH: `${dirname(process.execPath)}:/usr/bin:/bin`,
      HOME: tmpdir(),
      HODEI_TOKEN: "not for jobs",
    },
    ...options,
  });
  const agent = await FakeAgent.connect(directory);
  const stop = async () => {
    agent.close();
    await runner.stop();
    await rm(directory, { recursive: true, force: true });
  };
  return { runner, agent, directory, stop };
}
