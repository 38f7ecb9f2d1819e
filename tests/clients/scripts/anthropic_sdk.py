"""Talks to the model by Anthropic's SDK, and lets it call write_note. anthropic_sdk.py BASE MODEL PROMPT"""

import os
import sys

import anthropic

base, model, prompt = sys.argv[1:]
client = anthropic.Anthropic(base_url=base, api_key=os.environ["KIMI_GATEWAY_KEY"], max_retries=0)
schema = {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]}
tools = [{"name": "write_note", "description": "Writes a word down.", "input_schema": schema}]


def write_note(word):
    with open("note.txt", "w") as note:
        note.write(word)
    return f"{word} is written"


def ask(messages):
    """What the model says, after the calls that it wants."""
    thinking = {"type": "enabled", "budget_tokens": 1024}
    with client.messages.stream(
        model=model, max_tokens=4096, thinking=thinking, tools=tools, messages=messages
    ) as events:
        message = events.get_final_message()
    results = [
        {"type": "tool_result", "tool_use_id": block.id, "content": write_note(**block.input)}
        for block in message.content
        if block.type == "tool_use"
    ]
    if not results:
        return "".join(block.text for block in message.content if block.type == "text")
    said = {"role": "assistant", "content": message.content}
    return ask([*messages, said, {"role": "user", "content": results}])


print(ask([{"role": "user", "content": prompt}]))
