"""An independent client of Holdfast, from the .proto files alone: plain grpcio, no code of the project.

Usage: interop.py <directory of the .proto files> <host:port of the master>

Each check opens a session of its own, does what an implementer in another language got wrong or met, and asserts what the
protos promise. The cargo test `interop` of the crate holdfast-server runs it against a cell of `holdfastd dev`.
"""

import faulthandler
import os
import queue
import subprocess
import sys
import tempfile
import time
import traceback

import grpc

PROTOS = ["client/v1/operation.proto", "client/v1/session.proto", "client/v1/cell.proto"]
# Of a call, and of a stream.
LIMIT_S = 30
# Of everything. Whoever is stuck then says where.
TOTAL_S = 240


def generated(protos):
    """Compiles the protos, and imports what comes of it."""
    out = tempfile.mkdtemp(prefix="holdfast-interop-")
    files = [os.path.join("holdfast", name) for name in PROTOS]
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{protos}", f"--python_out={out}", f"--grpc_python_out={out}"]
    subprocess.run(command + files, check=True)
    sys.path.insert(0, out)
    from holdfast.client.v1 import cell_pb2, cell_pb2_grpc, operation_pb2, session_pb2

    return cell_pb2, cell_pb2_grpc, operation_pb2, session_pb2


faulthandler.dump_traceback_later(TOTAL_S, exit=True)
cell, cell_grpc, op, ses = generated(sys.argv[1])
channel = grpc.insecure_channel(sys.argv[2], options=[("grpc.enable_http_proxy", 0)])
stub = cell_grpc.CellStub(channel)


def code(name):
    return op.RefusalCode.Value("REFUSAL_CODE_" + name)


def name_of(refusal):
    return op.RefusalCode.Name(refusal.code).removeprefix("REFUSAL_CODE_")


class Stream:
    """One session stream."""

    def __init__(self, first):
        self.frames = queue.Queue()
        self.frames.put(first)
        self.call = stub.Session(iter(self.frames.get, None), timeout=LIMIT_S)

    def send(self, **fields):
        self.frames.put(ses.ClientFrame(**fields))

    def read(self):
        return next(self.call)

    def request(self, number, **operation):
        """Sends a request, and gives the outcome that its reply has."""
        self.send(requests=[op.Request(number=number, **operation)])
        return self.reply(number)

    def reply(self, number):
        while True:
            for reply in self.read().replies:
                if reply.number == number:
                    return reply.outcome

    def keep_alive(self, number):
        self.send(keep_alive=ses.KeepAlive(number=number))
        while True:
            frame = self.read()
            if frame.HasField("lease") and frame.lease.number == number:
                return frame.lease.lease_ms

    def end(self):
        """The refusal that ends the stream, and the status that it ends with."""
        refusal = None
        try:
            while True:
                frame = self.read()
                if frame.HasField("refused"):
                    refusal = name_of(frame.refused.refusal)
        except StopIteration:
            return refusal, grpc.StatusCode.OK
        except grpc.RpcError as error:
            return refusal, error.code()

    def close(self):
        self.send(close=ses.CloseSession())
        self.frames.put(None)


def opening(secret, attachment=1, **fields):
    return ses.ClientFrame(open=ses.OpenSession(secret=secret, lease_ms=20_000, client="interop", attachment=attachment, **fields))


def open_session(**fields):
    secret = os.urandom(16)
    stream = Stream(opening(secret, **fields))
    opened = stream.read().opened
    assert opened.session > 0 and opened.lease_ms == 20_000, opened
    return stream, secret, opened.session


def open_node(path, **fields):
    return op.Open(path=path, creation=op.CREATION_MAY, **fields)


def refused(outcome, name):
    assert outcome.WhichOneof("result") == "refusal", outcome
    assert name_of(outcome.refusal) == name, outcome
    return outcome.refusal


def status_of(call, request, **options):
    try:
        call(request, timeout=LIMIT_S, **options)
    except grpc.RpcError as error:
        return error
    raise AssertionError("the call was not refused")


