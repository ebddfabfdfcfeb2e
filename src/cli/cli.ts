/**
 * The command line: finds the command, runs it, and turns what came of it into an exit code.
 *
 * Each command is loaded only when its name is on the command line, because `hodei run` should
 * spend its time on the job.
 */

import { constants } from "node:os";
import { Command, CommanderError, Option } from "commander";
import pc from "picocolors";
import type { CliCommand, CommandCall, CommandContext } from "./command.ts";
import { CLI_COMMANDS, type CommandEntry } from "./commands/table.ts";
import type { Connection, ConnectionNeed, ConnectionOptions } from "./connection.ts";
import type { CliEnvironment } from "./environment.ts";
import { EXIT } from "./exit-codes.ts";
import { BrokenPipe, Output } from "./output.ts";
import { reportError } from "./report-error.ts";

/** Resolves with the exit code, when everything is written and nothing is left running. */
export async function runCli(argv: readonly string[], environment: CliEnvironment): Promise<number> {
  const stdout = new Output(environment.stdout);
  const stderr = new Output(environment.stderr);
  const connections: Promise<Connection>[] = [];
  const colors = chooseColors(argv, environment);
  const interruption = new DefaultInterruption(environment);
  let exitCode: number;
  try {
    const session = { argv, environment, stdout, stderr, colors, connections, interruption };
    exitCode = await Promise.race([dispatch(session), interruption.interrupted]);
  } catch (error) {
    exitCode = handleFailure(error, environment, stderr);
  }
  for (const opening of connections) {
    // One that could not be opened is the command's failure, which is reported already.
    const connection = await opening.catch(() => null);
    try {
      await connection?.close();
    } catch (error) {
      const failure = handleFailure(error, environment, stderr);
      exitCode = exitCode === EXIT.ok ? failure : exitCode;
    }
  }
  interruption.stop();
  await Promise.all([stdout.flush(), stderr.flush()]);
  stdout.release();
  stderr.release();
  return exitCode;
}

function handleFailure(error: unknown, environment: CliEnvironment, stderr: Output): number {
  if (error instanceof BrokenPipe) return EXIT.ok;
  if (error instanceof CommanderError) {
    const isWanted = error.code === "commander.helpDisplayed" || error.code === "commander.version";
    return isWanted ? EXIT.ok : EXIT.usage;
  }
  const report = reportError(error, environment.variables["HODEI_DEBUG"] === "1");
  stderr.writeNow(report.text);
  return report.exitCode;
}

/**
 * A server inside this process must be stopped also when a signal ends the command. Without such
 * a server nothing listens, and the signal does what it always does.
 */
class DefaultInterruption {
  readonly #environment: CliEnvironment;
  #end: (exitCode: number) => void = () => {};
  #stopListening: () => void = () => {};
  /** Resolves with the exit code of the signal. */
  readonly interrupted: Promise<number>;

  constructor(environment: CliEnvironment) {
    this.#environment = environment;
    this.interrupted = new Promise((resolve) => {
      this.#end = resolve;
    });
  }

  listen(): void {
    this.stop();
    this.#stopListening = this.#environment.onInterruption((signal) =>
      this.#end(128 + constants.signals[signal]),
    );
  }

  stop(): void {
    this.#stopListening();
  }
}

interface Session {
  argv: readonly string[];
  environment: CliEnvironment;
  stdout: Output;
  stderr: Output;
  colors: CommandContext["colors"];
  connections: Promise<Connection>[];
  interruption: DefaultInterruption;
}

async function dispatch(session: Session): Promise<number> {
  const { argv, environment, stdout, stderr } = session;
  let exitCode: number = EXIT.ok;
  const program = await buildProgram({
    argv,
    environment,
    loadAll: false,
    writeOut: (text) => stdout.writeNow(text),
    writeError: (text) => stderr.writeNow(text),
    onCommand: async (command, loaded) => {
      exitCode = await runCommand(session, { command, loaded });
    },
  });
  await program.parseAsync([...argv], { from: "user" });
  return exitCode;
}

async function runCommand(
  session: Session,
  found: { command: Command; loaded: CliCommand },
): Promise<number> {
  const { argv, environment, stdout, stderr, colors, connections, interruption } = session;
  const options = found.command.optsWithGlobals<ConnectionOptions & Record<string, unknown>>();
  const context: CommandContext = {
    environment,
    stdout,
    stderr,
    colors,
    connect: (need: ConnectionNeed) => {
      if (need !== "running_server") interruption.listen();
      const opening = import("./connection.ts").then(({ connect }) => connect(environment, options, need));
      connections.push(opening);
      return opening;
    },
    takeInterruptions: () => interruption.stop(),
    describeProgram: (write) =>
      buildProgram({
        argv,
        environment,
        loadAll: true,
        writeOut: write,
        writeError: write,
        onCommand: async () => {},
      }),
  };
  return await found.loaded.run(callOf(found.command, options, argv), context);
}

