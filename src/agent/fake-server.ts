/** The far end of an agent's connection, for tests: a real gRPC port whose answers the test gives. */

import * as http2 from "node:http2";
import type { AddressInfo } from "node:net";
import { ConnectError, Code } from "@connectrpc/connect";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import { eventually } from "../base/eventually.ts";
import { Outbox } from "../base/outbox.ts";
import type { ServerMessage, WorkerMessage } from "../core/link.ts";
import { serverMessageToWire, workerMessageFromWire } from "../protocol/convert-link.ts";
import {
  WorkerService,
  type RegisterRequest,
  type WorkerStreamRequest,
  type WorkerStreamResponse,
} from "../protocol/gen/hodei/v1/workers_pb.ts";

export class FakeStream {
  readonly token: string;
  readonly heard: WorkerMessage[] = [];
  readonly outbox = new Outbox<ServerMessage>({
    maxWaiting: 1_000,
    overflow: () => new Error("too much to say"),
  });
  isOpen = true;

  constructor(token: string) {
    this.token = token;
  }

  send(message: ServerMessage): void {
    this.outbox.push(message);
  }

  welcome(): void {
    this.send({
      type: "welcome",
      heartbeatIntervalMs: 1,
      leaseMs: 1,
      attempts: [],
      logCreditBytes: 1_000_000,
    });
  }

  async next<T extends WorkerMessage["type"]>(type: T): Promise<Extract<WorkerMessage, { type: T }>> {
    const isWanted = (message: WorkerMessage): message is Extract<WorkerMessage, { type: T }> =>
      message.type === type;
    return await eventually(() => this.heard.find(isWanted), { what: `message ${type}` });
  }
}

export class FakeServer {
  readonly registrations: RegisterRequest[] = [];
  readonly streams: FakeStream[] = [];
  unregistrations = 0;
  /** Throw to refuse. */
  onRegister: () => void = () => {};
  onStream: () => void = () => {};
  onUnregister: () => void = () => {};
  readonly #server: http2.Http2Server;
  readonly #sessions = new Set<http2.ServerHttp2Session>();

  private constructor() {
    const handle = connectNodeAdapter({
      routes: (router) => {
        router.service(WorkerService, {
          register: (request) => this.#register(request),
          workerStream: (requests, context) => this.#stream(requests, context.requestHeader),
          unregister: () => {
            this.onUnregister();
            this.unregistrations += 1;
            return {};
          },
        });
      },
    });
    this.#server = http2.createServer(handle);
    this.#server.on("session", (session) => {
      this.#sessions.add(session);
      session.on("error", () => session.destroy());
      session.once("close", () => this.#sessions.delete(session));
    });
  }

  static async start(port = 0): Promise<FakeServer> {
    const fake = new FakeServer();
    await new Promise<void>((resolve, reject) => {
      fake.#server.once("error", reject);
      fake.#server.listen(port, "127.0.0.1", resolve);
    });
    return fake;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  /** How many connections there are. */
  get connections(): number {
    return this.#sessions.size;
  }

  /** The stream with this number, counted from 0, once its hello is there. */
  async stream(index: number): Promise<FakeStream> {
    const stream = await eventually(() => this.streams[index], { what: `stream ${index}` });
    await stream.next("hello");
    return stream;
  }

  async stop(): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    for (const session of this.#sessions) session.destroy();
    await closed;
  }

  #register(request: RegisterRequest): { workerId: string; sessionToken: string } {
    this.registrations.push(request);
    this.onRegister();
    return { workerId: request.worker?.workerId ?? "", sessionToken: `session-${this.registrations.length}` };
  }

  async *#stream(
    requests: AsyncIterable<WorkerStreamRequest>,
    headers: Headers,
  ): AsyncGenerator<WorkerStreamResponse> {
    this.onStream();
    const stream = new FakeStream((headers.get("authorization") ?? "").replace("Bearer ", ""));
    this.streams.push(stream);
    void this.#listen(stream, requests);
    for await (const message of stream.outbox) yield serverMessageToWire(message);
  }

  async #listen(stream: FakeStream, requests: AsyncIterable<WorkerStreamRequest>): Promise<void> {
    try {
      for await (const request of requests) {
        const message = workerMessageFromWire(request);
        // The bytes of a message are valid until the next one is made.
        if (message) stream.heard.push(structuredClone(message));
      }
    } catch {
      // The worker left or was cut off: the test looks at `isOpen`.
    } finally {
      stream.isOpen = false;
      stream.outbox.end();
    }
  }
}

export const refuse = (code: Code, text: string) => (): never => {
  throw new ConnectError(text, code);
};
