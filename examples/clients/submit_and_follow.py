#!/usr/bin/env python3
"""Submits a job over gRPC, follows its log, and exits with the exit code of the job.

    python3 submit_and_follow.py 'echo hello; sleep 1; echo world'

Needs grpcio and protobuf (Debian: python3-grpcio python3-protobuf) and no generated code: the
message types come from the server, by gRPC reflection. A program that is more than an example had
better generate them from proto/ with protoc or buf.

Settings, from the environment:

    HODEI_GRPC             host:port of the gRPC port; 127.0.0.1:9090 if not set
    HODEI_API_TOKEN        the token, or
    HODEI_API_TOKEN_FILE   a file that holds it, or
    HODEI_DATA_DIR         the data directory of a server on this machine, which has it in api-token
"""

import os
import sys

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"


def main():
    script = sys.argv[1] if len(sys.argv) > 1 else "echo hello from $HOSTNAME"
    channel = grpc.insecure_channel(os.environ.get("HODEI_GRPC", "127.0.0.1:9090"))
    metadata = [("authorization", "Bearer " + read_token())]
    try:
        sys.exit(submit_and_follow(Api(channel, metadata), script))
    except grpc.RpcError as error:
        sys.exit(f"{error.code().name}: {error.details()}")


def submit_and_follow(api, script):
    definition = {"name": "python example", "command": {"script": {"content": script}}}
    job_id = api.unary("hodei.v1.JobService", "QueueJob", {"definition": definition}).job_id
    print(f"job {job_id}", file=sys.stderr)

    system, stderr = 3, 2
    request = {"job_id": job_id, "follow": True}
    for answer in api.stream("hodei.v1.LogService", "ReadLog", request):
        for entry in answer.entries:
            out = sys.stderr if entry.stream in (stderr, system) else sys.stdout
            out.buffer.write(entry.data)
            out.flush()

    # The log is complete when its attempt is; the job has ended when the watch ends.
    job = None
    for answer in api.stream("hodei.v1.JobService", "WatchJob", {"job_id": job_id}):
        job = answer.job
    state = job.DESCRIPTOR.fields_by_name["state"].enum_type.values_by_number[job.state].name
    print(f"{state} {job.message}".strip(), file=sys.stderr)
    if state == "JOB_STATE_SUCCEEDED":
        return 0
    return job.exit_code or 1


def read_token():
    if "HODEI_API_TOKEN" in os.environ:
        return os.environ["HODEI_API_TOKEN"]
    file = os.environ.get("HODEI_API_TOKEN_FILE") or os.path.join(data_directory(), "api-token")
    try:
        with open(file, encoding="ascii") as token:
            return token.read().strip()
    except OSError as error:
        sys.exit(f"cannot read the token: {error}; is there a server on this machine?")


def data_directory():
    if "HODEI_DATA_DIR" in os.environ:
        return os.environ["HODEI_DATA_DIR"]
    if os.geteuid() == 0:
        return "/var/lib/hodei"
    base = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    return os.path.join(base, "hodei")


class Api:
    """Calls by name, with the types that the server describes."""

    def __init__(self, channel, metadata):
        self.channel = channel
        self.metadata = metadata
        self.pool = descriptor_pool.DescriptorPool()
        self.known = set()

    def unary(self, service, method, fields):
        call, request = self.prepare(service, method, fields, self.channel.unary_unary)
        return call(request, metadata=self.metadata, timeout=30)

    def stream(self, service, method, fields):
        call, request = self.prepare(service, method, fields, self.channel.unary_stream)
        return call(request, metadata=self.metadata)

    def prepare(self, service, method, fields, kind):
        if service not in self.known:
            add_files(self.pool, describe(self.channel, self.metadata, service))
            self.known.add(service)
        types = self.pool.FindServiceByName(service).methods_by_name[method]
        request, answer = message_class(types.input_type), message_class(types.output_type)
        call = kind(
            f"/{service}/{method}",
            request_serializer=request.SerializeToString,
            response_deserializer=answer.FromString,
        )
        return call, request(**fields)


def message_class(descriptor):
    if hasattr(message_factory, "GetMessageClass"):
        return message_factory.GetMessageClass(descriptor)
    return message_factory.MessageFactory().GetPrototype(descriptor)  # protobuf before 4.22


def describe(channel, metadata, symbol):
    """The files that describe a symbol, with all that they import."""
    question, answer = reflection_types()
    call = channel.stream_stream(
        REFLECTION,
        request_serializer=question.SerializeToString,
        response_deserializer=answer.FromString,
    )
    for reply in call(iter([question(file_containing_symbol=symbol)]), metadata=metadata, timeout=30):
        if reply.error_response.error_code:
            sys.exit(f"reflection: {reply.error_response.error_message}")
        files = reply.file_descriptor_response.file_descriptor_proto
        return [descriptor_pb2.FileDescriptorProto.FromString(file) for file in files]
    sys.exit("reflection: no answer")


def add_files(pool, files):
    """Adds each file after those that it imports."""
    waiting = {file.name: file for file in files}

    def add(name):
        file = waiting.pop(name, None)
        if file is None:
            return
        for imported in file.dependency:
            add(imported)
        try:
            pool.FindFileByName(name)
        except KeyError:
            pool.Add(file)

    for file in files:
        add(file.name)


def reflection_types():
    """The part of grpc/reflection/v1/reflection.proto that is needed here."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="reflection.proto", package="r", syntax="proto3")

    def message(name, *fields):
        added = file.message_type.add(name=name)
        for field_name, number, label, kind, type_name in fields:
            added.field.add(
                name=field_name, number=number, label=label, type=kind, type_name=type_name
            )

    one, many = field.LABEL_OPTIONAL, field.LABEL_REPEATED
    message("Request", ("file_containing_symbol", 4, one, field.TYPE_STRING, None))
    message("Files", ("file_descriptor_proto", 1, many, field.TYPE_BYTES, None))
    message(
        "Error",
        ("error_code", 1, one, field.TYPE_INT32, None),
        ("error_message", 2, one, field.TYPE_STRING, None),
    )
    message(
        "Response",
        ("file_descriptor_response", 4, one, field.TYPE_MESSAGE, ".r.Files"),
        ("error_response", 7, one, field.TYPE_MESSAGE, ".r.Error"),
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    types = pool.FindFileByName("reflection.proto").message_types_by_name
    return message_class(types["Request"]), message_class(types["Response"])


if __name__ == "__main__":
    main()
