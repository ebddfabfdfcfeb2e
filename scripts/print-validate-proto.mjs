// Prints proto/buf/validate/validate.proto from the descriptor inside @bufbuild/protovalidate, so
// that `buf` can resolve the import without a registry and always sees the version that runs.
// Comments and the rules' own options are left out: nothing that compiles against it needs them.
import { mkdirSync, writeFileSync } from "node:fs";
import { FieldDescriptorProto_Type as Type } from "@bufbuild/protobuf/wkt";
import { file_buf_validate_validate as file } from "@bufbuild/protovalidate/gen/buf/validate/validate_pb.js";

const out = [];
const line = (depth, text) => out.push("  ".repeat(depth) + text);
const typeName = (field) => field.typeName || Type[field.type].toLowerCase();

function printField(field, depth) {
  const label = { 1: "optional ", 2: "required ", 3: "repeated " }[field.label];
  line(depth, `${label}${typeName(field)} ${field.name} = ${field.number};`);
}

function printMessage(message, depth) {
  line(depth, `message ${message.name} {`);
  for (const nested of message.nestedType) printMessage(nested, depth + 1);
  for (const nested of message.enumType) printEnum(nested, depth + 1);
  message.oneofDecl.forEach((oneof, index) => {
    line(depth + 1, `oneof ${oneof.name} {`);
    for (const field of message.field.filter((f) => f.oneofIndex === index && isInOneof(f))) {
      line(depth + 2, `${typeName(field)} ${field.name} = ${field.number};`);
    }
    line(depth + 1, "}");
  });
  for (const field of message.field.filter((f) => !isInOneof(f))) printField(field, depth + 1);
  for (const range of message.extensionRange) {
    const last = range.end > 500_000_000 ? "max" : range.end - 1;
    line(depth + 1, `extensions ${range.start} to ${last};`);
  }
  line(depth, "}");
}

// A proto2 field without an index reads as index 0 unless presence is asked for.
function isInOneof(field) {
  return Object.hasOwn(field, "oneofIndex");
}

function printEnum(enumeration, depth) {
  line(depth, `enum ${enumeration.name} {`);
  for (const value of enumeration.value) line(depth + 1, `${value.name} = ${value.number};`);
  line(depth, "}");
}

const { proto } = file;
if (proto.syntax !== "" && proto.syntax !== "proto2") throw new Error(`unexpected syntax ${proto.syntax}`);
out.push(
  "// Printed by scripts/print-validate-proto.mjs from @bufbuild/protovalidate (Apache-2.0). Do not edit.",
);
out.push('syntax = "proto2";', `package ${proto.package};`);
for (const path of proto.dependency) out.push(`import "${path}";`);
for (const message of proto.messageType) printMessage(message, 0);
for (const enumeration of proto.enumType) printEnum(enumeration, 0);
for (const extension of proto.extension) {
  line(0, `extend ${extension.extendee} {`);
  printField(extension, 1);
  line(0, "}");
}
mkdirSync("proto/buf/validate", { recursive: true });
writeFileSync("proto/buf/validate/validate.proto", out.join("\n") + "\n");
