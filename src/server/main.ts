/** Entries of `hodei server`, `hodei dev` and of the server inside `hodei run`. */

import { readFile } from "node:fs/promises";
import { resolve } from "node:path";
import { systemClock } from "../base/clock.ts";
import {
  apiTokenPath,
  defaultDataDirectory,
  serverFilePath,
  type ServerFile,
} from "../base/data-directory.ts";
import { AppError } from "../base/errors.ts";
import { eventually } from "../base/eventually.ts";
import { createLogger, type Logger, type LogLevel } from "../base/log.ts";
import { systemRandom } from "../base/random.ts";
import { readSettings, type Flags, type SettingsValues } from "../base/settings.ts";
import { listenForSignals } from "../base/signals.ts";
import { steadyClock } from "../base/steady-clock.ts";
import { abandonEmbeddedPostgres } from "../storage/embedded-postgres.ts";
import { dockerEngineSettings, dockerPoolSettings } from "./docker-settings.ts";
import { serverSettings } from "./settings.ts";
import {
  checkAddress,
  GIVE_WAY_SIGNAL,
  startServer,
  type RunningServer,
  type ServerOptions,
} from "./start-server.ts";

export interface ServerProgram {
  version: string;
  workerProgram: string;
}

/** `hodei server`: local workers go on without it. Resolves with the exit code. */
export async function serverMain(program: ServerProgram & { flags: Flags }): Promise<number> {
  const settings = readSettings(serverSettings, { env: process.env, flags: program.flags });
  const options = optionsFrom(settings, program, settings.logLevel);
  const start = (leaving: AbortSignal) => startServer({ ...options, endWorkersOnStop: "none", leaving });
  return await runUntilSignal(start, { ...options, timeoutMs: settings.shutdownTimeout });
}

/** `hodei dev`: everything in one command; nothing is left behind. */
export async function devMain(
  program: ServerProgram & { flags: Flags; onStarted(server: RunningServer): void },
): Promise<number> {
  const isQuiet = program.flags["logLevel"] === undefined && process.env["HODEI_LOG_LEVEL"] === undefined;
  const settings = readSettings(serverSettings, { env: process.env, flags: program.flags });
  const options = optionsFrom(settings, program, isQuiet ? "warn" : settings.logLevel);
  const start = async (leaving: AbortSignal): Promise<RunningServer> => {
    const server = await startServer({ ...options, endWorkersOnStop: "all", leaving });
    program.onStarted(server);
    return server;
  };
  return await runUntilSignal(start, { ...options, timeoutMs: settings.shutdownTimeout });
}

/** A server inside the process of one command. */
export interface EmbeddedServer {
  url: string;
  token: string;
  stop(): Promise<void>;
}

/** How long a server that another command has begun to start may take. */
const OTHER_START_TIMEOUT_MS = 30_000;

/**
 * A server for one command, on free ports. If another command starts one on the same data directory
 * at the same moment, it is shared; the owner's `stop` waits for the calls of its guests. One that only
 * reads ends at once when a server wants the directory that stays; the command then goes on with that.
 */
export async function startEmbeddedServer(program: EmbeddedProgram): Promise<EmbeddedServer> {
  const wanted = new AbortController();
  // Heard to the end of the process: unheard, the signal would end it.
  if (program.readOnly) process.on(GIVE_WAY_SIGNAL, () => wanted.abort());
  return await eventually(
    async () => (await tryStartEmbedded(program, wanted.signal)) ?? (await findServer(program)),
    { timeoutMs: OTHER_START_TIMEOUT_MS, intervalMs: 50, what: `a server on ${program.dataDirectory}` },
  );
}

type EmbeddedProgram = ServerProgram & { readOnly: boolean; dataDirectory: string };

/** Null if another process owns the data directory. */
async function tryStartEmbedded(
  program: EmbeddedProgram,
  wanted: AbortSignal,
): Promise<EmbeddedServer | null> {
  const settings = readSettings(serverSettings, {
    env: process.env,
    flags: { dataDir: program.dataDirectory, httpPort: "0", grpcPort: "0", host: "127.0.0.1" },
  });
  const isTold = process.env["HODEI_LOG_LEVEL"] !== undefined;
  const options = optionsFrom(settings, program, isTold ? settings.logLevel : "error");
  try {
    const server = await startServer({
      ...options,
      holder: program.readOnly ? "reading_command" : "command",
      readOnly: program.readOnly,
      expectsJob: true,
      // A server that is away for a moment has left its own workers here, with their jobs.
      endWorkersOnStop: "own",
    });
    const giveWay = (): void => {
      server.stop().catch((error: unknown) => options.log.error({ err: error }, "could not give way"));
    };
    wanted.addEventListener("abort", giveWay, { once: true });
    if (wanted.aborted) giveWay();
    return { url: server.url, token: server.apiToken, stop: () => stopAfterGuests(server) };
  } catch (error) {
    if (error instanceof AppError && error.code === "already_exists") return null;
    throw error;
  }
}

