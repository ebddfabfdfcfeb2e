/** The built program, as a user meets it. */

import { spawn, type ChildProcess } from "node:child_process";
import { chmod, mkdtemp, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { eventually } from "../src/base/eventually.ts";
import { openTestDatabase, type TestDatabase } from "../src/storage/test-database.ts";

/** What is run; another build of it can be given for a while of development. */
export const program = process.env["HODEI_TEST_PROGRAM"] ?? join(process.cwd(), "bin", "hodei.js");

export interface Finished {
  /** 128+n for a signal, as a shell shows it. */
  code: number;
  stdout: Buffer;
  stderr: string;
}

/** A data directory of its own, and everything that runs on it. */
export class Place {
  readonly directory: string;
  #server: ChildProcess | null = null;

  readonly #database: TestDatabase | null;

  private constructor(directory: string, database: TestDatabase | null) {
    this.directory = directory;
    this.#database = database;
  }

  /** On the database server of `HODEI_TEST_DATABASE_URL` if that is set, else on a private one. */
  static async make(): Promise<Place> {
    const directory = await mkdtemp(join(tmpdir(), "hodei-e2e-"));
    // As root, PostgreSQL runs as another user and must get through.
    await chmod(directory, 0o755);
    const isGiven = process.env["HODEI_TEST_DATABASE_URL"] !== undefined;
    return new Place(directory, isGiven ? await openTestDatabase() : null);
  }

  get dataDirectory(): string {
    return join(this.directory, "data");
  }

  environment(extra: Record<string, string> = {}): Record<string, string | undefined> {
    const { HODEI_SERVER: _server, NODE_TEST_CONTEXT: _context, ...inherited } = process.env;
    const connection = this.#database?.connection;
    const database =
      connection && "connectionString" in connection
        ? { HODEI_DATABASE_URL: connection.connectionString }
        : {};
    return { ...inherited, ...database, HODEI_DATA_DIR: this.dataDirectory, NO_COLOR: "1", ...extra };
  }

  start(args: readonly string[], options: { env?: Record<string, string>; cwd?: string } = {}): ChildProcess {
    return spawn(process.execPath, [program, ...args], {
      env: this.environment(options.env),
      cwd: options.cwd ?? process.cwd(),
      stdio: ["pipe", "pipe", "pipe"],
    });
  }

  async run(
    args: readonly string[],
    options: { env?: Record<string, string>; input?: string; cwd?: string } = {},
  ): Promise<Finished> {
    const child = this.start(args, options);
    child.stdin?.end(options.input ?? "");
    return finished(child);
  }

  /** Starts `hodei dev` on free ports and waits until it is ready. */
  startDev(args: readonly string[] = []): Promise<{ url: string; pid: number }> {
    return this.startServer(args, "dev");
  }

  /** Starts `hodei server`, whose workers outlive it; `stopDev` stops it, too. */
  async startServer(
    args: readonly string[] = [],
    command: "server" | "dev" = "server",
  ): Promise<{ url: string; pid: number }> {
    const child = this.start([command, "--http-port", "0", "--grpc-port", "0", ...args]);
    child.stdout?.resume();
    let said = "";
    child.stderr?.on("data", (chunk: Buffer) => {
      said += chunk.toString();
    });
    this.#server = child;
    return eventually(
      async () => {
        if (child.exitCode !== null)
          throw new Error(`hodei ${command} ended with ${child.exitCode}: ${said}`);
        const text = await readFile(join(this.dataDirectory, "server.json"), "utf8").catch(() => null);
        if (text === null) return null;
        const server = JSON.parse(text) as { url: string; pid: number };
        return server.pid === child.pid ? server : null;
      },
      { timeoutMs: 30_000, what: `the start of hodei ${command}` },
    );
  }

  /** The server that runs here. */
  async server(): Promise<{ url: string; pid: number }> {
    const text = await readFile(join(this.dataDirectory, "server.json"), "utf8");
    return JSON.parse(text) as { url: string; pid: number };
  }

  /** `host:port` of the port for workers and gRPC clients. */
  async grpcAddress(): Promise<string> {
    return `127.0.0.1:${await readFile(join(this.dataDirectory, "worker-port"), "utf8")}`;
  }

  /** `while ${isClosed}; do …` in a script holds its job, however long the test takes until it opens it. */
  gate(name: string): { isClosed: string; open: () => Promise<void> } {
    const path = join(this.directory, `gate-${name}`);
    return { isClosed: `[ ! -e ${path} ]`, open: () => writeFile(path, "") };
  }

  /** Waits until the message of a job fits, and returns it. */
  eventualMessage(jobId: string, pattern: RegExp): Promise<string> {
    return eventually(
      async () => {
        const { stdout } = await this.run(["get", jobId, "--output", "json"]);
        const { message } = JSON.parse(stdout.toString()) as { message: string };
        return pattern.test(message) ? message : null;
      },
      { what: `message ${String(pattern)} of job ${jobId}` },
    );
  }

  async stopDev(signal: NodeJS.Signals = "SIGTERM"): Promise<number> {
    const child = this.#server;
    this.#server = null;
    if (!child) return 0;
    child.kill(signal);
    return (await finished(child)).code;
  }

  /** Processes that name this place in their command line or environment. */
  async leftovers(): Promise<string[]> {
    const found: string[] = [];
    for (const pid of (await readdir("/proc")).filter((name) => /^\d+$/.test(name))) {
      if (Number(pid) === process.pid) continue;
      const commandLine = await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "");
      const environment = await readFile(`/proc/${pid}/environ`, "utf8").catch(() => "");
      const isOurs = commandLine.includes(this.directory) || environment.includes(this.directory);
      if (isOurs && commandLine !== "") found.push(`${pid} ${commandLine.replaceAll("\0", " ")}`);
    }
    return found;
  }

  /** Processes whose command line (with NUL between the words) has this in it. */
  async countProcesses(words: string): Promise<number> {
    let count = 0;
    for (const pid of (await readdir("/proc")).filter((name) => /^\d+$/.test(name))) {
      const commandLine = await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "");
      if (commandLine.startsWith(words)) count += 1;
    }
    return count;
  }

  /** The most memory that each process of a running server has used, in bytes. */
  async peakMemory(): Promise<{ server: number; agent: number; runner: number }> {
    const { pid } = await this.server();
    const workers = join(this.dataDirectory, "workers");
    const [worker = ""] = await readdir(workers);
    const pidIn = async (name: string): Promise<number> =>
      (JSON.parse(await readFile(join(workers, worker, name), "utf8")) as { pid: number }).pid;
    return {
      server: await peakRss(pid),
      agent: await peakRss(await pidIn("agent.pid")),
      runner: await peakRss(await pidIn("runner.pid")),
    };
  }

  async remove(): Promise<void> {
    await this.stopDev();
    await this.#database?.close();
    await rm(this.directory, { recursive: true, force: true });
  }
}

async function peakRss(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, "utf8");
  return Number(/^VmHWM:\s+(\d+) kB$/m.exec(status)?.[1] ?? 0) * 1024;
}

export async function finished(child: ChildProcess): Promise<Finished> {
  const stdout: Buffer[] = [];
  let stderr = "";
  child.stdout?.on("data", (chunk: Buffer) => stdout.push(chunk));
  child.stderr?.on("data", (chunk: Buffer) => {
    stderr += chunk.toString();
  });
  const code = await new Promise<number>((resolve) => {
    if (child.exitCode !== null) resolve(child.exitCode);
    child.once("close", (exitCode, signal) => resolve(exitCode ?? (signal === "SIGINT" ? 130 : 143)));
  });
  return { code, stdout: Buffer.concat(stdout), stderr };
}
