/** The log of an attempt, from its pipes to the spool, and telling the agent how far it is. */

import type { Clock } from "../../base/clock.ts";
import type { Logger } from "../../base/log.ts";
import { MAX_RECORD_DATA_BYTES, type LogStreamName } from "../../core/log-record.ts";
import { frameChunk } from "./log-chunks.ts";
import { LogSpool } from "./log-spool.ts";
import type { OutputPipe, PipePool } from "./output-pipe.ts";

/** The agent is told at once, then at most this often … */
const TELL_INTERVAL_MS = 5;
/** … unless so much is new. */
const TELL_BYTES = 256 * 1024;

export interface AttemptLogOptions {
  directory: string;
  limitBytes: number;
  pipes: PipePool;
  clock: Clock;
  log: Logger;
  tell: (logEnd: number) => void;
}

export class AttemptLog {
  readonly #options: AttemptLogOptions;
  readonly #spool: LogSpool;
  #pipes: OutputPipe[] = [];
  #told = 0;
  #toldAtMs = 0;
  #callOffTell: (() => void) | null = null;
  /** Once the processes are gone there is a bounded rest, which is taken whatever the limit. */
  #draining = false;

  constructor(options: AttemptLogOptions) {
    this.#options = options;
    const { directory, limitBytes, clock, log } = options;
    this.#spool = new LogSpool({
      directory,
      limitBytes,
      clock,
      log,
      onGrow: () => this.#grew(),
      onRoom: () => this.#pipes.forEach((pipe) => pipe.resume()),
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

  /** Closes the pipes and takes what was in them. The processes of the attempt are gone. */
  closePipes(): void {
    this.#draining = true;
    for (const pipe of this.#pipes.splice(0)) this.#options.pipes.release(pipe);
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
    this.#spool.append(frameChunk(stream, this.#options.clock.nowMs(), chunk));
    if (this.#spool.isFull && !this.#draining) this.#pipes.forEach((pipe) => pipe.pause());
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
