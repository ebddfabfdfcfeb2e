/** The duties of a server that nobody asks for: each a loop with a period, and a wake-up where one helps. */

import { Loop } from "../base/loop.ts";
import { stopAll, type Service } from "../base/service.ts";
import { deadlineRound } from "./loops/deadlines.ts";
import { livenessRound } from "./loops/liveness.ts";
import { Scheduler } from "./loops/scheduling.ts";
import { UNUSED_TOKENS_PERIOD_MS, unusedTokensRound } from "./loops/unused-tokens.ts";
import type { Parts } from "./parts.ts";
import { PROVIDER_CHECK_PERIOD_MS } from "./pools/provider-checks.ts";
import { ProvisioningLoops } from "./pools/provisioning-loops.ts";
import type { ServerOptions } from "./start-server.ts";

const SCHEDULING_PERIOD_MS = 1_000;
const DEADLINE_PERIOD_MS = 1_000;
const LIVENESS_PERIOD_MS = 5_000;
const SEALING_PERIOD_MS = 30_000;

export function startBackgroundLoops({ clock, random, log }: ServerOptions, parts: Parts): Service {
  const { logs, provisioner, hints, counts } = parts;
  const deps = { ...parts, clock, random, log };
  const loop = (name: string, periodMs: number, run: (signal: AbortSignal) => Promise<void>): Loop =>
    new Loop({ name, periodMs, run, clock, log });

  const provisioning = new ProvisioningLoops(deps);
  const health = loop("provider health", PROVIDER_CHECK_PERIOD_MS, () => provisioner.checkAllProviders());
  const scheduler = new Scheduler({
    ...deps,
    state: parts.scheduling,
    provision: (wanted) => provisioner.provision(wanted),
    hint: () => hints.scheduling(),
    onRound: (round) => counts.onSchedulingRound(round),
  });
  const scheduling = loop("scheduling", SCHEDULING_PERIOD_MS, (signal) => scheduler.round(signal));
  const sealing = loop("sealing", SEALING_PERIOD_MS, () => logs.sealEnded());
  const deadlines = loop("deadlines", DEADLINE_PERIOD_MS, () => deadlineRound(deps));
  const liveness = loop("liveness", LIVENESS_PERIOD_MS, () => livenessRound(deps));
  const tokens = loop("unused tokens", UNUSED_TOKENS_PERIOD_MS, () => unusedTokensRound(deps));
  hints.scheduling = () => scheduling.hint();
  hints.provisioning = () => provisioning.hint();
  hints.sealing = () => sealing.hint();
  const loops = [scheduling, provisioning, health, sealing, deadlines, liveness, tokens];
  return { stop: () => stopAll([...loops, scheduler]) };
}
