/** What the HTTP port serves besides RPCs: `/healthz`, `/readyz`, `/metrics`, and a word for all other paths. */

import type { IncomingMessage, ServerResponse } from "node:http";
import helmet from "@fastify/helmet";
import { fastify, type FastifyInstance } from "fastify";
import { errorMessage } from "../../base/errors.ts";
import { readHealth, type HealthCheck } from "./health-report.ts";
import type { RpcServerOptions } from "./rpc-options.ts";

export type RequestListener = (request: IncomingMessage, response: ServerResponse) => void;

/** A listener for a server that somebody else runs. */
export async function createWebPages(
  options: Pick<RpcServerOptions, "health" | "metrics" | "auth" | "log">,
): Promise<RequestListener> {
  const app = fastify({ logger: false });
  await app.register(helmet, { strictTransportSecurity: false });
  addProbes(app, options.health);
  if (options.metrics) addMetrics(app, options.metrics, options.auth);
  app.setNotFoundHandler((request, reply) =>
    reply.code(404).send({ code: "not_found", message: `there is nothing at ${request.url}` }),
  );
  app.setErrorHandler((error, request, reply) => {
    const status = httpStatus(error);
    if (status >= 500) options.log.error({ err: error, path: request.url }, "http request failed");
    return reply.code(status).send({ message: status >= 500 ? "internal error" : errorMessage(error) });
  });
  await app.ready();
  return (request, response) => app.routing(request, response);
}

function addProbes(app: FastifyInstance, health: HealthCheck): void {
  app.get("/healthz", async (_request, reply) => reply.type("text/plain").send("ok\n"));
  app.get("/readyz", async (_request, reply) => {
    const report = await readHealth(health);
    const text = report.ready
      ? "ready\n"
      : `not ready\n${report.problems.map((problem) => `- ${problem}\n`).join("")}`;
    return reply
      .code(report.ready ? 200 : 503)
      .type("text/plain")
      .send(text);
  });
}

/** Names of queues and pools are nobody's business who may not ask for them by the API. */
function addMetrics(
  app: FastifyInstance,
  metrics: NonNullable<RpcServerOptions["metrics"]>,
  auth: RpcServerOptions["auth"],
): void {
  app.get("/metrics", async (request, reply) => {
    const refusal = auth({ path: "/metrics", authorization: request.headers.authorization });
    if (refusal !== null) {
      const { code, message } = refusal;
      return reply.code(401).header("www-authenticate", "Bearer").send({ code, message });
    }
    const { contentType, text } = await metrics();
    return reply.type(contentType).send(text);
  });
}

function httpStatus(error: unknown): number {
  if (typeof error !== "object" || error === null || !("statusCode" in error)) return 500;
  return typeof error.statusCode === "number" ? error.statusCode : 500;
}
