/** The other end: answers echo calls, and counts the bytes of a stream. Lives as long as its parent. */

import { once } from "node:events";
import { createServer } from "node:http";
import { createServer as createHttp2Server } from "node:http2";
import type { AddressInfo, Server } from "node:net";
import { create } from "@bufbuild/protobuf";
import type { ConnectRouter } from "@connectrpc/connect";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import { ServerService } from "../../src/protocol/gen/hodei/v1/server_pb.ts";
import { WorkerService, WorkerStreamResponseSchema } from "../../src/protocol/gen/hodei/v1/workers_pb.ts";
import type { PeerPorts } from "./peer-process.ts";

const handler = connectNodeAdapter({ routes });
const http1 = createServer(handler);
const http2 = createHttp2Server(handler);
const ports: PeerPorts = { http1: await listen(http1), http2: await listen(http2) };
process.on("disconnect", () => process.exit(0));
process.send?.(ports);

function routes(router: ConnectRouter): void {
  router.service(ServerService, {
    getServerInfo: () => ({ version: "echo", instanceId: "0", databaseVersion: "none" }),
  });
  router.service(WorkerService, {
    async *workerStream(messages) {
      let bytes = 0n;
      for await (const { message } of messages) {
        if (message.case === "logBatch") bytes += BigInt(message.value.data.byteLength);
      }
      yield create(WorkerStreamResponseSchema, {
        message: { case: "logAck", value: { attemptId: "", logAcked: bytes } },
      });
    },
  });
}

async function listen(server: Server): Promise<number> {
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return (server.address() as AddressInfo).port;
}
