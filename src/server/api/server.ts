/** ServerService: what this server says of itself. */

import type { ServiceImpl } from "@connectrpc/connect";
import type { ServerService } from "../../protocol/gen/hodei/v1/server_pb.ts";
import type { Store } from "../../storage/store.ts";

export function serverApi(deps: {
  store: Store;
  version: string;
  instanceId: string;
}): Required<ServiceImpl<typeof ServerService>> {
  const { store, version, instanceId } = deps;
  return {
    async getServerInfo() {
      return { version, instanceId, databaseVersion: await store.version() };
    },
  };
}
