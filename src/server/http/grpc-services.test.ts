import assert from "node:assert/strict";
import { test } from "node:test";
import { fromBinary } from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";
import { Code, createClient } from "@connectrpc/connect";
import {
  Health,
  HealthCheckResponse_ServingStatus as Status,
} from "../../protocol/gen/grpc/health/v1/health_pb.ts";
import {
  ServerReflection,
  type ServerReflectionResponse,
} from "../../protocol/gen/grpc/reflection/v1/reflection_pb.ts";
import { ServerReflection as ServerReflectionAlpha } from "../../protocol/gen/grpc/reflection/v1alpha/reflection_pb.ts";
import { TOKEN, setup, codeOf } from "./test-servers.ts";

test("the probes tell a living server from a ready one", async (t) => {
  const { web, health, transports } = await setup(t);
  const { gRPC } = transports(null);
  assert.ok(gRPC);
  const client = createClient(Health, gRPC);
  assert.equal((await fetch(`${web.url}/readyz`)).status, 200);
  assert.equal(await codeOf(client.check({ service: "no.such.Service" })), Code.NotFound);
  assert.equal((await client.check({ service: "hodei.v1.JobService" })).status, Status.SERVING);

  const watch = client.watch({})[Symbol.asyncIterator]();
  assert.equal((await watch.next()).value?.status, Status.SERVING);
  health.report = { ready: false, problems: ["database: connection refused"] };
  const response = await fetch(`${web.url}/readyz`);
  assert.equal(response.status, 503);
  assert.match(await response.text(), /- database: connection refused/);
  assert.equal((await fetch(`${web.url}/healthz`)).status, 200);
  assert.equal((await client.check({})).status, Status.NOT_SERVING);
  assert.equal((await watch.next()).value?.status, Status.NOT_SERVING);
  await watch.return?.();
});

test("reflection describes every service with all that its files import, in both versions", async (t) => {
  const { transports } = await setup(t);
  const { gRPC } = transports(TOKEN);
  assert.ok(gRPC);
  for (const service of [ServerReflection, ServerReflectionAlpha] as const) {
    type Answer = ServerReflectionResponse["messageResponse"];
    const ask = async (question: {
      case: "listServices" | "fileContainingSymbol" | "fileByFilename" | "allExtensionNumbersOfType";
      value: string;
    }): Promise<Answer> => {
      async function* questions() {
        yield { host: "h", messageRequest: question };
      }
      const client = createClient(service as typeof ServerReflection, gRPC);
      for await (const answer of client.serverReflectionInfo(questions())) {
        assert.deepEqual(answer.originalRequest?.messageRequest, question);
        return answer.messageResponse;
      }
      return assert.fail("no answer");
    };
    const list = await ask({ case: "listServices", value: "" });
    assert.ok(list.case === "listServicesResponse");
    assert.deepEqual(
      list.value.service.map(({ name }) => name),
      [
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
        "hodei.v1.JobService",
        "hodei.v1.ServerService",
        "hodei.v1.WorkerService",
      ],
    );
    for (const symbol of [
      "hodei.v1.JobService",
      "hodei.v1.JobService.QueueJob",
      "hodei.v1.Job",
      "hodei.v1.Job.state",
      "hodei.v1.JobState",
    ]) {
      const answer = await ask({ case: "fileContainingSymbol", value: symbol });
      assert.ok(answer.case === "fileDescriptorResponse", symbol);
      const files = answer.value.fileDescriptorProto.map((bytes) =>
        fromBinary(FileDescriptorProtoSchema, bytes),
      );
      assert.equal(files[0]?.name, "hodei/v1/jobs.proto", symbol);
      const names = new Set(files.map(({ name }) => name));
      for (const { dependency } of files)
        for (const name of dependency) assert.ok(names.has(name), `${name} is missing`);
      assert.ok(names.has("buf/validate/validate.proto") && names.has("google/protobuf/descriptor.proto"));
    }
    const byName = await ask({ case: "fileByFilename", value: "google/protobuf/timestamp.proto" });
    assert.equal(byName.case, "fileDescriptorResponse");
    const extensions = await ask({
      case: "allExtensionNumbersOfType",
      value: "google.protobuf.FieldOptions",
    });
    assert.ok(extensions.case === "allExtensionNumbersResponse");
    assert.ok(extensions.value.extensionNumber.includes(1159));
    for (const question of [
      { case: "fileByFilename", value: "../../etc/passwd" },
      { case: "fileContainingSymbol", value: "hodei.v1.Nothing" },
    ] as const) {
      const answer = await ask(question);
      assert.ok(answer.case === "errorResponse");
      assert.equal(answer.value.errorCode, Code.NotFound);
    }
  }
});