/** Commander forgets where `--` was; `run FILE` and `run -- COMMAND` differ by nothing else. */
function callOf(command: Command, options: Record<string, unknown>, argv: readonly string[]): CommandCall {
  const dashes = argv.indexOf("--");
  if (dashes < 0) return { options, operands: command.args, afterDashes: null };
  const afterDashes = argv.slice(dashes + 1);
  return { options, operands: command.args.slice(0, command.args.length - afterDashes.length), afterDashes };
}

// ── The program as commander knows it ──────────────────────────────────────────────────────────

interface ProgramOptions {
  argv: readonly string[];
  environment: CliEnvironment;
  /** For help and completion; else only what stands in `argv` is loaded. */
  loadAll: boolean;
  writeOut(text: string): void;
  writeError(text: string): void;
  onCommand(command: Command, loaded: CliCommand): Promise<void>;
}

async function buildProgram(options: ProgramOptions): Promise<Command> {
  const { argv, environment, loadAll } = options;
  const program = new Command("hodei")
    .description("Runs jobs on workers that it creates when they are needed.")
    .version(environment.version, "-V, --version", "print the version of this program")
    .helpOption("-h, --help", "show help")
    .helpCommand(false)
    .exitOverride()
    .configureHelp({ showGlobalOptions: true })
    .configureOutput({
      writeOut: options.writeOut,
      writeErr: options.writeError,
      outputError: (text, write) => write(usageError(text, "hodei")),
    })
    .addOption(new Option("--server <url>", "address of the server (HODEI_SERVER)"))
    .addOption(new Option("--token-file <file>", "file with the API token (HODEI_API_TOKEN_FILE)"))
    .addOption(
      new Option("--data-dir <directory>", "data directory of a server on this machine (HODEI_DATA_DIR)"),
    )
    .addOption(
      new Option(
        "--reconnect-timeout <duration>",
        "how long to go on without the server; 5m by default (HODEI_RECONNECT_TIMEOUT)",
      ),
    )
    .addOption(new Option("--no-color", "no colours (NO_COLOR)"))
    .addHelpText("after", "\nA first job:  hodei run -- echo hello\nExit codes:   hodei help exit-codes");
  const dashes = argv.indexOf("--");
  const words = dashes < 0 ? argv : argv.slice(0, dashes);
  const entries = [...CLI_COMMANDS, ...environment.processCommands.map(processEntry)];
  for (const entry of entries) {
    const command = program.command(entry.name).description(entry.description);
    if (!loadAll && !words.includes(entry.name)) continue;
    define(command, await entry.load(), { ...options, path: `hodei ${entry.name}` });
  }
  return program;
}

function define(
  command: Command,
  loaded: CliCommand,
  options: Pick<ProgramOptions, "onCommand"> & { path: string },
): void {
  const { path } = options;
  command.configureOutput({ outputError: (text, write) => write(usageError(text, path)) });
  loaded.configure(command);
  command.action(async () => await options.onCommand(command, loaded));
  for (const sub of loaded.subcommands ?? []) {
    const child = command.helpCommand(false).command(sub.name).description(sub.description);
    define(child, sub.command, { ...options, path: `${path} ${sub.name}` });
  }
}

function processEntry(command: CliEnvironment["processCommands"][number]): CommandEntry {
  return {
    name: command.name,
    description: command.description,
    load: async () => ({
      configure: (target) => command.addOptions(target),
      run: (call) => command.run(call.options, call.operands),
    }),
  };
}

/** `error: unknown option '--tiemout'\n(Did you mean --timeout?)` in the manner of our other errors. */
function usageError(text: string, path: string): string {
  const [first = "", ...rest] = text.trim().split("\n");
  const lines = [`hodei: ${first.replace(/^error: /, "")}`];
  const suggestion = /^\(Did you mean (.*)\?\)$/.exec(rest.join(" ").trim());
  lines.push(`hint: ${suggestion ? `did you mean ${suggestion[1]}?` : `see ${path} --help`}`);
  return `${lines.join("\n")}\n`;
}

function chooseColors(argv: readonly string[], environment: CliEnvironment): CommandContext["colors"] {
  const { variables, isTty } = environment;
  const dashes = argv.indexOf("--");
  const isRefused =
    argv.slice(0, dashes < 0 ? undefined : dashes).includes("--no-color") || Boolean(variables["NO_COLOR"]);
  const force = variables["FORCE_COLOR"];
  const isForced = force !== undefined && force !== "" && force !== "0";
  const isOn = (tty: boolean): boolean =>
    !isRefused && (isForced || (tty && force !== "0" && variables["TERM"] !== "dumb"));
  return { stdout: pc.createColors(isOn(isTty.stdout)), stderr: pc.createColors(isOn(isTty.stderr)) };
}
