/**
 * The worker's stream to the server: opens it, keeps it open, and opens it again for ever.
 *
 * A network that swallows packets looks like an open stream, so silence is a failure too: a server
 * that has not answered a heartbeat for a while is left and dialled again.
 */

import { createClient, Code, ConnectError, type Client } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { Backoff } from "../base/backoff.ts";
import type { Clock } from "../base/clock.ts";
import { AppError, errorMessage } from "../base/errors.ts";
import type { Logger } from "../base/log.ts";
import { Outbox } from "../base/outbox.ts";
import type { Random } from "../base/random.ts";
import type { Service } from "../base/service.ts";
import { HEARTBEAT_INTERVAL_MS } from "../core/lease.ts";
import type { ServerMessage, WorkerMessage } from "../core/link.ts";
import { serverMessageFromWire, workerMessageToWire } from "../protocol/convert-link.ts";
import { WorkerService, type WorkerStreamRequest } from "../protocol/gen/hodei/v1/workers_pb.ts";

/** A dialled server: the client for it and the connection below. */
export interface Dialled {
  client: Client<typeof WorkerService>;
  /** Ends the connection with all its calls; the next call opens a new one. */
  close(): void;
}

/** HTTP/2 pings would only repeat what the heartbeats on the stream say. */
export function dial(serverUrl: string): Dialled {
  const sessionManager = new Http2SessionManager(
    serverUrl,
    {},
    { settings: { initialWindowSize: 1024 * 1024 } },
  );
  const transport = createGrpcTransport({
    baseUrl: serverUrl,
    sessionManager,
    writeMaxBytes: 64 * 1024 * 1024,
  });
  return { client: createClient(WorkerService, transport), close: () => sessionManager.abort() };
}

export interface ServerLinkOptions {
  server: Dialled;
  sessionToken: string;
  clock: Clock;
  random: Random;
  log: Logger;
  hello(): WorkerMessage;
  onMessage(message: ServerMessage): void;
  onClosed(): void;
  /** The next piece of log, when nothing more urgent waits. */
  nextLog(): Promise<WorkerMessage | null>;
  /** The server does not know this worker any more: nothing is left to do here. */
  onRevoked(message: string): void;
}

export const SILENCE_MS = 2.5 * HEARTBEAT_INTERVAL_MS;
/**
 * A stream that has lasted this long was a good one: the wait before the next begins small again. One
 * that ends sooner is the sign of a server that fails, which must not be asked in a tight loop.
 */
const GOOD_STREAM_MS = 2_000;
const MAX_WAITING_MESSAGES = 50_000;

export class ServerLink implements Service {
  readonly #options: ServerLinkOptions;
  readonly #stopped = new AbortController();
  readonly #done: Promise<void>;
  readonly #backoff: Backoff;
  #outbox: Outbox<WorkerMessage> | null = null;
  #stream: AbortController | null = null;
  #shouldHurry = false;
  #onlineSinceMs: number | null = null;
  /** Since when no server has been there; null while one is. */
  offlineSinceMs: number | null;

  constructor(options: ServerLinkOptions) {
    this.#options = options;
    this.#backoff = new Backoff({ baseMs: 200, maxMs: 10_000 }, options.random);
    this.offlineSinceMs = options.clock.monotonicMs();
    this.#done = this.#keepOpen();
  }

  /** Dropped while offline. */
  send(message: WorkerMessage): void {
    this.#outbox?.push(message);
  }

  /** Says that `nextLog` may have something. */
  wake(): void {
    this.#outbox?.wake();
  }

  /** Leaves this stream and opens a new one, without waiting if this one was good. */
  reconnect(): void {
    this.#shouldHurry = true;
    this.#stream?.abort();
  }

  async stop(): Promise<void> {
    this.#stopped.abort();
    this.#stream?.abort();
    await this.#done;
  }

  async #keepOpen(): Promise<void> {
    const { clock, log } = this.#options;
    const { signal } = this.#stopped;
    while (!signal.aborted) {
      try {
        await this.#runStream();
      } catch (error) {
        if (signal.aborted) return;
        if (ConnectError.from(error).code === Code.Unauthenticated) {
          this.#options.onRevoked(errorMessage(error));
          return;
        }
        log.warn({ err: errorMessage(error) }, "stream to the server ended");
      } finally {
        this.#outbox = null;
        this.offlineSinceMs ??= clock.monotonicMs();
        this.#options.onClosed();
      }
      await clock.sleep(this.#nextDelayMs(), signal);
    }
  }

  #nextDelayMs(): number {
    const since = this.#onlineSinceMs;
    const wasGood = since !== null && this.#options.clock.monotonicMs() - since >= GOOD_STREAM_MS;
    if (wasGood) this.#backoff.reset();
    const delayMs = wasGood && this.#shouldHurry ? 20 : this.#backoff.nextDelayMs();
    this.#onlineSinceMs = null;
    this.#shouldHurry = false;
    return delayMs;
  }

  async #runStream(): Promise<void> {
    const { server, sessionToken, onMessage } = this.#options;
    const stream = new AbortController();
    this.#stream = stream;
    const outbox = new Outbox<WorkerMessage>({
      maxWaiting: MAX_WAITING_MESSAGES,
      overflow: () => new AppError("resource_exhausted", "the server does not read the stream"),
      filler: () => this.#options.nextLog(),
    });
    outbox.push(this.#options.hello());
    const watch = this.#watchSilence(stream);
    try {
      const responses = server.client.workerStream(toWire(outbox), {
        signal: stream.signal,
        headers: { authorization: `Bearer ${sessionToken}` },
      });
      for await (const response of responses) {
        watch.heard();
        const message = serverMessageFromWire(response);
        if (message === null) continue;
        if (message.type === "welcome") this.#onWelcome(outbox);
        onMessage(message);
      }
    } finally {
      watch.stop();
      outbox.end();
      stream.abort();
    }
  }

  #onWelcome(outbox: Outbox<WorkerMessage>): void {
    this.#outbox = outbox;
    this.offlineSinceMs = null;
    this.#onlineSinceMs = this.#options.clock.monotonicMs();
  }

  #watchSilence(stream: AbortController): { heard(): void; stop(): void } {
    const { clock, server } = this.#options;
    let callOff = (): void => {};
    const onSilence = (): void => {
      stream.abort(new Error("the server is silent"));
      // A new stream on the same connection would be as silent.
      server.close();
    };
    const heard = (): void => {
      callOff();
      callOff = clock.schedule(SILENCE_MS, onSilence);
    };
    heard();
    return { heard, stop: () => callOff() };
  }
}

async function* toWire(messages: AsyncIterable<WorkerMessage>): AsyncGenerator<WorkerStreamRequest> {
  for await (const message of messages) yield workerMessageToWire(message);
}