/** No new guest finds the way here any more; those that are here are served to the end. */
async function stopAfterGuests(server: RunningServer): Promise<void> {
  await server.hide();
  await server.idle();
  await server.stop();
}

/** The server that another process runs on this data directory, if it answers already. */
async function findServer({ dataDirectory, readOnly }: EmbeddedProgram): Promise<EmbeddedServer | null> {
  try {
    const file = JSON.parse(await readFile(serverFilePath(dataDirectory), "utf8")) as ServerFile;
    if (file.readOnly && !readOnly) return null;
    const { url } = file;
    const health = await fetch(`${url}/healthz`);
    if (!health.ok) return null;
    const token = (await readFile(apiTokenPath(dataDirectory), "utf8")).trim();
    return { url, token, stop: () => Promise.resolve() };
  } catch {
    // Not there yet, or gone again: the caller looks once more.
    return null;
  }
}

type Settings = SettingsValues<typeof serverSettings>;

function optionsFrom(
  settings: Settings,
  program: ServerProgram,
  logLevel: LogLevel,
): Omit<ServerOptions, "endWorkersOnStop"> {
  checkAddress(settings.host, settings.insecure);
  const log = createLogger({ level: logLevel, fields: { process: "server" } });
  return {
    dataDirectory: resolve(settings.dataDirectory ?? defaultDataDirectory(process.env, process.getuid?.())),
    holder: "server",
    databaseUrl: settings.databaseUrl,
    host: settings.host,
    httpPort: settings.httpPort,
    grpcPort: settings.grpcPort,
    localWorkers: {
      maxWorkers: settings.maxWorkers,
      workerJobs: settings.workerJobs,
      workerIdleTimeoutMs: settings.workerIdleTimeout,
      ephemeral: settings.ephemeralWorkers,
    },
    docker: dockerPoolSettings(settings),
    dockerEngine: dockerEngineSettings(settings),
    onFatal(error) {
      log.error({ err: error }, "the server cannot go on");
      process.exit(1);
    },
    readOnly: false,
    expectsJob: false,
    workerProgram: program.workerProgram,
    environment: process.env,
    version: program.version,
    clock: steadyClock(systemClock, log),
    random: systemRandom,
    log,
  };
}

/**
 * A signal asks for a good end also during the start. One that hangs must not keep the next server
 * waiting: what it would still have done is safe to be left. The private PostgreSQL goes along, as
 * with a stop: nobody would know of it.
 */
async function runUntilSignal(
  start: (leaving: AbortSignal) => Promise<RunningServer>,
  options: { timeoutMs: number; log: Logger; dataDirectory: string; databaseUrl: string | null },
): Promise<number> {
  const { timeoutMs, log, dataDirectory, databaseUrl } = options;
  const leaving = new AbortController();
  let server: RunningServer | null = null;
  let callOff = (): void => {};
  const leave = async (): Promise<void> => {
    const waitsFor = server === null ? "start" : server.stopsNow();
    log.error({ waitsFor, timeoutMs }, "could not stop in time, leaving all the same");
    leaving.abort();
    try {
      if (databaseUrl === null) {
        await abandonEmbeddedPostgres({ directory: dataDirectory, clock: systemClock });
      }
    } catch (error) {
      log.error({ err: error }, "could not end the embedded database");
    }
    process.exit(1);
  };
  const asked = untilSignal().then(() => {
    callOff = systemClock.schedule(timeoutMs, () => void leave());
  });
  try {
    server = await start(leaving.signal);
    await asked;
    await server.stop();
    return 0;
  } finally {
    callOff();
  }
}

/** The first signal asks for a stop; a second one ends the process at once. */
function untilSignal(): Promise<void> {
  return new Promise((resolveSignal) => {
    let isStopping = false;
    listenForSignals(systemClock, (signal) => {
      if (isStopping) process.exit(signal === "SIGINT" ? 130 : 143);
      isStopping = true;
      resolveSignal();
    });
  });
}
