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
    },
    destination({ dest: 2, sync: true }),
  );
  return logger;
}

export const silentLogger: Logger = createLogger({ level: "silent" });
