/** What a long scenario is, and the cluster that it happens to. */

import { errorMessage } from "../../src/base/errors.ts";
import { Cluster, type ClusterOptions } from "../cluster.ts";
import { findLeftovers } from "../leftovers.ts";
import { NetworkFaults } from "../network-faults.ts";

export interface ScenarioContext {
  /** About a minute, with the same promise at the end. */
  isShort: boolean;
  /** Takes a line about what was seen. */
  say(line: string): void;
}

export interface Scenario {
  name: string;
  /** One line for the list. */
  description: string;
  /** Resolves with what was wrong, in words; empty if nothing was. */
  run(context: ScenarioContext): Promise<string[]>;
}

const LEAVE_TIMEOUT_MS = 60_000;

const DEFAULTS: ClusterOptions = { workers: 1, workerJobs: 8, workerIdleTimeout: "3s" };

/**
 * Runs a scenario on a cluster of its own. Afterwards the workers must leave, the server must stop in
 * good order, and nothing may be left behind; if anything was wrong, the directory is kept.
 */
export async function onCluster(
  options: Partial<ClusterOptions>,
  body: (cluster: Cluster) => Promise<string[]>,
): Promise<string[]> {
  const cluster = await Cluster.make({ ...DEFAULTS, ...options });
  const problems: string[] = [];
  try {
    await cluster.startServer();
    problems.push(...(await body(cluster)));
    await cluster.network.heal();
    if (problems.length === 0) problems.push(...(await leave(cluster)));
  } catch (error) {
    problems.push(`it broke off: ${errorMessage(error)}`);
  }
  const isWell = problems.length === 0;
  await cluster.close({ keep: !isWell });
  if (!isWell) problems.push(`everything is kept in ${cluster.directory}`);
  return problems;
}

/** @throws Error if the network cannot be cut here. */
export async function requireNetworkFaults(): Promise<void> {
  if (await NetworkFaults.isPossible()) return;
  throw new Error("cut the network: needs root, a network namespace and iptables");
}

async function leave(cluster: Cluster): Promise<string[]> {
  await cluster.untilNoWorkers(LEAVE_TIMEOUT_MS);
  await cluster.knownWorkerIds();
  const code = await cluster.stopServer();
  const problems = await findLeftovers(cluster);
  if (code !== 0) problems.push(`the server ended with ${code}`);
  return problems;
}
