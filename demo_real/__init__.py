"""A real pretrained model, SmolLM2-135M-Instruct, from the package index: `make demo-real`."""
