/**
 * What can happen to packets between the agents and the worker port. Works only in a network
 * namespace of our own (scripts/chaos.mjs makes it), so that nothing else on the machine is touched.
 *
 * Cuts and loss are rules of iptables. Delay and reordering are `tc netem` where the kernel has it;
 * else a token bucket, whose queue delays packets and drops those that do not fit.
 */

import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { AppError, errorMessage } from "../src/base/errors.ts";

const run = promisify(execFile);

/** Which packets: those of the agents, those of the server, or both. */
export type Direction = "to_server" | "to_agents" | "both";

export class NetworkFaults {
  readonly #port: string;
  readonly #rules: string[][] = [];

  constructor(workerPort: number) {
    this.#port = String(workerPort);
  }

  /** Whether this process may touch the network: root, in a namespace of its own, with iptables. */
  static async isPossible(): Promise<boolean> {
    if (process.env["HODEI_CHAOS_NAMESPACE"] !== "1") return false;
    return run("iptables", ["--version"]).then(
      () => true,
      () => false,
    );
  }

  /** Drops every packet in this direction, without a word to the sender, until `heal`. */
  async cut(direction: Direction): Promise<void> {
    await this.#drop(direction, []);
  }

  /** Drops packets at random, both ways. `part` is in (0, 1). */
  async lose(part: number): Promise<void> {
    await this.#drop("both", ["-m", "statistic", "--mode", "random", "--probability", part.toFixed(3)]);
  }

  /** Delays packets and puts them out of order. Returns how. */
  async slow(delayMs: number): Promise<string> {
    const jitterMs = Math.round(delayMs / 2);
    const netem = `netem delay ${delayMs}ms ${jitterMs}ms reorder 75% 50%`;
    try {
      await this.#queue(netem);
      return netem;
    } catch {
      // This kernel has no netem. Three megabits a second are few for several logs at once.
      const bucket = `tbf rate 3mbit burst 32kb latency ${delayMs}ms`;
      await this.#queue(bucket);
      return bucket;
    }
  }

  /** Takes back everything that was done. May be called twice. */
  async heal(): Promise<void> {
    for (const rule of this.#rules.splice(0)) await iptables("-D", rule);
    await run("tc", ["qdisc", "del", "dev", "lo", "root"]).catch(() => {
      // There was none.
    });
  }

  async #drop(direction: Direction, match: readonly string[]): Promise<void> {
    const sides =
      direction === "both" ? ["--dport", "--sport"] : [direction === "to_server" ? "--dport" : "--sport"];
    for (const side of sides) {
      const rule = ["-p", "tcp", side, this.#port, ...match, "-j", "DROP"];
      await iptables("-A", rule);
      this.#rules.push(rule);
    }
  }

  async #queue(discipline: string): Promise<void> {
    await run("tc", ["qdisc", "replace", "dev", "lo", "root", ...discipline.split(" ")]);
  }
}

async function iptables(action: "-A" | "-D", rule: readonly string[]): Promise<void> {
  try {
    await run("iptables", ["-w", "10", action, "INPUT", ...rule]);
  } catch (error) {
    throw new AppError(
      "failed_precondition",
      `iptables ${action} ${rule.join(" ")}: ${errorMessage(error)}`,
      {
        cause: error,
      },
    );
  }
}
