/**
 * A road of its own for one worker, so that it can be cut off while others go on: its agent is told
 * to dial a port of this process, which passes everything on to the server.
 */

import { once } from "node:events";
import { readFile, writeFile } from "node:fs/promises";
import { connect, createServer, type AddressInfo, type Server, type Socket } from "node:net";
import { join } from "node:path";
import { eventually } from "../../src/base/eventually.ts";
import { signalProcess } from "../../src/base/process-identity.ts";
import type { Service } from "../../src/base/service.ts";
import type { Cluster } from "../cluster.ts";
import { NetworkFaults } from "../network-faults.ts";

const REDIRECT_TIMEOUT_MS = 30_000;

export class WorkerRelay implements Service {
  /** Of this road alone. */
  readonly network: NetworkFaults;
  readonly #server: Server;
  readonly #sockets: Set<Socket>;

  private constructor(server: Server, sockets: Set<Socket>) {
    this.#server = server;
    this.#sockets = sockets;
    this.network = new NetworkFaults((server.address() as AddressInfo).port);
  }

  static async open(cluster: Cluster): Promise<WorkerRelay> {
    const sockets = new Set<Socket>();
    const server = createServer((near) => {
      const far = connect(cluster.grpcPort, "127.0.0.1");
      for (const [from, to] of [
        [near, far],
        [far, near],
      ] as const) {
        sockets.add(from);
        from.pipe(to);
        from.on("error", () => to.destroy());
        from.on("close", () => {
          sockets.delete(from);
          to.destroy();
        });
      }
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    return new WorkerRelay(server, sockets);
  }

  /** Kills the agent of a worker; its provider starts it again, with this road as its server. */
  async redirect(cluster: Cluster, workerId: string): Promise<void> {
    const worker = (await cluster.workers()).find((candidate) => candidate.workerId === workerId);
    if (!worker?.agent) throw new Error(`redirect worker ${workerId}: it has no agent`);
    const path = join(worker.directory, "agent.json");
    const environment = JSON.parse(await readFile(path, "utf8")) as Record<string, string>;
    const { port } = this.#server.address() as AddressInfo;
    environment["HODEI_SERVER"] = `http://127.0.0.1:${port}`;
    await writeFile(path, JSON.stringify(environment));
    signalProcess(worker.agent, "SIGKILL");
    await eventually(() => this.#sockets.size > 0, {
      timeoutMs: REDIRECT_TIMEOUT_MS,
      what: `the new agent of worker ${workerId}`,
    });
  }

  async stop(): Promise<void> {
    await this.network.heal();
    if (!this.#server.listening) return;
    const closed = once(this.#server, "close");
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }
}
