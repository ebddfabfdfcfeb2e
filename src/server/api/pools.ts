/** PoolService: pools of workers that are made on demand, and the providers that make them. */

import type { ServiceImpl } from "@connectrpc/connect";
import { poolProblems } from "../../core/pool-problems.ts";
import type { PoolDefinition } from "../../core/pool.ts";
import {
  appliedPoolToWire,
  poolDefinitionFromWire,
  poolToWire,
  providerStateToWire,
} from "../../protocol/convert-pool.ts";
import type { PoolService } from "../../protocol/gen/hodei/v1/pools_pb.ts";
import type { PoolsView } from "../pools/pools-view.ts";
import { refuseProblems } from "./definition-problems.ts";

export function poolsApi({ pools }: { pools: PoolsView }): Required<ServiceImpl<typeof PoolService>> {
  return {
    async applyPools({ pools: messages, prune, dryRun }) {
      const definitions = messages.map(poolDefinitionFromWire);
      refuseProblems([...definitions.flatMap(problemsIn), ...repeatedNames(definitions)]);
      const applied = await pools.apply(definitions, { prune, dryRun });
      return { pools: applied.map(appliedPoolToWire) };
    },

    async listPools() {
      const views = pools.pools().toSorted((a, b) => (a.definition.name < b.definition.name ? -1 : 1));
      return { pools: views.map(poolToWire) };
    },

    async deletePool({ name }) {
      await pools.delete(name);
      return {};
    },

    async listProviders() {
      const providers = pools.providers().toSorted((a, b) => (a.name < b.name ? -1 : 1));
      return { providers: providers.map(providerStateToWire) };
    },

    async checkProviders({ name }) {
      return { providers: (await pools.checkProviders(name)).map(providerStateToWire) };
    },
  };
}

function problemsIn(definition: PoolDefinition, index: number): string[] {
  return poolProblems(definition).map(
    ({ path, message }) => `pools[${index}].${pathOnWire(path)}: ${message}`,
  );
}

function repeatedNames(definitions: readonly PoolDefinition[]): string[] {
  const seen = new Set<string>();
  const problems: string[] = [];
  for (const [index, { name }] of definitions.entries()) {
    if (seen.has(name)) problems.push(`pools[${index}].name: there is another pool ${name} in the request`);
    seen.add(name);
  }
  return problems;
}

/** `idleTimeoutMs` of the core is `idle_timeout` of the request. The keys of labels are their author's. */
function pathOnWire(path: string): string {
  if (path.startsWith("labels.")) return path;
  return path.replace(/Ms$/, "").replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}
