/**
 * Log of one worker on its way into the log store.
 *
 * A disk that refuses must not cost the worker its stream, on which heartbeats, controls and the
 * results of other jobs pass. So what was refused is kept here and tried again until the disk takes
 * it; the worker sends no more than its credit until it is acknowledged, which bounds what is kept.
 * When the stream ends, all of it is forgotten: it is still on the worker's disk.
 */

import { Backoff } from "../../base/backoff.ts";
import type { Clock } from "../../base/clock.ts";
import { AppError, ERROR_CODES } from "../../base/errors.ts";
import type { Logger } from "../../base/log.ts";
import type { Random } from "../../base/random.ts";
import type { LogStore } from "../logs/log-store.ts";

/** Log bytes of one worker in memory, above its credit; more are not read from its stream. */
const MAX_PENDING_LOG_BYTES = 16 * 1024 * 1024;
const RETRY = { baseMs: 200, maxMs: 5_000 };

export interface LogIntakeOptions {
  logs: Pick<LogStore, "append">;
  clock: Clock;
  random: Random;
  log: Logger;
  /** Aborts when the stream has ended. */
  signal: AbortSignal;
  /** Whether the attempt is still one of this worker's. */
  isWanted(attemptId: string): boolean;
  /** The log of an attempt is on disk up to `length`. */
  onDurable(attemptId: string, length: number): void;
  /** The log of an attempt was ended without these bytes. */
  onEnded(attemptId: string): void;
  /** The worker has to send again from where the log ends: on a new stream. */
  onBroken(reason: string): void;
}

interface Piece {
  offset: number;
  data: Uint8Array;
}

/** What is under way of one attempt. */
interface Line {
  readonly attemptId: string;
  inFlight: number;
  /** Was not taken, and waits for those in flight or for the disk. */
  kept: Piece[];
  isRefused: boolean;
  isRecovering: boolean;
  readonly backoff: Backoff;
}

export class LogIntake {
  readonly #options: LogIntakeOptions;
  readonly #lines = new Map<string, Line>();
  #pendingBytes = 0;
  #wakers: (() => void)[] = [];

  constructor(options: LogIntakeOptions) {
    this.#options = options;
    options.signal.addEventListener("abort", () => this.#wake(), { once: true });
  }

  /** Takes a piece, which must not be changed afterwards. */
  take(attemptId: string, offset: number, data: Uint8Array): void {
    const piece = { offset, data };
    this.#pendingBytes += data.byteLength;
    const line = this.#lines.get(attemptId) ?? this.#newLine(attemptId);
    if (line.isRecovering) line.kept.push(piece);
    else void this.#send(line, piece);
  }

  /** No more may be read from the worker, see `room`. */
  get isFull(): boolean {
    return this.#pendingBytes > MAX_PENDING_LOG_BYTES && !this.#options.signal.aborted;
  }

  /** Resolves when more may be read from the worker. */
  async room(): Promise<void> {
    while (this.isFull) {
      await new Promise<void>((resolve) => this.#wakers.push(resolve));
    }
  }

  #newLine(attemptId: string): Line {
    const backoff = new Backoff(RETRY, this.#options.random);
    const line: Line = {
      attemptId,
      inFlight: 0,
      kept: [],
      isRefused: false,
      isRecovering: false,
      backoff,
    };
    this.#lines.set(attemptId, line);
    return line;
  }

  async #send(line: Line, piece: Piece): Promise<void> {
    line.inFlight += 1;
    const outcome = await this.#append(line, piece);
    line.inFlight -= 1;
    if (outcome === "done") this.#free([piece]);
    else line.kept.push(piece);
    if (line.inFlight === 0) await this.#settle(line);
  }

  /** All answers are there: what was refused made gaps for those behind it. */
  async #settle(line: Line): Promise<void> {
    if (line.kept.length === 0) {
      this.#lines.delete(line.attemptId);
      return;
    }
    line.kept.sort((a, b) => a.offset - b.offset);
    line.isRecovering = true;
    const isTaken = await this.#retryFirst(line);
    line.isRecovering = false;
    const rest = line.kept.splice(0);
    if (!isTaken || rest.length === 0) {
      this.#lines.delete(line.attemptId);
      this.#free(rest);
      return;
    }
    for (const piece of rest) void this.#send(line, piece);
  }

  /** False if the stream has ended, or must end, or nobody wants this log any more. */
  async #retryFirst(line: Line): Promise<boolean> {
    const { clock, signal, isWanted, onBroken } = this.#options;
    for (;;) {
      if (line.isRefused) await clock.sleep(line.backoff.nextDelayMs(), signal);
      const [first] = line.kept;
      if (first === undefined || signal.aborted || !isWanted(line.attemptId)) return false;
      line.isRefused = false;
      const outcome = await this.#append(line, first);
      if (outcome === "gap") {
        onBroken("log is missing in between");
        return false;
      }
      if (outcome === "refused") continue;
      line.backoff.reset();
      line.kept.shift();
      this.#free([first]);
      return true;
    }
  }

  async #append(line: Line, { offset, data }: Piece): Promise<"done" | "gap" | "refused"> {
    const { logs, log, signal, onDurable, onEnded, onBroken } = this.#options;
    const { attemptId } = line;
    try {
      const appended = await logs.append(attemptId, offset, data);
      if (!appended.ok && appended.refusal === "gap") return "gap";
      if (appended.ok) onDurable(attemptId, appended.length);
      else onEnded(attemptId);
      return "done";
    } catch (error) {
      if (error instanceof AppError && ERROR_CODES[error.code].retryable) {
        line.isRefused = true;
        return "refused";
      }
      // Not acknowledged, so still on the worker's disk: it is sent again after a reconnect.
      if (!signal.aborted) log.error({ err: error, attemptId }, "could not store log");
      onBroken("the server could not store log");
      return "done";
    }
  }

  #free(pieces: readonly Piece[]): void {
    for (const { data } of pieces) this.#pendingBytes -= data.byteLength;
    this.#wake();
  }

  #wake(): void {
    for (const wake of this.#wakers.splice(0)) wake();
  }
}
