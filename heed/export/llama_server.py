"""llama.cpp's own server, out of the package xllamacpp, for where no llama-server is on the PATH.

PYTHONPATH=.venv/export python -P heed/export/llama_server.py --model FILE.gguf --port 8080
"""

import argparse
import signal

import xllamacpp


def main() -> None:
    parser = argparse.ArgumentParser(prog="llama_server.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--version", action="version", version=f"version: xllamacpp {xllamacpp.__version__}")
    parser.add_argument("--model", required=True, help="a GGUF file")
    parser.add_argument("--ctx-size", type=int, default=0, help="tokens of prompt and answer; 0 is all the model has")
    parser.add_argument("--host", default="127.0.0.1", help="an address, or a path that ends in .sock")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--threads", type=int, default=0, help="0 leaves it to llama.cpp")
    words = parser.parse_args()
    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.n_parallel, params.n_gpu_layers = words.model, words.ctx_size, 1, 0
    if words.threads:
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = words.threads
    params.hostnames, params.port = [words.host], words.port
    server = xllamacpp.Server(params)
    print(f"listening on {server.listening_address}", flush=True)
    signal.pause()


if __name__ == "__main__":
    main()