def check_a_session_takes_a_lock_and_stays_alive():
    stream, _, _ = open_session()
    assert stream.request(1, open=open_node("/interop-lock")).HasField("opened")
    granted = stream.request(2, acquire=op.Acquire(handle=1, mode=op.LOCK_MODE_EXCLUSIVE)).granted
    assert granted.lock_generation > 0
    assert stream.keep_alive(1) == 20_000
    other, _, _ = open_session()
    other.request(1, open=open_node("/interop-lock"))
    acquire = op.Acquire(handle=1, mode=op.LOCK_MODE_SHARED, try_only=True)
    refusal = refused(other.request(2, acquire=acquire), "LOCK_CONFLICT")
    facts = refusal.lock_conflict
    assert refusal.HasField("lock_conflict") and (facts.held, facts.holders, facts.wanted) == (op.LOCK_MODE_EXCLUSIVE, 1, op.LOCK_MODE_SHARED), facts
    # A retry finds what was recorded, and the lock passes on when it is released.
    refused(other.request(2, acquire=acquire), "LOCK_CONFLICT")
    assert other.request(3, acquire=op.Acquire(handle=1, mode=op.LOCK_MODE_EXCLUSIVE)).HasField("queued")
    assert stream.request(3, release=op.Release(handle=1)).HasField("released")
    while not any(event.HasField("lock_granted") for event in other.read().events):
        pass
    stream.close(), other.close()


def check_generations_come_as_fields():
    stream, _, _ = open_session()
    stream.request(1, open=open_node("/interop-file"))
    written = stream.request(2, set_contents=op.SetContents(handle=1, contents=b"x")).written.content_generation
    outcome = stream.request(3, set_contents=op.SetContents(handle=1, contents=b"y", if_generation=1))
    refusal = refused(outcome, "GENERATION_MISMATCH")
    facts = refusal.generation_mismatch
    assert refusal.HasField("generation_mismatch") and (facts.kind, facts.wanted, facts.present) == (op.GENERATION_KIND_CONTENT, 1, written), facts
    stream.close()


def check_a_unary_refusal_has_its_metadata():
    stub.SetContents(cell.SetContentsRequest(path="/interop-unary", contents=b"x", create=True), timeout=LIMIT_S)
    error = status_of(stub.SetContents, cell.SetContentsRequest(path="/interop-unary", contents=b"y", if_generation=1))
    assert error.code() == grpc.StatusCode.ABORTED, error
    metadata = dict(error.trailing_metadata())
    assert metadata["holdfast-refusal"] == "GENERATION_MISMATCH", metadata
    refusal = op.Refusal.FromString(metadata["holdfast-refusal-bin"])
    assert refusal.generation_mismatch.wanted == 1, refusal
    error = status_of(stub.SetContents, cell.SetContentsRequest(path="/interop-large", contents=b"x" * 300_000, create=True))
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED, error
    error = status_of(stub.SetContents, cell.SetContentsRequest(path="/interop-large", contents=b"x" * (5 << 20), create=True))
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED, error
    assert dict(error.trailing_metadata())["holdfast-refusal"] == "LIMIT", error


def check_numbers_are_used_once():
    stream, _, _ = open_session()
    refused(stream.request(0, open=open_node("/interop-number")), "INVALID")
    stream.request(1, open=open_node("/interop-number"))
    stream.send(acknowledged=ses.Acknowledged(through=1))
    # At once: no other change has been logged since.
    refused(stream.request(1, open=open_node("/interop-number")), "ACKNOWLEDGED")
    assert stream.request(2, acquire=op.Acquire(handle=1, mode=op.LOCK_MODE_EXCLUSIVE)).HasField("granted")
    refused(stream.request(2, release=op.Release(handle=1)), "PROTOCOL")
    refused(stream.request(2, get_stat=op.GetStat(handle=1)), "PROTOCOL")
    refused(stream.request(3), "PROTOCOL")
    refused(stream.request(4, acquire=op.Acquire(handle=1, mode=9)), "INVALID")
    stream.close()


def check_malformed_acknowledgements_end_the_stream():
    ranges = lambda *pairs: [ses.NumberRange(first=first, last=last) for first, last in pairs]
    for through, wrong in [(0, [(5, 4)]), (0, [(5, 6), (2, 3)]), (0, [(2, 5), (4, 7)]), (9, [(3, 12)])]:
        stream, _, _ = open_session()
        stream.send(acknowledged=ses.Acknowledged(through=through, ranges=ranges(*wrong)))
        assert stream.end() == ("PROTOCOL", grpc.StatusCode.INVALID_ARGUMENT), wrong


