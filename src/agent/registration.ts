/**
 * The worker's session with the server, kept on disk so that an agent that was killed comes back as
 * the same worker without a new token.
 */

import { mkdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Code, ConnectError } from "@connectrpc/connect";
import { Backoff } from "../base/backoff.ts";
import type { Clock } from "../base/clock.ts";
import { AppError, errorMessage, systemErrorCode } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import { uuidV4, type Random } from "../base/random.ts";
import { PROTOCOL_VERSION } from "../core/link.ts";
import type { WorkerInfo } from "../core/worker.ts";
import { workerInfoToWire } from "../protocol/convert-worker.ts";
import { dialProblem } from "./dial-problem.ts";
import type { Dialled } from "./server-link.ts";

const REGISTER_TIMEOUT_MS = 15_000;
/**
 * A connection that fails tells so by an event after its call has ended; one that is let go of at once
 * has nobody left to hear it, and the process would end by it.
 */
const SETTLE_MS = 20;
/** What a person who starts a worker does about a token that is not taken. */
export const NEW_TOKEN_HINT = "`hodei workers token` makes a new one";

export interface StoredSession {
  workerId: string;
  sessionToken: string;
}

export interface RegistrationOptions {
  directory: string;
  server: Dialled;
  /** Where it was dialled. */
  serverUrl: string;
  worker: WorkerInfo;
  tokenFile: string | null;
  token: string | null;
  clock: Clock;
  random: Random;
  log: Logger;
}

/**
 * The stored session, or a new one for the one-time token. Tries for ever while the server cannot
 * be reached; a token that is refused is an error at once, because waiting does not mend it.
 */
export async function openSession(options: RegistrationOptions, signal: AbortSignal): Promise<StoredSession> {
  const stored = await readSession(options.directory);
  if (stored) return stored;
  const token = await readToken(options);
  const registrationKey = await keepKey(options.directory);
  const backoff = new Backoff({ baseMs: 100, maxMs: 10_000 }, options.random);
  for (;;) {
    try {
      const answer = await options.server.client.register(
        {
          token,
          worker: workerInfoToWire(options.worker),
          protocolVersion: PROTOCOL_VERSION,
          registrationKey,
        },
        { signal, timeoutMs: REGISTER_TIMEOUT_MS },
      );
      const session = { workerId: answer.workerId, sessionToken: answer.sessionToken };
      await writeSession(options.directory, session);
      await removeToken(options);
      await rm(keyPath(options.directory), { force: true });
      return session;
    } catch (error) {
      if (signal.aborted) throw refusal(error, options);
      const problem = dialProblem(error, options.serverUrl);
      const isFinal = problem.isPermanent || !isTransient(error);
      if (!isFinal) {
        const fields = { err: errorMessage(error), server: options.serverUrl, hint: problem.hint };
        options.log.warn(fields, "could not register, trying again");
      }
      await options.clock.sleep(SETTLE_MS, signal);
      // A connection that swallows packets would swallow the next try as well.
      options.server.close();
      if (isFinal) throw refusal(error, options);
      await options.clock.sleep(backoff.nextDelayMs(), signal);
    }
  }
}

/**
 * The key by which the server knows that it has seen this registration before. It is kept until the
 * session is, so that an agent that was killed between the answer and its writing can ask again.
 */
async function keepKey(directory: string): Promise<string> {
  const path = keyPath(directory);
  const kept = await readFile(path, "utf8").catch(() => "");
  if (kept !== "") return kept;
  const key = uuidV4();
  await mkdir(directory, { recursive: true, mode: 0o700 });
  await writeFile(`${path}.new`, key, { mode: 0o600 });
  await rename(`${path}.new`, path);
  return key;
}

function keyPath(directory: string): string {
  return join(directory, "registration-key");
}

/** For a session that the server does not know any more: the next start needs a new token. */
export async function forgetSession(directory: string): Promise<void> {
  await rm(sessionPath(directory), { force: true });
}

/** A used token is worth nothing to anybody, so a file that cannot be removed does no harm. */
async function removeToken({ tokenFile, log }: RegistrationOptions): Promise<void> {
  if (tokenFile === null) return;
  try {
    await rm(tokenFile, { force: true });
  } catch (error) {
    log.warn({ err: errorMessage(error) }, "could not remove the file of the used token");
  }
}

function sessionPath(directory: string): string {
  return join(directory, "session.json");
}

async function readSession(directory: string): Promise<StoredSession | null> {
  try {
    return JSON.parse(await readFile(sessionPath(directory), "utf8")) as StoredSession;
  } catch (error) {
    if (systemErrorCode(error) === "ENOENT") return null;
    throw new AppError("failed_precondition", `read session in ${directory}: ${errorMessage(error)}`, {
      cause: error,
    });
  }
}

async function writeSession(directory: string, session: StoredSession): Promise<void> {
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const path = sessionPath(directory);
  await writeFile(`${path}.new`, JSON.stringify(session), { mode: 0o600 });
  await rename(`${path}.new`, path);
}

async function readToken(options: RegistrationOptions): Promise<string> {
  if (options.token !== null) return options.token;
  if (options.tokenFile === null) {
    throw new AppError(
      "invalid_argument",
      `register worker: give a one-time token with --token-file or HODEI_TOKEN_FILE; ${NEW_TOKEN_HINT}`,
    );
  }
  try {
    return (await readFile(options.tokenFile, "utf8")).trim();
  } catch (error) {
    throw new AppError("invalid_argument", `read one-time token: ${errorMessage(error)}`, { cause: error });
  }
}

/** `Canceled` comes from a connection that was cut: nobody here cancels but by the signal. */
function isTransient(error: unknown): boolean {
  const { code } = ConnectError.from(error);
  return (
    code === Code.Unavailable ||
    code === Code.DeadlineExceeded ||
    code === Code.Internal ||
    code === Code.Unknown ||
    code === Code.Canceled
  );
}

function refusal(error: unknown, { serverUrl, worker }: RegistrationOptions): Error {
  const { code, rawMessage } = ConnectError.from(error);
  const isToken = code === Code.Unauthenticated;
  // The token of a worker that somebody's provider made is not for people.
  const isPersons = worker.workerId === "";
  const hint = isToken ? (isPersons ? NEW_TOKEN_HINT : "") : dialProblem(error, serverUrl).hint;
  const what = rawMessage.replace(/^register worker: /, "").trim();
  return new AppError(
    isToken ? "unauthenticated" : "failed_precondition",
    `register worker at ${serverUrl}: ${what}${hint === "" ? "" : `; ${hint}`}`,
    { cause: error },
  );
}
