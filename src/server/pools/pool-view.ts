/** What the API can do with pools and providers. */

import type { AppliedPool, PoolView, ProviderView } from "../../core/pool-view.ts";
import type { PoolDefinition } from "../../core/pool.ts";

export interface PoolsView {
  pools(): PoolView[];
  /** @throws AppError `invalid_argument`, `failed_precondition`, before anything is changed. */
  apply(
    definitions: readonly PoolDefinition[],
    options: { prune: boolean; dryRun: boolean },
  ): Promise<AppliedPool[]>;
  /** @throws AppError `not_found`, `failed_precondition`. */
  delete(name: string): Promise<void>;
  providers(): ProviderView[];
  /** Checks now; all of them for an empty name. @throws AppError `not_found`. */
  checkProviders(name: string): Promise<ProviderView[]>;
  /** Ends a worker through its provider; false if no provider made it. */
  removeWorker(workerId: string, reason: string): Promise<boolean>;
}
