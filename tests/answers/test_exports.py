import json
from pathlib import Path

from heed.answers.exports import write_alpaca_eval, write_messages
from heed.answers.responses import Answer

PLAIN = Answer(row_id=0, instruction="Say hi.", input="", output="Hi.", model_response="Hello.")
WHOLE = Answer(
    row_id=1,
    instruction="Add.",
    input="1 and 2",
    output="3",
    model_response="3.",
    system_prompt="Be brief.",
    history=({"role": "user", "content": "Sort.", "input": "b a"}, {"role": "assistant", "content": "a b"}),
)


def test_alpaca_eval_gets_the_input_after_the_instruction(tmp_path: Path) -> None:
    path = write_alpaca_eval(tmp_path, [PLAIN, WHOLE], generator="runs/demo", dataset="rows.json")
    assert json.loads(path.read_text()) == [
        {"instruction": "Say hi.", "output": "Hello.", "generator": "runs/demo", "dataset": "rows.json"},
        {"instruction": "Add.\n\n1 and 2", "output": "3.", "generator": "runs/demo", "dataset": "rows.json"},
    ]


def test_messages_contain_the_whole_conversation_and_the_models_answer(tmp_path: Path) -> None:
    path = write_messages(tmp_path, [PLAIN, WHOLE])
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"messages": [{"role": "user", "content": "Say hi."}, {"role": "assistant", "content": "Hello."}]},
        {
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Sort.\n\nb a"},
                {"role": "assistant", "content": "a b"},
                {"role": "user", "content": "Add.\n\n1 and 2"},
                {"role": "assistant", "content": "3."},
            ]
        },
    ]
