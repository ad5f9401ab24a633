"""Whether grpcio works here: a server and a client of its own, on loopback, which never meet Holdfast.

Ends with 0 if a call, a stream and a call past its deadline end as they should. In some sandboxes grpcio hangs; then nothing
that it does tells anything about a cell.
"""

import concurrent.futures
import faulthandler
import os
import time

import grpc

LIMIT_S = 20


class Echo(grpc.GenericRpcHandler):
    def service(self, details):
        if details.method == "/echo/Call":
            return grpc.unary_unary_rpc_method_handler(lambda request, _: request)
        if details.method == "/echo/Stream":
            return grpc.stream_stream_rpc_method_handler(lambda requests, _: requests)
        return grpc.unary_unary_rpc_method_handler(lambda request, _: time.sleep(1) or request)


def main():
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(4), handlers=[Echo()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.enable_http_proxy", 0)])
    assert channel.unary_unary("/echo/Call")(b"x" * (1 << 20), timeout=LIMIT_S) == b"x" * (1 << 20)
    assert list(channel.stream_stream("/echo/Stream")(iter([b"1", b"2"]), timeout=LIMIT_S)) == [b"1", b"2"]
    try:
        channel.unary_unary("/echo/Slow")(b"", timeout=0.2)
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error
        os._exit(0)
    os._exit(1)


faulthandler.dump_traceback_later(2 * LIMIT_S, exit=True)
main()
