import assert from "node:assert/strict";
import { test } from "node:test";
import { create, type DescMessage, type Message, type MessageInitShape } from "@bufbuild/protobuf";
import { createValidator } from "@bufbuild/protovalidate";
import { MapRulesSchema } from "@bufbuild/protovalidate/gen/buf/validate/validate_pb.js";
import {
  GetJobRequestSchema,
  JobState,
  LabelOperator,
  ListJobsRequestSchema,
  QueueJobRequestSchema,
  QueueJobsRequestSchema,
} from "../../protocol/gen/hodei/v1/jobs_pb.ts";
import { ReadLogRequestSchema } from "../../protocol/gen/hodei/v1/logs_pb.ts";
import { RegisterRequestSchema, WorkerStreamRequestSchema } from "../../protocol/gen/hodei/v1/workers_pb.ts";
import { createSurelyValid } from "./surely-valid.ts";

type Definition = NonNullable<MessageInitShape<typeof QueueJobRequestSchema>["definition"]>;

const command = { commandType: { case: "shell" as const, value: { cmd: "true", args: ["-x", "é"] } } };
const plain = { name: "x", command };

/** A job that is particular about its worker. */
const picky = {
  selectorExpressions: [{ key: "zone", operator: LabelOperator.IN, values: ["a", "b"] }],
  tolerations: [{ key: "", exists: true }],
  capabilities: ["pause"],
  preferences: [{ weight: -100, workerLabels: [{ key: "disk", operator: LabelOperator.EXISTS }] }],
  concurrency: { key: "deploy", limit: 1 },
  preemptible: true,
};

const attemptId = "01a1fffb-57d2-75b7-81b8-e9801aa8fecb";
const taint = { key: "a", value: "b", effect: "NoSchedule" };
const worker = {
  workerId: attemptId,
  name: "w",
  capacity: { jobs: 4 },
  capabilities: ["shell"],
  labels: { os: "linux" },
  taints: [taint],
};
const WORKER_MESSAGES: NonNullable<MessageInitShape<typeof WorkerStreamRequestSchema>["message"]>[] = [
  { case: "hello", value: { worker, attempts: [{ attemptId, logEnd: 5n }] } },
  { case: "heartbeat", value: { sequence: 1n, attempts: [{ attemptId }] } },
  { case: "accepted", value: { attemptId } },
  { case: "started", value: { attemptId } },
  { case: "progress", value: { attemptId, progress: { percent: 5, message: "x" } } },
  { case: "logBatch", value: { attemptId, data: new Uint8Array(65_536) } },
  { case: "result", value: { attemptId, state: JobState.SUCCEEDED, exitCode: 0 } },
];

function setup() {
  const isSurelyValid = createSurelyValid();
  const library = createValidator({ regexMatch: (pattern, text) => new RegExp(pattern, "u").test(text) });
  return {
    quick: (type: DescMessage, message: Message) => isSurelyValid(type, message),
    isValid: (type: DescMessage, message: Message) => library.validate(type, message).kind === "valid",
  };
}

function definition(changes: Partial<Definition> | Record<string, unknown>): Message {
  return create(QueueJobRequestSchema, { definition: { ...plain, ...changes } as Definition });
}

test("what clients usually send is known to be valid without the library", () => {
  const { quick, isValid } = setup();
  const jobs = Array.from({ length: 3 }, () => ({ definition: plain }));
  const usual: [DescMessage, Message][] = [
    [QueueJobRequestSchema, definition({})],
    [
      QueueJobRequestSchema,
      definition({
        env: { A: "b" },
        selector: { os: "linux" },
        timeout: { seconds: 60n, nanos: 0 },
        priority: -1000,
      }),
    ],
    [
      QueueJobRequestSchema,
      definition({
        command: undefined,
        steps: [{ name: "a", command, timeout: { seconds: 0n, nanos: 1_000_000 } }],
      }),
    ],
    [
      QueueJobRequestSchema,
      definition({ retry: { maxRetries: 1, exitCodes: [0, 255], backoff: { seconds: 0n, nanos: 0 } } }),
    ],
    [QueueJobRequestSchema, definition(picky)],
    [QueueJobsRequestSchema, create(QueueJobsRequestSchema, { jobs })],
    [GetJobRequestSchema, create(GetJobRequestSchema, { jobId: "01a1fffb" })],
    [ListJobsRequestSchema, create(ListJobsRequestSchema, { pageSize: 10 })],
    [ReadLogRequestSchema, create(ReadLogRequestSchema, { jobId: "01a1fffb-5651-7f14-a8ed-587d9f6009df" })],
    ...WORKER_MESSAGES.map((message): [DescMessage, Message] => [
      WorkerStreamRequestSchema,
      create(WorkerStreamRequestSchema, { message }),
    ]),
  ];
  for (const [type, message] of usual) {
    assert.ok(isValid(type, message), `the sample of ${type.typeName} is valid`);
    assert.ok(quick(type, message), type.typeName);
  }
});