def check_notices_of_the_future_end_the_stream():
    stream, _, _ = open_session()
    stream.send(notices_through=7)
    assert stream.end() == ("PROTOCOL", grpc.StatusCode.INVALID_ARGUMENT)


def check_an_opening_can_be_repeated_with_its_number():
    stream, secret, session = open_session()
    again = Stream(opening(secret))
    opened = again.read().opened
    assert (opened.session, opened.lease_ms) == (session, 0), opened
    assert stream.end() == ("SUPERSEDED", grpc.StatusCode.ABORTED)
    again.request(1, open=open_node("/interop-opened"))
    assert Stream(opening(secret)).end() == ("SUPERSEDED", grpc.StatusCode.ABORTED), "the session has a handle"
    again.close()


def check_attachments():
    stream, secret, session = open_session()
    attach = lambda **fields: ses.ClientFrame(attach=ses.AttachSession(**{"session": session, "secret": secret, **fields}))
    invalid = ("INVALID", grpc.StatusCode.INVALID_ARGUMENT)
    assert Stream(attach(attachment=2**64 - 1)).end() == invalid
    assert Stream(attach(attachment=0)).end() == invalid
    assert Stream(attach(attachment=1)).end() == ("SUPERSEDED", grpc.StatusCode.ABORTED)
    wrong = Stream(attach(attachment=2, secret=b"?" * 16)).end()
    assert wrong == ("WRONG_SECRET", grpc.StatusCode.PERMISSION_DENIED), wrong
    gone = Stream(attach(attachment=2, session=session + 1_000_000)).end()
    assert gone == ("UNKNOWN_SESSION", grpc.StatusCode.NOT_FOUND), gone
    newer = Stream(attach(attachment=2))
    assert newer.read().attached.attachment == 2
    assert Stream(opening(os.urandom(16), attachment=2**64 - 1)).end() == invalid
    stream.close(), newer.close()


def check_first_and_second_frames():
    invalid = ("PROTOCOL", grpc.StatusCode.INVALID_ARGUMENT)
    assert Stream(ses.ClientFrame()).end() == invalid
    stream, secret, _ = open_session()
    stream.frames.put(opening(secret, attachment=2))
    assert stream.end() == invalid
    assert Stream(opening(b"short")).end() == ("INVALID", grpc.StatusCode.INVALID_ARGUMENT)
    foreign = Stream(opening(os.urandom(16), cell="another")).end()
    assert foreign == ("FOREIGN_CELL", grpc.StatusCode.INVALID_ARGUMENT), foreign


def check_a_frame_has_bounds():
    stream, _, _ = open_session()
    stat = [op.Request(number=number, get_stat=op.GetStat(handle=1)) for number in range(1, 5_000)]
    stream.send(requests=stat)
    assert stream.end() == ("LIMIT", grpc.StatusCode.RESOURCE_EXHAUSTED)
    stream, _, _ = open_session()
    stream.send(requests=[op.Request(number=1, set_contents=op.SetContents(handle=1, contents=b"x" * (5 << 20)))])
    assert stream.end() == ("LIMIT", grpc.StatusCode.RESOURCE_EXHAUSTED)


def check_a_closed_ephemeral_node_is_gone_when_the_close_is_answered():
    stream, _, _ = open_session()
    for number in range(1, 200, 2):
        assert stream.request(number, open=open_node("/interop-ephemeral", ephemeral=True)).opened.created
        assert stream.request(number + 1, close=op.Close(handle=number)).HasField("closed")
    error = status_of(stub.GetStat, cell.GetStatRequest(path="/interop-ephemeral"))
    assert error.code() == grpc.StatusCode.NOT_FOUND, error
    stream.close()


def check_a_stream_without_its_session_extends_nothing():
    error = status_of(stub.ExtendLease, ses.ExtendLeaseRequest(stream="0" * 16))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT, error


def main():
    checks = [(name, check) for name, check in globals().items() if name.startswith("check_")]
    for name, check in checks:
        began = time.monotonic()
        check()
        print(f"ok {name.removeprefix('check_')} ({time.monotonic() - began:.2f} s)", flush=True)
    print(f"{len(checks)} checks passed", flush=True)


def run():
    """Runs all checks and ends the process: grpcio's threads may keep one that just returns from ending."""
    status = 1
    try:
        main()
        status = 0
    except BaseException:
        traceback.print_exc()
    sys.stderr.flush()
    os._exit(status)


run()
