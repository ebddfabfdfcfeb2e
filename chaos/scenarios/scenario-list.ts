/** The long scenarios of `npm run chaos -- --scenario NAME`. */

import { agentKilled } from "./agent-killed.ts";
import { bigCancel } from "./big-cancel.ts";
import { dockerPool } from "./docker-pool.ts";
import { longCut } from "./long-cut.ts";
import { longPause } from "./long-pause.ts";
import type { Scenario } from "./scenario.ts";
import { shortLease } from "./short-lease.ts";
import { workerLostPolicies } from "./worker-lost-policies.ts";

export const SCENARIOS: readonly Scenario[] = [
  agentKilled,
  longCut,
  shortLease,
  bigCancel,
  longPause,
  workerLostPolicies,
  dockerPool,
];
