/** Starts the process at the other end of a raw limit, so that both ends have a core as in life. */

import { fork } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";

/** What the peer says when it listens. */
export interface PeerPorts {
  /** Unary calls over HTTP/1.1, as the API. */
  http1: number;
  /** Streams over HTTP/2, as the workers' link. */
  http2: number;
}

export interface PeerProcess {
  ports: PeerPorts;
  stop(): Promise<void>;
}

export async function startPeerProcess(): Promise<PeerProcess> {
  const child = fork(fileURLToPath(new URL("peer-main.js", import.meta.url)), [], { stdio: "inherit" });
  const exited = once(child, "exit");
  const ports = await Promise.race([
    once(child, "message").then(([message]) => message as PeerPorts),
    exited.then(([code]) => Promise.reject(new Error(`start the bench peer: it exited with code ${code}`))),
  ]);
  return {
    ports,
    async stop() {
      // The peer ends when its parent lets go, also if the parent was killed.
      if (child.connected) child.disconnect();
      await exited;
    },
  };
}
