/** A worker of the test's own making, over a real connection to the real worker port. */

import { createClient, type Client } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { eventually } from "../../base/eventually.ts";
import { Outbox } from "../../base/outbox.ts";
import { uuidV4 } from "../../base/random.ts";
import {
  PROTOCOL_VERSION,
  type HeldAttempt,
  type ServerMessage,
  type WorkerMessage,
} from "../../core/link.ts";
import { sampleWorker } from "../../core/session-fixtures.ts";
import { serverMessageFromWire, workerMessageToWire } from "../../protocol/convert-link.ts";
import { workerInfoToWire } from "../../protocol/convert-worker.ts";
import { WorkerService } from "../../protocol/gen/hodei/v1/workers_pb.ts";

export class FakeWorker {
  readonly workerId: string;
  readonly #sessions: Http2SessionManager;
  readonly #client: Client<typeof WorkerService>;
  sessionToken = "";

  constructor(url: string, workerId: string) {
    this.workerId = workerId;
    this.#sessions = new Http2SessionManager(url);
    this.#client = createClient(
      WorkerService,
      createGrpcTransport({ baseUrl: url, sessionManager: this.#sessions }),
    );
  }

  get info() {
    return { ...sampleWorker, workerId: this.workerId };
  }

  /** With this one-time token. */
  async register(
    token: string,
    changes: { registrationKey?: string; workerId?: string } = {},
  ): Promise<void> {
    const worker = workerInfoToWire({ ...this.info, workerId: changes.workerId ?? this.workerId });
    const registrationKey = changes.registrationKey ?? uuidV4();
    const answer = await this.#client.register({
      token,
      worker,
      protocolVersion: PROTOCOL_VERSION,
      registrationKey,
    });
    this.sessionToken = answer.sessionToken;
  }

  async unregister(): Promise<void> {
    await this.#client.unregister({ reason: "test" }, { headers: this.#headers() });
  }

  /** A stream that has said hello. */
  open(attempts: HeldAttempt[] = []): FakeWorkerStream {
    const stream = new FakeWorkerStream((outbox, signal) =>
      this.#client.workerStream(toWire(outbox), { headers: this.#headers(), signal }),
    );
    stream.send({ type: "hello", worker: this.info, attempts, draining: false, runnerId: "" });
    return stream;
  }

  /** A stream that was welcomed. */
  async connect(attempts: HeldAttempt[] = []): Promise<FakeWorkerStream> {
    const stream = this.open(attempts);
    await stream.next("welcome");
    return stream;
  }

  close(): void {
    this.#sessions.abort();
  }

  #headers(): Record<string, string> {
    return { authorization: `Bearer ${this.sessionToken}` };
  }
}

type Open = (
  outbox: Outbox<WorkerMessage>,
  signal: AbortSignal,
) => AsyncIterable<Parameters<typeof serverMessageFromWire>[0]>;

export class FakeWorkerStream {
  readonly heard: ServerMessage[] = [];
  /** Null while it is open, or after an end without an error. */
  error: unknown = null;
  isOpen = true;
  readonly #outbox = new Outbox<WorkerMessage>({
    maxWaiting: 1_000,
    overflow: () => new Error("too much to say"),
  });
  readonly #stop = new AbortController();

  constructor(open: Open) {
    void this.#listen(open);
  }

  send(message: WorkerMessage): void {
    this.#outbox.push(message);
  }

  /** The first message of a type that fits, heard already or to come. */
  async next<T extends ServerMessage["type"]>(
    type: T,
    fits: (message: Extract<ServerMessage, { type: T }>) => boolean = () => true,
  ): Promise<Extract<ServerMessage, { type: T }>> {
    const isWanted = (message: ServerMessage): message is Extract<ServerMessage, { type: T }> =>
      message.type === type && fits(message as Extract<ServerMessage, { type: T }>);
    return await eventually(
      () => {
        const found = this.heard.find(isWanted);
        if (!found && !this.isOpen) throw new Error(`the stream ended before ${type}: ${String(this.error)}`);
        return found;
      },
      { what: `message ${type}` },
    );
  }

  async ended(): Promise<void> {
    await eventually(() => !this.isOpen, { what: "the end of the stream" });
  }

  /** As a network does that breaks. */
  cut(): void {
    this.#stop.abort();
    this.#outbox.end();
  }

  async #listen(open: Open): Promise<void> {
    try {
      for await (const response of open(this.#outbox, this.#stop.signal)) {
        const message = serverMessageFromWire(response);
        if (message) this.heard.push(message);
      }
    } catch (error) {
      this.error = error;
    } finally {
      this.isOpen = false;
      this.#outbox.end();
    }
  }
}

async function* toWire(messages: AsyncIterable<WorkerMessage>) {
  for await (const message of messages) yield workerMessageToWire(message);
}
