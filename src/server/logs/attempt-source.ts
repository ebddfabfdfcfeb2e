/**
 * The log of an attempt as readers see it: in its file until it is sealed, then in the blob store,
 * at the same places. A reader that is under way when that happens does not notice.
 */

import { AppError } from "../../base/errors.ts";
import type { LogSource, RecordFilter } from "./log-source.ts";
import type { AttemptLog } from "./raw/attempt-log.ts";
import type { RawSource } from "./raw/raw-source.ts";
import type { SealedLog } from "./sealed/sealed-log.ts";

export interface AttemptSourceParts {
  raw: RawSource;
  openSealed: () => Promise<SealedLog>;
  stopping: AbortSignal;
}

export class AttemptSource implements LogSource {
  readonly attemptId: string;
  readonly #attempt: AttemptLog;
  readonly #parts: AttemptSourceParts;

  constructor(attempt: AttemptLog, parts: AttemptSourceParts) {
    this.attemptId = attempt.attemptId;
    this.#attempt = attempt;
    this.#parts = parts;
  }

  length(): number {
    return this.#attempt.durable;
  }

  isFinal(): boolean {
    return this.#attempt.isFinal;
  }

  read(start: number, maxBytes: number): Promise<Uint8Array> {
    return this.#either(
      (raw) => raw.read(start, maxBytes),
      (sealed) => sealed.read(start, maxBytes),
    );
  }

  readBefore(end: number): Promise<Uint8Array> {
    return this.#either(
      (raw) => raw.readBefore(end),
      (sealed) => sealed.readBefore(end),
    );
  }

  async skipForward(start: number, filter: RecordFilter): Promise<number> {
    if (!this.#attempt.sealed) return start;
    return (await this.#parts.openSealed()).skipForward(start, filter);
  }

  async skipBack(end: number, filter: RecordFilter): Promise<number> {
    if (!this.#attempt.sealed) return end;
    return (await this.#parts.openSealed()).skipBack(end, filter);
  }

  isBoundary(offset: number): Promise<boolean> {
    return this.#either(
      (raw) => raw.isBoundary(offset),
      (sealed) => sealed.isBoundary(offset),
    );
  }

  boundaryBefore(end: number): Promise<number> {
    return this.#either(
      (raw) => raw.boundaryBefore(end),
      // The end of a sealed log is the end of a record, and may be before the end of the raw one.
      async (sealed) => sealed.length,
    );
  }

  async grown(bytes: number, signal: AbortSignal | undefined): Promise<void> {
    const { stopping } = this.#parts;
    if (this.#attempt.durable > bytes || this.#attempt.isFinal || signal?.aborted) return;
    this.#checkRunning();
    let callOff: () => void = () => {};
    let wake: () => void = () => {};
    await new Promise<void>((resolve) => {
      wake = resolve;
      callOff = this.#attempt.onceChanged(resolve);
      stopping.addEventListener("abort", wake, { once: true });
      signal?.addEventListener("abort", wake, { once: true });
    });
    callOff();
    stopping.removeEventListener("abort", wake);
    signal?.removeEventListener("abort", wake);
    this.#checkRunning();
  }

  async #either<T>(
    fromRaw: (raw: RawSource) => Promise<T | null>,
    fromSealed: (sealed: SealedLog) => Promise<T>,
  ): Promise<T> {
    this.#checkRunning();
    const answer = this.#attempt.sealed ? null : await fromRaw(this.#parts.raw);
    return answer ?? fromSealed(await this.#parts.openSealed());
  }

  #checkRunning(): void {
    if (!this.#parts.stopping.aborted) return;
    throw new AppError("unavailable", `read log of attempt ${this.attemptId}: the server is stopping`);
  }
}
