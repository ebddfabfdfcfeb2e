/**
 * The network between workers and the server: calls and streams that can be held, stalled or cut.
 *
 * It stands in for HTTP/2 and nothing else: the worker's end is the client that the real ServerLink
 * uses, the server's end calls the real handlers of link-api.ts.
 */

import { Code, ConnectError, type HandlerContext } from "@connectrpc/connect";
import type { Dialled } from "../src/agent/server-link.ts";
import { toConnectError } from "../src/protocol/errors.ts";
import type {
  RegisterRequest,
  WorkerStreamRequest,
  WorkerStreamResponse,
} from "../src/protocol/gen/hodei/v1/workers_pb.ts";
import type { linkApi } from "../src/server/workers/link-api.ts";
import { Lane, type WireConditions } from "./lane.ts";
import type { SimProcess } from "./sim-process.ts";
import type { SimRandom } from "./sim-random.ts";
import type { VirtualTime } from "./virtual-time.ts";

/** A server that listens now. */
export interface Listener {
  process: SimProcess;
  link: ReturnType<typeof linkApi>;
}

export interface NetworkFaults {
  /** How often the far end never hears that a connection was cut or its peer died. */
  halfOpen: number;
}

export class SimNetwork {
  readonly time: VirtualTime;
  readonly random: SimRandom;
  readonly conditions: WireConditions;
  readonly faults: NetworkFaults;
  listener: Listener | null = null;

  constructor(deps: {
    time: VirtualTime;
    random: SimRandom;
    conditions: WireConditions;
    faults: NetworkFaults;
  }) {
    this.time = deps.time;
    this.random = deps.random;
    this.conditions = deps.conditions;
    this.faults = deps.faults;
  }
}

/** The way of one worker to the server. */
export class SimLink {
  readonly network: SimNetwork;
  /** Connections that exist, also those that only one end believes in. */
  readonly calls = new Set<OpenCall>();
  #isAway = false;

  constructor(network: SimNetwork) {
    this.network = network;
  }

  get isAway(): boolean {
    return this.#isAway;
  }

  /** Nothing gets through in either direction until the network is back. */
  goAway(): void {
    this.#isAway = true;
    for (const call of this.calls) call.hold();
  }

  comeBack(): void {
    this.#isAway = false;
    for (const call of this.calls) call.release();
  }

  /** Every connection breaks; each end notices at once, later, or only by the silence. */
  cut(): void {
    for (const call of this.calls) call.cut();
  }

  /** One old connection stands still while new ones work; what it held arrives late. */
  stall(durationMs: number): void {
    const call = [...this.calls][0];
    if (!call) return;
    call.hold();
    this.network.time.schedule(durationMs, () => {
      if (!this.#isAway) call.release();
    });
  }

  dial(process: SimProcess): Dialled {
    const mine = new Set<OpenCall>();
    const start = <Result>(call: OpenCall, run: () => Result): Result => {
      mine.add(call);
      call.onOver(() => mine.delete(call));
      return run();
    };
    const client = {
      workerStream: (
        requests: AsyncIterable<WorkerStreamRequest>,
        options: { signal: AbortSignal; headers: Record<string, string> },
      ) => {
        const call = new StreamCall(this, process, options.headers);
        return start(call, () => call.run(requests, options.signal));
      },
      register: (request: RegisterRequest, options: { signal: AbortSignal; timeoutMs: number }) => {
        const call = new UnaryCall(this, process, (link, context) =>
          Promise.resolve(link.register(request, context)),
        );
        return start(call, () => call.run(options));
      },
      unregister: (
        _request: unknown,
        options: { headers: Record<string, string>; timeoutMs: number; signal?: AbortSignal },
      ) => {
        const call = new UnaryCall(
          this,
          process,
          (link, context) => Promise.resolve(link.unregister({} as never, context)),
          options.headers,
        );
        return start(call, () => call.run(options));
      },
    };
    return {
      client: client as unknown as Dialled["client"],
      close: () => {
        for (const call of [...mine]) call.abandon("the connection was closed");
      },
    };
  }
}

type Upward =
  | { type: "open" }
  | { type: "message"; message: WorkerStreamRequest }
  | { type: "abort" }
  | { type: "end" };
type Downward<T> = { type: "message"; message: T } | { type: "end" } | { type: "error"; error: ConnectError };

/** A call as the network sees it. */
export interface OpenCall {
  hold(): void;
  release(): void;
  cut(): void;
  abandon(reason: string): void;
  onOver(run: () => void): void;
}

/** What a stream and a single call have in common: two lanes and the server that took it. */
abstract class Call<T> implements OpenCall {
  protected readonly up: Lane<Upward>;
  protected readonly down: Lane<Downward<T>>;
  protected listener: Listener | null = null;
  protected readonly abort = new AbortController();
  readonly #link: SimLink;
  protected readonly process: SimProcess;
  protected readonly context: HandlerContext;
  #isOver = false;
  readonly #onOver: (() => void)[] = [];

