/** The log of an attempt, from its pipes to the spool, and telling the agent how far it is. */

import type { Clock } from "../../base/clock.ts";
import type { Logger } from "../../base/log.ts";
import { gapRecord } from "../../core/log-gap.ts";
import { MAX_RECORD_DATA_BYTES, type LogStreamName } from "../../core/log-record.ts";
import { frameChunk } from "./log-chunks.ts";
import { LogSpool, type LogSpoolOptions } from "./log-spool.ts";
import type { OutputPipe, PipePool } from "./output-pipe.ts";

/** The agent is told at once, then at most this often … */
const TELL_INTERVAL_MS = 5;
/** … unless so much is new. */
const TELL_BYTES = 256 * 1024;

export interface AttemptLogOptions {
  directory: string;
  limitBytes: number;
  /** Output that is recorded at most. */
  quotaBytes: number;
  pipes: PipePool;
  clock: Clock;
  log: Logger;
  tell: (logEnd: number) => void;
  /** Called once, when output is left out for the first time because the quota is used up. */
  onQuotaPassed: () => void;
  /** See `LogSpoolOptions`. */
  makeRoom: LogSpoolOptions["makeRoom"];
}

export class AttemptLog {
  readonly #options: AttemptLogOptions;
  readonly #spool: LogSpool;
  #pipes: OutputPipe[] = [];
  #told = 0;
  #toldAtMs = 0;
  #callOffTell: (() => void) | null = null;
  #takenBytes = 0;
  #leftOutBytes = 0;
  /** Once the processes are gone there is a bounded rest, which is taken whatever the limit. */
  #draining = false;

  constructor(options: AttemptLogOptions) {
    this.#options = options;
    const { directory, limitBytes, clock, log, makeRoom } = options;
    this.#spool = new LogSpool({
      directory,
      limitBytes,
      clock,
      log,
      onGrow: () => this.#grew(),
      onRoom: () => this.#pipes.forEach((pipe) => pipe.resume()),
      makeRoom,
    });
  }

  /** Bytes of log that can be read from the spool. */
  get end(): number {
    return this.#spool.end;
  }

  /** Opens the pipes; stdout and stderr of every step. */
  async open(): Promise<void> {
    for (const stream of ["stdout", "stderr"] as const) {
      this.#pipes.push(await this.#options.pipes.open((chunk) => this.#take(stream, chunk)));
    }
  }

  get stdoutFd(): number {
    return this.#pipes[0]?.writeFd ?? -1;
  }

  get stderrFd(): number {
    return this.#pipes[1]?.writeFd ?? -1;
  }

  /** Appends a line that Hodei itself has to say. */
  system(text: string): void {
    const bytes = Buffer.from(`${text}\n`).subarray(0, MAX_RECORD_DATA_BYTES);
    this.#spool.append(frameChunk("system", this.#options.clock.nowMs(), bytes));
  }

  /** Takes over, now, what was printed before. */
  drain(): void {
    this.#pipes.forEach((pipe) => pipe.drain());
  }

  acknowledge(bytes: number): void {
    this.#spool.acknowledge(bytes);
  }

  /** The attempt is to end, whether or not its log can be written. */
  hurry(): void {
    this.#spool.hurry();
  }

  get isQuotaPassed(): boolean {
    return this.#leftOutBytes > 0;
  }

  /** Closes the pipes and takes what was in them. The processes of the attempt are gone. */
  closePipes(): void {
    if (this.#draining) return;
    this.#draining = true;
    for (const pipe of this.#pipes.splice(0)) this.#options.pipes.release(pipe);
    if (this.#leftOutBytes > 0) this.#quotaGap(this.#leftOutBytes);
  }

  /** Resolves when all is on disk, with the number of bytes that the disk refused. */
  async close(): Promise<number> {
    this.closePipes();
    const lost = await this.#spool.close();
    this.#callOffTell?.();
    if (this.#told < this.#spool.end) this.#tell();
    return lost;
  }

  async remove(): Promise<void> {
    await this.#spool.remove();
  }

  /** The place where secrets will be redacted: every byte of a job passes here, once, in order. */
  #take(stream: LogStreamName, chunk: Buffer): void {
    const kept = chunk.subarray(0, this.#options.quotaBytes - this.#takenBytes);
    this.#takenBytes += kept.byteLength;
    if (kept.byteLength > 0) this.#spool.append(frameChunk(stream, this.#options.clock.nowMs(), kept));
    if (kept.byteLength < chunk.byteLength) this.#leaveOut(chunk.byteLength - kept.byteLength);
    const mayWait = !this.#draining && this.#leftOutBytes === 0;
    if (this.#spool.isFull && mayWait) this.#pipes.forEach((pipe) => pipe.pause());
  }

  /** From here on the job need not wait for anything: its output is thrown away. */
  #leaveOut(bytes: number): void {
    this.#leftOutBytes += bytes;
    if (this.#leftOutBytes > bytes) return;
    this.#quotaGap(null);
    this.#pipes.forEach((pipe) => pipe.resume());
    this.#options.onQuotaPassed();
  }

  #quotaGap(bytes: number | null): void {
    const { clock, quotaBytes } = this.#options;
    const { timeMs, data } = gapRecord({ reason: "log_quota", bytes, limitBytes: quotaBytes }, clock.nowMs());
    this.#spool.append(frameChunk("gap", timeMs, data));
  }

  #grew(): void {
    const { clock } = this.#options;
    const waitMs = this.#toldAtMs + TELL_INTERVAL_MS - clock.monotonicMs();
    if (waitMs <= 0 || this.#spool.end - this.#told >= TELL_BYTES) this.#tell();
    else this.#callOffTell ??= clock.schedule(waitMs, () => this.#tell());
  }

  #tell(): void {
    this.#callOffTell?.();
    this.#callOffTell = null;
    this.#told = this.#spool.end;
    this.#toldAtMs = this.#options.clock.monotonicMs();
    this.#options.tell(this.#told);
  }
}
