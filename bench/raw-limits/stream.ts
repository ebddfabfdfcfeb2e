/** How many bytes one bidirectional Connect stream carries between two processes. */

import { create } from "@bufbuild/protobuf";
import { createClient } from "@connectrpc/connect";
import { createConnectTransport, Http2SessionManager } from "@connectrpc/connect-node";
import {
  WorkerService,
  type WorkerStreamRequest,
  WorkerStreamRequestSchema,
} from "../../src/protocol/gen/hodei/v1/workers_pb.ts";
import { type BenchRow, durationMs, medianOf } from "../bench-row.ts";
import { startPeerProcess } from "./peer-process.ts";

const MESSAGE_BYTES = 64 * 1024;
const MESSAGES = 4_000;

export const connectStream: BenchRow = {
  name: "raw: Connect stream of 64 KiB messages",
  target: "",
  rawName: "connect-node, HTTP/2, two processes",
  run: async () => ({ value: null, raw: await streamMegabytesPerSecond(), unit: "MB/s" }),
};

/** Millions of bytes in a second, until the receiver has said that it has them all. */
export async function streamMegabytesPerSecond(): Promise<number> {
  const peer = await startPeerProcess();
  const baseUrl = `http://127.0.0.1:${peer.ports.http2}`;
  const sessionManager = new Http2SessionManager(baseUrl);
  const client = createClient(
    WorkerService,
    createConnectTransport({ baseUrl, httpVersion: "2", sessionManager }),
  );
  try {
    return await medianOf(3, async () => {
      let receivedBytes = 0;
      const tookMs = await durationMs(async () => {
        for await (const { message } of client.workerStream(logBatches())) {
          if (message.case === "logAck") receivedBytes = Number(message.value.logAcked);
        }
      });
      if (receivedBytes !== MESSAGES * MESSAGE_BYTES)
        throw new Error(`stream to the bench peer: ${receivedBytes} bytes arrived`);
      return receivedBytes / 1e6 / (tookMs / 1_000);
    });
  } finally {
    sessionManager.abort();
    await peer.stop();
  }
}

async function* logBatches(): AsyncGenerator<WorkerStreamRequest> {
  const data = new Uint8Array(MESSAGE_BYTES).fill(0x61);
  for (let index = 0; index < MESSAGES; index += 1) {
    const value = {
      attemptId: "01890000-0000-7000-8000-000000000000",
      offset: BigInt(index * MESSAGE_BYTES),
      data,
    };
    yield create(WorkerStreamRequestSchema, { message: { case: "logBatch", value } });
  }
}
