/** The Unix socket between agent and runner: in order, fast, and gone with either process. */

import type { AgentToRunner, RunnerToAgent } from "../src/core/runner-link.ts";
import type { SimProcess } from "./sim-process.ts";

const LATENCY_MS = 0.2;

export interface SocketEnd<In, Out> {
  send(message: Out): void;
  close(): void;
  onMessage: (message: In) => void;
  onClose: () => void;
}

export interface LocalSocket {
  agent: SocketEnd<RunnerToAgent, AgentToRunner>;
  runner: SocketEnd<AgentToRunner, RunnerToAgent>;
}

export function localSocket(agent: SimProcess, runner: SimProcess): LocalSocket {
  let isOpen = true;
  const nothing = (): void => {};
  const socket: LocalSocket = {
    agent: {
      send: (message) => send(runner, () => socket.runner.onMessage(message)),
      close: () => close(),
      onMessage: nothing,
      onClose: nothing,
    },
    runner: {
      send: (message) => send(agent, () => socket.agent.onMessage(message)),
      close: () => close(),
      onMessage: nothing,
      onClose: nothing,
    },
  };
  const send = (to: SimProcess, run: () => void): void => {
    if (isOpen) to.deliverAfter(LATENCY_MS, run);
  };
  const close = (): void => {
    if (!isOpen) return;
    isOpen = false;
    // Behind what is under way: a socket that is closed is still read to its end.
    agent.deliverAfter(LATENCY_MS, () => socket.agent.onClose());
    runner.deliverAfter(LATENCY_MS, () => socket.runner.onClose());
  };
  agent.onDeath(close);
  runner.onDeath(close);
  return socket;
}
