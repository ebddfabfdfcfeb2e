/**
 * The program's own log: JSON lines on stderr. The message is a constant phrase, the data are
 * fields; a line about a job has `jobId`, one about a worker `workerId`.
 */

import { destination, pino, type Logger as PinoLogger } from "pino";

export type Logger = Pick<PinoLogger, "debug" | "info" | "warn" | "error"> & {
  child(fields: Record<string, unknown>): Logger;
};

export const LOG_LEVELS = ["debug", "info", "warn", "error", "silent"] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

export function createLogger(options: { level: LogLevel; fields?: Record<string, unknown> }): Logger {
  const logger = pino(
    {
      level: options.level,
      base: options.fields ?? {},
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      serializers: { err: describeError },
    },
    openStderr(),
  );
  return logger;
}

/** Lines that wait while stderr is a file on a full disk; the ones that follow are dropped. */
const MAX_WAITING_BYTES = 64 * 1024;

/** A full disk must not end the process: what runs is worth more than what is said about it. */
function openStderr(): ReturnType<typeof destination> {
  const stderr = destination({ dest: 2, sync: true, maxLength: MAX_WAITING_BYTES });
  stderr.on("error", () => {
    // There is nowhere to say so. The line waits and is written together with a later one.
  });
  return stderr;
}

/**
 * What a line says of an error. Other properties are left out: libraries hang whole connections on
 * their errors, and with them whatever those hold.
 */
function describeError(error: unknown): unknown {
  if (!(error instanceof Error)) return error;
  const { name, message, stack, cause } = error;
  const code = "code" in error && typeof error.code !== "object" ? error.code : undefined;
  return { name, message, code, stack, cause: cause === undefined ? undefined : describeError(cause) };
}

export const silentLogger: Logger = createLogger({ level: "silent" });
