/** A container engine whose containers do nothing, and which misbehaves as it is told to. */

import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";

type Answer = [status: number, body: unknown];

export class FakeEngine {
  readonly socket: string;
  /** Everything that was asked of it, as `GET /_ping`. */
  readonly asked: string[] = [];
  /** What every creation of a container fails with. */
  sickness: string | null = null;
  hasImage = true;
  /** Labels by name. */
  readonly containers = new Map<string, Record<string, string>>();
  readonly #server: Server;
  /** Every answer waits for it. */
  #awake = Promise.resolve();
  #wake = (): void => {};

  private constructor(socket: string) {
    this.socket = socket;
    this.#server = createServer((request, response) => void this.#answer(request, response));
  }

  static async start(socket: string): Promise<FakeEngine> {
    const engine = new FakeEngine(socket);
    await new Promise<void>((resolve) => engine.#server.listen(socket, resolve));
    return engine;
  }

  get host(): string {
    return `unix://${this.socket}`;
  }

  /** Connects and never answers, until it wakes. */
  hang(): void {
    this.#awake = new Promise((resolve) => (this.#wake = resolve));
  }

  wake(): void {
    this.#wake();
  }

  async stop(): Promise<void> {
    const closed = new Promise((resolve) => this.#server.close(resolve));
    this.#server.closeAllConnections();
    await closed;
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { method = "", url = "" } = request;
    const { pathname, searchParams } = new URL(url, "http://engine");
    this.asked.push(`${method} ${pathname}`);
    const chunks: Buffer[] = [];
    for await (const chunk of request as AsyncIterable<Buffer>) chunks.push(chunk);
    await this.#awake;
    if (pathname === "/events") {
      // Nothing ever happens here.
      response.writeHead(200).flushHeaders();
      return;
    }
    const name = searchParams.get("name") ?? "";
    const [status, body] = this.#work(`${method} ${pathname}`, { name, sent: Buffer.concat(chunks) });
    response.writeHead(status).end(method === "HEAD" || status === 204 ? undefined : JSON.stringify(body));
  }

  #work(call: string, { name, sent }: { name: string; sent: Buffer }): Answer {
    const [, container = ""] = /\/containers\/(hodei-[^/]+)/.exec(call) ?? [];
    const missing: Answer = [404, { message: "no such thing" }];
    if (call === "POST /containers/create") {
      if (this.sickness !== null) return [500, { message: this.sickness }];
      const { Labels } = JSON.parse(sent.toString()) as { Labels: Record<string, string> };
      this.containers.set(name, Labels);
      return [201, { Id: name }];
    }
    if (call === "GET /containers/json") {
      const all = [...this.containers].map(([Id, Labels]) => ({ Id, Labels }));
      return [200, all.filter(({ Labels }) => Labels["hodei.worker"] !== undefined)];
    }
    if (call.startsWith("DELETE /containers/"))
      return this.containers.delete(container) ? [204, null] : missing;
    if (container !== "" && !this.containers.has(container)) return missing;
    if (call.startsWith("GET /containers/")) {
      return [200, { Id: container, State: { Status: "running", Running: true, Paused: false } }];
    }
    if (call.startsWith("GET /images/")) return this.hasImage ? [200, { Config: { Env: [] } }] : missing;
    if (call === "GET /info") return [200, { OSType: "linux" }];
    if (call === "GET /volumes") return [200, { Volumes: [] }];
    return [200, {}];
  }
}