  constructor(link: SimLink, process: SimProcess, headers: Record<string, string>) {
    this.#link = link;
    this.process = process;
    this.context = {
      requestHeader: new Headers(headers),
      signal: this.abort.signal,
    } as unknown as HandlerContext;
    const { time, random, conditions } = link.network;
    this.up = new Lane({ time, random, conditions, arrive: (item) => this.#arriveAtServer(item) });
    this.down = new Lane({
      time,
      random,
      conditions,
      arrive: (item) => this.process.deliver(() => this.hear(item)),
    });
    link.calls.add(this);
    if (link.isAway) this.hold();
    // The kernel closes the connections of a process that dies, if the machine lives.
    process.onDeath(() => {
      if (this.#isHalfOpen()) this.up.cut();
      else this.up.put({ type: "abort" });
      this.over();
    });
    this.up.put({ type: "open" });
  }

  hold(): void {
    this.up.hold();
    this.down.hold();
  }

  release(): void {
    this.up.release();
    this.down.release();
  }

  cut(): void {
    const { random } = this.#link.network;
    this.up.cut();
    this.down.cut();
    const error = new ConnectError("the connection was reset", Code.Unavailable);
    if (!this.#isHalfOpen())
      this.process.deliverAfter(random.between(0, 2_000), () => this.hear({ type: "error", error }));
    if (!this.#isHalfOpen())
      this.listener?.process.deliverAfter(random.between(0, 2_000), () =>
        this.hearAtServer({ type: "abort" }),
      );
  }

  /** The worker's end is given up, and the server's told of it if that can be. */
  abandon(reason: string): void {
    this.up.put({ type: "abort" });
    this.hear({ type: "error", error: new ConnectError(reason, Code.Canceled) });
  }

  onOver(run: () => void): void {
    this.#onOver.push(run);
  }

  /** The worker's end is done with it. The lanes may still carry what is under way. */
  protected over(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    for (const run of this.#onOver) run();
    this.#forgetLater();
  }

  #forgetLater(): void {
    // Kept for a while, so that an old connection can still deliver late what it held.
    this.#link.network.time.schedule(120_000, () => this.#link.calls.delete(this));
  }

  #isHalfOpen(): boolean {
    const { random, faults } = this.#link.network;
    return this.process.host.isSuspended || random.chance(faults.halfOpen);
  }

  #arriveAtServer(item: Upward): void {
    if (item.type === "open") {
      this.#open();
      return;
    }
    this.listener?.process.deliver(() => this.hearAtServer(item));
  }

  #open(): void {
    this.up.taken();
    const { listener, random, faults } = this.#link.network;
    if (listener === null) {
      this.down.put({ type: "error", error: new ConnectError("connection refused", Code.Unavailable) });
      return;
    }
    this.listener = listener;
    listener.process.onDeath(() => {
      if (random.chance(faults.halfOpen)) this.down.cut();
      else this.down.put({ type: "error", error: new ConnectError("connection reset", Code.Unavailable) });
    });
    listener.process.deliver(() => void this.serve(listener));
  }

  protected sayError(error: unknown): void {
    this.down.put({ type: "error", error: toConnectError(error, () => "sim") });
  }

  protected abstract serve(listener: Listener): Promise<void>;
  protected abstract hear(item: Downward<T>): void;
  protected abstract hearAtServer(item: Upward): void;
}

class UnaryCall extends Call<unknown> {
  readonly #handle: (link: Listener["link"], context: HandlerContext) => Promise<unknown>;
  #settle: (item: Downward<unknown>) => void = () => {};

  constructor(
    link: SimLink,
    process: SimProcess,
    handle: (link: Listener["link"], context: HandlerContext) => Promise<unknown>,
    headers: Record<string, string> = {},
  ) {
    super(link, process, headers);
    this.#handle = handle;
  }

  async run(options: { signal?: AbortSignal; timeoutMs: number }): Promise<unknown> {
    const giveUp = (code: Code) => (): void =>
      this.hear({ type: "error", error: new ConnectError("given up", code) });
    const callOff = this.process.clock.schedule(options.timeoutMs, giveUp(Code.DeadlineExceeded));
    const onAbort = giveUp(Code.Canceled);
    options.signal?.addEventListener("abort", onAbort, { once: true });
    try {
      return await new Promise((resolve, reject) => {
        this.#settle = (item) => {
          if (item.type === "message") resolve(item.message);
          else if (item.type === "error") reject(item.error);
        };
      });
    } finally {
      callOff();
      options.signal?.removeEventListener("abort", onAbort);
      this.over();
    }
  }

  protected override async serve({ link }: Listener): Promise<void> {
    try {
      this.down.put({ type: "message", message: await this.#handle(link, this.context) });
    } catch (error) {
      this.sayError(error);
    }
  }

  protected override hear(item: Downward<unknown>): void {
    this.#settle(item);
  }

  protected override hearAtServer(item: Upward): void {
    if (item.type === "abort") this.abort.abort();
  }
}

class StreamCall extends Call<WorkerStreamResponse> {
  readonly #incoming = new Mailbox<WorkerStreamRequest>(() => this.up.taken());
  readonly #answers = new Mailbox<WorkerStreamResponse>(() => this.down.taken());

  run(
    requests: AsyncIterable<WorkerStreamRequest>,
    signal: AbortSignal,
  ): AsyncIterable<WorkerStreamResponse> {
    void this.#pump(requests);
    const onAbort = (): void => this.abandon("the call was cancelled");
    if (signal.aborted) onAbort();
    else signal.addEventListener("abort", onAbort, { once: true });
    return this.#answers;
  }

  async #pump(requests: AsyncIterable<WorkerStreamRequest>): Promise<void> {
    try {
      for await (const request of requests) {
        const { message } = request;
        const bytes = message.case === "logBatch" ? message.value.data.byteLength : 0;
        this.up.put({ type: "message", message: request }, bytes);
        await this.up.room();
        if (this.#answers.isEnded) break;
      }
      this.up.put({ type: "end" });
    } catch {
      // The outbox overflowed: the transport resets the stream.
      this.abandon("the requests failed");
    }
  }

  protected override async serve({ link }: Listener): Promise<void> {
    const responses = link.workerStream(this.#incoming, this.context)[Symbol.asyncIterator]();
    this.abort.signal.addEventListener("abort", () => void responses.return?.(), { once: true });
    try {
      for (;;) {
        const next = await responses.next();
        if (next.done) break;
        if (this.abort.signal.aborted) return;
        this.down.put({ type: "message", message: next.value as WorkerStreamResponse });
        await this.down.room();
      }
      this.down.put({ type: "end" });
    } catch (error) {
      this.sayError(error);
    } finally {
      // The transport ends the requests together with the response.
      this.#incoming.end(new ConnectError("the stream is over", Code.Canceled));
    }
  }

  protected override hear(item: Downward<WorkerStreamResponse>): void {
    if (item.type === "message") this.#answers.push(item.message);
    else this.#answers.end(item.type === "error" ? item.error : null);
    if (item.type !== "message") this.over();
  }

  protected override hearAtServer(item: Upward): void {
    if (item.type === "message") this.#incoming.push(item.message);
    else if (item.type === "end") this.#incoming.end(null);
    else {
      this.#incoming.end(new ConnectError("the worker has left", Code.Canceled));
      this.abort.abort(new ConnectError("the worker has left", Code.Canceled));
    }
  }
}

/** What has arrived, for one reader. */
class Mailbox<T> implements AsyncIterable<T> {
  readonly #items: T[] = [];
  readonly #taken: () => void;
  #end: { error: ConnectError | null } | null = null;
  #wake: () => void = () => {};

  constructor(taken: () => void) {
    this.#taken = taken;
  }

  get isEnded(): boolean {
    return this.#end !== null;
  }

  push(item: T): void {
    if (this.#end) return;
    this.#items.push(item);
    this.#wake();
  }

  /** An error overtakes what waits, as a reset does. */
  end(error: ConnectError | null): void {
    if (this.#end) return;
    this.#end = { error };
    if (error) this.#items.length = 0;
    this.#wake();
  }

  [Symbol.asyncIterator](): AsyncIterator<T> {
    return {
      next: async () => {
        for (;;) {
          const item = this.#items.shift();
          if (item !== undefined) {
            this.#taken();
            return { done: false, value: item };
          }
          if (this.#end?.error) throw this.#end.error;
          if (this.#end) return { done: true, value: undefined };
          await new Promise<void>((resolve) => {
            this.#wake = resolve;
          });
        }
      },
      return: async () => {
        this.end(null);
        return { done: true, value: undefined };
      },
    };
  }
}
