/** An end that many wait for at once. */

import { setMaxListeners } from "node:events";

/**
 * For a signal that every call, stream or retry under way may listen to: of a signal as it is made
 * otherwise, Node.js takes the eleventh listener for a leak and says so on stderr.
 */
export function sharedAbortController(): AbortController {
  const controller = new AbortController();
  setMaxListeners(0, controller.signal);
  return controller;
}
