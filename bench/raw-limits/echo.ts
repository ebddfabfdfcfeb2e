/** How many small calls Connect answers, over the HTTP version of the API. */

import { Agent } from "node:http";
import { createClient } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import { ServerService } from "../../src/protocol/gen/hodei/v1/server_pb.ts";
import { type BenchRow, callsPerSecond, medianOf } from "../bench-row.ts";
import { startPeerProcess } from "./peer-process.ts";

export const connectEcho: BenchRow = {
  name: "raw: Connect echo, 64 callers",
  target: "",
  rawName: "connect-node, HTTP/1.1, two processes",
  run: async () => ({ value: null, raw: await echoCallsPerSecond({ callers: 64 }), unit: "calls/s" }),
};

export async function echoCallsPerSecond(options: { callers: number }): Promise<number> {
  const peer = await startPeerProcess();
  const agent = new Agent({ keepAlive: true, maxSockets: options.callers });
  const baseUrl = `http://127.0.0.1:${peer.ports.http1}`;
  const client = createClient(
    ServerService,
    createConnectTransport({ baseUrl, httpVersion: "1.1", nodeOptions: { agent } }),
  );
  const call = () => client.getServerInfo({});
  try {
    await callsPerSecond({ callers: options.callers, durationMs: 1_000, call });
    return await medianOf(3, () => callsPerSecond({ callers: options.callers, durationMs: 2_000, call }));
  } finally {
    agent.destroy();
    await peer.stop();
  }
}