test("nothing that the library refuses is taken for valid, at either side of each limit", () => {
  const { quick, isValid } = setup();
  const texts = [
    "",
    "a",
    "x".repeat(128),
    "x".repeat(129),
    "x".repeat(200),
    "x".repeat(201),
    "😀".repeat(150),
    "a\0b",
    "\ud800",
    "1A",
    "A=",
    "-",
  ];
  const durations = [0n, 1n, 39n, 40n, 604_800n, 604_801n, 31_536_000n, 31_536_001n, -1n, 10n ** 15n].flatMap(
    (seconds) => [0, 999_999, 1_000_000, 999_999_999, -1].map((nanos) => ({ seconds, nanos })),
  );
  const numbers = [-1001, -1000, 0, 1000, 1001];
  const samples: Message[] = [
    create(QueueJobRequestSchema, {}),
    definition({ command: undefined }),
    definition({ steps: [{ name: "a", command }] }),
    definition({ command: {} }),
    definition({ command: undefined, steps: [{ name: "a" }] }),
    definition({ command: undefined, steps: [{ name: "a", command, condition: 99 }] }),
    definition({ command: undefined, steps: Array.from({ length: 2_000 }, () => ({ name: "a", command })) }),
    definition({ env: Object.fromEntries(Array.from({ length: 1_001 }, (_, index) => [`A${index}`, ""])) }),
    definition({ retry: { exitCodes: [256] } }),
    definition({ retry: { exitCodes: [-1] } }),
    definition({ retry: { maxRetries: 1_000_000 } }),
    definition(picky),
    definition({ preferences: [{ weight: 101 }] }),
    definition({ preferences: [{ weight: -101 }] }),
    definition({ concurrency: { key: "a", limit: 100_001 } }),
    definition({ concurrency: {} }),
    ...[0, 1, 6, 7].map((operator) => definition({ selectorExpressions: [{ key: "a", operator }] })),
    ...[0, 1, 6, 7].map((operator) =>
      definition({ preferences: [{ workerLabels: [{ key: "a", operator }] }] }),
    ),
    definition({
      tolerations: Array.from({ length: 65 }, () => ({ key: "a", value: "", exists: false, effect: "" })),
    }),
    ...texts.flatMap((text) => [
      definition({ selectorExpressions: [{ key: text, operator: LabelOperator.EXISTS }] }),
      definition({ selectorExpressions: [{ key: "a", operator: LabelOperator.IN, values: [text] }] }),
      definition({ tolerations: [{ key: text, value: text }] }),
      definition({ tolerations: [{ key: "a", effect: text }] }),
      definition({ capabilities: [text] }),
      definition({ preferences: [{ jobLabels: { [text]: text } }] }),
      definition({ concurrency: { key: text } }),
      definition({ name: text }),
      definition({ queue: text }),
      definition({ env: { [text]: "v" } }),
      definition({ env: { A: text } }),
      definition({ labels: { [text]: text } }),
      definition({ selector: { [text]: text } }),
      definition({ workingDirectory: text }),
      definition({ command: { commandType: { case: "shell", value: { cmd: text } } } }),
      definition({
        command: { commandType: { case: "script", value: { content: text, interpreter: text } } },
      }),
      create(QueueJobRequestSchema, { definition: plain, idempotencyKey: text }),
    ]),
    definition({ command: { commandType: { case: "script", value: { content: "é".repeat(524_289) } } } }),
    ...durations.flatMap((value) =>
      ["timeout", "queueTimeout", "grace", "lease"].map((name) => definition({ [name]: value })),
    ),
    ...numbers.map((priority) => definition({ priority })),
  ];
  const taken = samples.filter((sample) => quick(QueueJobRequestSchema, sample));
  for (const sample of taken)
    assert.ok(
      isValid(QueueJobRequestSchema, sample),
      JSON.stringify(sample, (_, value: unknown) => String(value)).slice(0, 300),
    );
  const refused = samples.filter((sample) => !isValid(QueueJobRequestSchema, sample));
  assert.ok(refused.length > 50 && taken.length > 50, `${refused.length} refused, ${taken.length} taken`);
});

test("ids, pages and registrations beyond their limits are left to the library", () => {
  const { quick, isValid } = setup();
  const samples: [DescMessage, Message][] = [
    [GetJobRequestSchema, create(GetJobRequestSchema, { jobId: "xyz!" })],
    [GetJobRequestSchema, create(GetJobRequestSchema, {})],
    [ListJobsRequestSchema, create(ListJobsRequestSchema, { pageSize: 1_000_000 })],
    [ReadLogRequestSchema, create(ReadLogRequestSchema, { jobId: "01a1fffb", streams: [0] })],
    [ReadLogRequestSchema, create(ReadLogRequestSchema, { jobId: "01a1fffb", streams: [99 as never] })],
    [RegisterRequestSchema, create(RegisterRequestSchema, {})],
    [WorkerStreamRequestSchema, create(WorkerStreamRequestSchema, {})],
  ];
  for (const [type, message] of samples) {
    assert.ok(!isValid(type, message), `the library refuses the sample of ${type.typeName}`);
    assert.ok(!quick(type, message), type.typeName);
  }
});

test("a message without constraints is valid", () => {
  const { quick } = setup();
  assert.ok(quick(MapRulesSchema, create(MapRulesSchema, {})));
});
