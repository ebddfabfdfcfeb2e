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
    destination({ dest: 2, sync: true }),
  );
  return logger;
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
