/** What a stranger waits for: the first job, a later one, and a worker made for one job. */

import { spawn } from "node:child_process";
import { once } from "node:events";
import { rm } from "node:fs/promises";
import { LogStream } from "../../src/protocol/gen/hodei/v1/logs_pb.ts";
import { durationMs, medianOf, type BenchRow } from "../bench-row.ts";
import { makeDataDirectory, startBenchServer, type BenchServer } from "./bench-server.ts";

async function run(command: string, args: readonly string[], env: Record<string, string>): Promise<void> {
  const child = spawn(command, args, {
    env: { ...process.env, ...env },
    stdio: ["ignore", "ignore", "inherit"],
  });
  const [code] = (await once(child, "exit")) as [number | null];
  if (code !== 0) throw new Error(`${command} ${args.join(" ")} ended with ${code}`);
}

const nodeStartSeconds = (): Promise<number> =>
  medianOf(5, async () => (await durationMs(() => run(process.execPath, ["-e", "0"], {}))) / 1_000);

const hello = (dataDirectory: string): Promise<void> =>
  run("npx", ["--no-install", "hodei", "run", "examples/hello.yaml"], { HODEI_DATA_DIR: dataDirectory });

export const firstRun: BenchRow = {
  name: "npx hodei run examples/hello.yaml, empty data directory",
  target: "≤ 4 s",
  rawName: "start of Node.js",
  async run() {
    const value = await medianOf(3, async () => {
      const dataDirectory = await makeDataDirectory();
      const tookMs = await durationMs(() => hello(dataDirectory));
      await rm(dataDirectory, { recursive: true, force: true });
      return tookMs / 1_000;
    });
    return { value, raw: await nodeStartSeconds(), unit: "s" };
  },
};

export const laterRun: BenchRow = {
  name: "the same again",
  target: "≤ 1.5 s",
  rawName: "start of Node.js",
  async run() {
    const dataDirectory = await makeDataDirectory();
    await hello(dataDirectory);
    const value = await medianOf(5, async () => (await durationMs(() => hello(dataDirectory))) / 1_000);
    await rm(dataDirectory, { recursive: true, force: true });
    return { value, raw: await nodeStartSeconds(), unit: "s" };
  },
};

export const ephemeralWorker: BenchRow = {
  name: "ephemeral process worker, job waiting → first log byte",
  target: "≤ 0.6 s",
  rawName: "start of Node.js",
  async run() {
    const server = await startBenchServer(["--ephemeral-workers"]);
    try {
      return {
        value: await medianOf(7, () => firstByteSeconds(server)),
        raw: await nodeStartSeconds(),
        unit: "s",
      };
    } finally {
      await server.stop();
    }
  },
};

/** From the submission of a job to the first byte of its output at a reader. */
export async function firstByteSeconds(server: BenchServer): Promise<number> {
  // Any image of a test has a shell, few have an echo.
  const echo = { commandType: { case: "shell" as const, value: { cmd: "sh", args: ["-c", "echo x"] } } };
  const tookMs = await durationMs(async () => {
    const { jobId } = await server.jobs.queueJob({ definition: { name: "first byte", command: echo } });
    for await (const { entries } of server.logs.readLog({ jobId, follow: true })) {
      if (entries.some(({ stream }) => stream === LogStream.STDOUT)) return;
    }
    throw new Error(`job ${jobId} ended without output`);
  });
  return tookMs / 1_000;
}
