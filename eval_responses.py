"""Answer the held-out rows with a fine-tuned model, measure and judge the answers, and report on them.

    python eval_responses.py --config configs/eval.yaml
    python eval_responses.py --model_name_or_path runs/tiny --compare_with_base
    python eval_responses.py --model_name_or_path runs/tiny --data my_rows.json --output_dir answers
    python eval_responses.py --model_name_or_path EleutherAI/pythia-70m --prompt question --data rows.json \\
        --output_dir base
    python eval_responses.py judge --model_name_or_path runs/tiny --judge_backend ollama --judge_model llama3

Without a word in front everything is done that the keys ask for. A word does a part of it, with what the parts before
have left in the folder; only `generate` loads a model. --verbose says why each choice was made:

    generate    answer the rows (continues where it stopped)              responses.json, evaluation.json
    compare     all of it, with a second model: the base, or compare_with
    score       metrics with intervals, and the two models compared        rows.jsonl, items.jsonl, comparison.json
    judge       let an LLM judge the answers                               judge.jsonl, judge_summary.json
    export      the answers for AlpacaEval, and as messages                alpaca_eval_outputs.json, messages.jsonl
    report      one page about all of it                                   report.html
"""

from collections.abc import Sequence

from heed import config
from heed.commands import run_script
from heed.config import EvalConfig
from heed.saying import speaker

WORDS = ("generate", "compare", "score", "judge", "export", "report")


def main(arguments: Sequence[str]) -> None:
    word = arguments[0] if arguments and arguments[0] in WORDS else None
    keys = arguments[1:] if word else arguments
    loaded = config.load(EvalConfig, keys, doc=__doc__, flags=("explain", "verbose"), word=word)
    if loaded is None:
        return
    from heed.evaluation.run import evaluate  # heavy, and the command line is known to be good by now

    evaluate(loaded.config, word, say=speaker(verbose=loaded.verbose))


if __name__ == "__main__":
    run_script(main)
