#!/usr/bin/env python3
"""Drives one replica by server reflection alone, as grpcurl does: no generated code, no .proto files.

Usage: grpc_by_reflection.py HOST:PORT   (needs grpcio and grpcio-reflection)
"""

import queue
import sys
import uuid

import grpc
from google.protobuf import json_format
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

TIMEOUT = 15


class Service:
    """A service found by reflection. Requests and answers are dicts, as JSON has them."""

    def __init__(self, channel, name):
        self.channel = channel
        self.descriptor = DescriptorPool(ProtoReflectionDescriptorDatabase(channel)).FindServiceByName(name)

    def call(self, method, request):
        """One request, or an iterable of them; one answer, or an iterator over them."""
        found = self.descriptor.methods_by_name[method]
        requests, answers = GetMessageClass(found.input_type), GetMessageClass(found.output_type)
        kinds = ("stream" if found.client_streaming else "unary", "stream" if found.server_streaming else "unary")
        stub = getattr(self.channel, "_".join(kinds))(
            f"/{self.descriptor.full_name}/{method}",
            request_serializer=requests.SerializeToString,
            response_deserializer=answers.FromString,
        )

        def parse(one):
            return json_format.ParseDict(one, requests())

        answer = stub(map(parse, request) if found.client_streaming else parse(request), timeout=TIMEOUT)
        return map(json_format.MessageToDict, answer) if found.server_streaming else json_format.MessageToDict(answer)


def main(address):
    with grpc.insecure_channel(address) as channel:
        grpc.channel_ready_future(channel).result(timeout=TIMEOUT)
        names = ProtoReflectionDescriptorDatabase(channel).get_services()
        for wanted in ("tenure.v1.LeaseService", "tenure.v1.ClusterService", "grpc.health.v1.Health"):
            assert wanted in names, f"{wanted} is not among {list(names)}"
        leases = Service(channel, "tenure.v1.LeaseService")
        name = f"by-reflection-{uuid.uuid4().hex[:8]}"
        key = {"namespace": "default", "name": name}

        listed = leases.call("List", {"namespace": "default"})
        events = leases.call("Watch", {**key, "afterRevision": listed["header"]["revision"]})

        granted = next(leases.call("Acquire", {**key, "holder": "me", "duration": "15s", "labels": {"by": "reflection"}}))
        lease = granted["granted"]["lease"]
        assert lease["holder"] == "me" and lease["state"] == "HELD", granted
        denied = next(leases.call("Acquire", {**key, "holder": "you", "duration": "15s"}))
        assert denied["denied"]["lease"]["holder"] == "me", denied

        # Pipelined: the stream stays open until all answers are here.
        requests = queue.Queue()
        for duration in ("15s", "20s"):
            requests.put({"items": [{"token": lease["token"], "duration": duration}]})
        answers = leases.call("Renew", iter(requests.get, None))
        assert next(answers)["results"][0]["renewed"]["duration"] == "15s"
        assert next(answers)["results"][0]["renewed"]["duration"] == "20s"
        requests.put({"items": [{"token": "1"}]})
        assert "lost" in next(answers)["results"][0]
        requests.put(None)

        got = leases.call("Get", key)["lease"]
        assert got["token"] == lease["token"] and float(got["expiresIn"].rstrip("s")) > 15, got
        listed = leases.call("List", {"namespace": "default", "labelSelector": "by=reflection,by in (reflection,other)"})
        assert name in [one["name"] for one in listed["leases"]], listed
        released = leases.call("Release", {**key, "token": lease["token"]})
        assert released["outcome"] == "RELEASED", released

        seen = []
        for answer in events:
            seen += [event["type"] for event in answer.get("events", [])]
            if "RELEASED" in seen:
                break
        assert seen == ["ACQUIRED", "RELEASED"], seen

        status = Service(channel, "tenure.v1.ClusterService").call("Status", {})
        assert len(status["members"]) == 3, status
        print(f"{address}: Acquire, Renew, Release, Watch, Get, List, Status by reflection: ok (token {lease['token']})")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
