/**
 * The standard gRPC reflection service (grpc/doc/server-reflection.md): tools such as grpcurl learn
 * from it what this server offers. Served as v1 and, with the same messages, as v1alpha, which most
 * clients ask for first.
 */

import { createRegistry, toBinary, type DescFile, type Registry } from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";
import type { ConnectRouter } from "@connectrpc/connect";
import { ERROR_CODES } from "../../base/errors.ts";
import {
  ServerReflection as ReflectionV1,
  type ServerReflectionRequest,
} from "../../protocol/gen/grpc/reflection/v1/reflection_pb.ts";
import {
  ServerReflection as ReflectionV1Alpha,
  type ServerReflectionRequest as AlphaRequest,
} from "../../protocol/gen/grpc/reflection/v1alpha/reflection_pb.ts";

/** The `message_response` of both versions. */
type Answer =
  | { case: "listServicesResponse"; value: { service: { name: string }[] } }
  | { case: "fileDescriptorResponse"; value: { fileDescriptorProto: Uint8Array<ArrayBuffer>[] } }
  | { case: "allExtensionNumbersResponse"; value: { baseTypeName: string; extensionNumber: number[] } }
  | { case: "errorResponse"; value: { errorCode: number; errorMessage: string } };
type Question = ServerReflectionRequest["messageRequest"] | AlphaRequest["messageRequest"];

/** Describes the services that the router has at the time of the call, and itself. */
export function grpcReflectionRoutes(router: ConnectRouter): void {
  const offered = [...router.handlers.map(({ service }) => service), ReflectionV1, ReflectionV1Alpha];
  const services = [...new Set(offered.map(({ typeName }) => typeName))].toSorted();
  const files = withDependencies(offered.map(({ file }) => file));
  const registry = createRegistry(...files.values());
  const catalogue: Catalogue = { services, files, registry };

  router.service(ReflectionV1, {
    async *serverReflectionInfo(requests) {
      for await (const request of requests) {
        yield {
          validHost: request.host,
          originalRequest: request,
          messageResponse: answer(request.messageRequest, catalogue),
        };
      }
    },
  });
  router.service(ReflectionV1Alpha, {
    async *serverReflectionInfo(requests) {
      for await (const request of requests) {
        yield {
          validHost: request.host,
          originalRequest: request,
          messageResponse: answer(request.messageRequest, catalogue),
        };
      }
    },
  });
}

interface Catalogue {
  services: string[];
  /** By name, such as `hodei/v1/jobs.proto`. */
  files: ReadonlyMap<string, DescFile>;
  registry: Registry;
}

/** These files and all that they import, each once, imports first. */
function withDependencies(roots: readonly DescFile[]): Map<string, DescFile> {
  const found = new Map<string, DescFile>();
  const add = (file: DescFile): void => {
    if (found.has(file.proto.name)) return;
    for (const dependency of file.dependencies) add(dependency);
    found.set(file.proto.name, file);
  };
  for (const file of roots) add(file);
  return found;
}

function answer(question: Question, catalogue: Catalogue): Answer {
  switch (question.case) {
    case "listServices":
      return {
        case: "listServicesResponse",
        value: { service: catalogue.services.map((name) => ({ name })) },
      };
    case "fileByFilename":
      return fileAnswer(catalogue.files.get(question.value), `file ${question.value}`);
    case "fileContainingSymbol":
      return fileAnswer(fileOfSymbol(question.value, catalogue.registry), `symbol ${question.value}`);
    case "fileContainingExtension": {
      const { containingType, extensionNumber } = question.value;
      const message = catalogue.registry.getMessage(containingType);
      const extension = message && catalogue.registry.getExtensionFor(message, extensionNumber);
      return fileAnswer(extension?.file, `extension ${extensionNumber} of ${containingType}`);
    }
    case "allExtensionNumbersOfType":
      return extensionNumbers(question.value, catalogue.registry);
    case undefined:
      return problem("invalid_argument", "the request asks for nothing");
  }
}

/** The file and all that it imports: clients that got only the file would have to ask again. */
function fileAnswer(file: DescFile | undefined, what: string): Answer {
  if (!file) return problem("not_found", `${what} not found`);
  const protos = [...withDependencies([file]).values()].toReversed();
  return {
    case: "fileDescriptorResponse",
    value: { fileDescriptorProto: protos.map(({ proto }) => toBinary(FileDescriptorProtoSchema, proto)) },
  };
}

/** A symbol is a type, or a member of one: a method, a field, an enum value, a oneof. */
function fileOfSymbol(symbol: string, registry: Registry): DescFile | undefined {
  const type = registry.get(symbol);
  if (type) return type.file;
  const dot = symbol.lastIndexOf(".");
  if (dot < 0) return undefined;
  const member = symbol.slice(dot + 1);
  const parent = registry.get(symbol.slice(0, dot));
  switch (parent?.kind) {
    case "service":
      return parent.methods.some(({ name }) => name === member) ? parent.file : undefined;
    case "message":
      return parent.members.some(({ name }) => name === member) ? parent.file : undefined;
    case "enum":
      return parent.values.some(({ name }) => name === member) ? parent.file : undefined;
    default:
      return undefined;
  }
}

function extensionNumbers(typeName: string, registry: Registry): Answer {
  if (!registry.getMessage(typeName)) return problem("not_found", `type ${typeName} not found`);
  const numbers: number[] = [];
  for (const type of registry) {
    if (type.kind === "extension" && type.extendee.typeName === typeName) numbers.push(type.number);
  }
  return {
    case: "allExtensionNumbersResponse",
    value: { baseTypeName: typeName, extensionNumber: numbers },
  };
}

function problem(code: "invalid_argument" | "not_found", errorMessage: string): Answer {
  return { case: "errorResponse", value: { errorCode: ERROR_CODES[code].grpc, errorMessage } };
}
