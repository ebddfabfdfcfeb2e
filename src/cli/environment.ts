/** What the command line needs from the process around it, so that tests can run it as it is. */

import type { Readable, Writable } from "node:stream";
import type { Command } from "commander";
import type { Clock } from "../base/clock.ts";
import type { Random } from "../base/random.ts";

/** A server inside this process, for one command. */
export interface EmbeddedServer {
  url: string;
  token: string;
  stop(): Promise<void>;
}

export interface EmbeddedServerOptions {
  /** Nothing will be run: no workers are needed. */
  readOnly: boolean;
  /** Chosen by `--data-dir` or `HODEI_DATA_DIR`, or the default one. */
  dataDirectory: string;
}

/** A command that is a process of its own. */
export interface ProcessCommand {
  name: "dev" | "server" | "agent";
  description: string;
  addOptions(command: Command): void;
  /** Resolves with the exit code when the process has ended its work. */
  run(options: Record<string, unknown>, operands: readonly string[]): Promise<number>;
}

export type Interruption = "SIGINT" | "SIGTERM";

/** Standard input; a terminal can also hand over single keys. */
export type CliInput = Readable & { setRawMode?: (mode: boolean) => unknown };

export interface CliEnvironment {
  stdout: Writable;
  stderr: Writable;
  stdin: CliInput;
  isTty: { stdin: boolean; stdout: boolean; stderr: boolean };
  /** Environment variables. */
  variables: Record<string, string | undefined>;
  cwd: string;
  /** Undefined where there are no user ids. */
  uid: number | undefined;
  clock: Clock;
  random: Random;
  version: string;
  /** Calls `listener` for each signal until the returned function is called. */
  onInterruption(listener: (signal: Interruption) => void): () => void;
  startEmbeddedServer(options: EmbeddedServerOptions): Promise<EmbeddedServer>;
  processCommands: ProcessCommand[];
}
