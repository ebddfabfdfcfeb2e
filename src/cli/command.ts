/** What every command is made of, and what it gets to work with. */

import type { Command } from "commander";
import type pc from "picocolors";
import type { Connection, ConnectionNeed } from "./connection.ts";
import type { CliEnvironment } from "./environment.ts";
import type { Output } from "./output.ts";

export type Colors = ReturnType<typeof pc.createColors>;

/** Options and operands as commander found them, and the arguments after `--`. */
export interface CommandCall {
  options: Record<string, unknown>;
  operands: string[];
  /** Null if there was no `--`. */
  afterDashes: string[] | null;
}

export interface CommandContext {
  environment: CliEnvironment;
  stdout: Output;
  stderr: Output;
  /** Colours as standard output and standard error can show them. */
  colors: { stdout: Colors; stderr: Colors };
  /** The connection is closed by the caller when the command ends. */
  connect(need: ConnectionNeed): Promise<Connection>;
  /** From here on the command itself does what signals ask for. */
  takeInterruptions(): void;
  /** The whole program with every command, for help and completion. */
  describeProgram(write: (text: string) => void): Promise<Command>;
}

export interface CliCommand {
  /** Adds arguments, options and help. */
  configure(command: Command): void;
  /** Commands that follow its name, such as `hodei workers drain`; anything else runs this one. */
  subcommands?: readonly Subcommand[];
  /** Resolves with the exit code. Rejects with `AppError`. */
  run(call: CommandCall, context: CommandContext): Promise<number>;
}

export interface Subcommand {
  name: string;
  description: string;
  command: CliCommand;
}
