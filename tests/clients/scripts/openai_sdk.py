"""Talks to the model by OpenAI's SDK, and lets it call write_note. openai_sdk.py BASE MODEL PROMPT chat|responses"""

import json
import os
import sys

import openai

base, model, prompt, api = sys.argv[1:]
client = openai.OpenAI(base_url=f"{base}/v1", api_key=os.environ["KIMI_GATEWAY_KEY"], max_retries=0)
parameters = {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]}
function = {"name": "write_note", "description": "Writes a word down.", "parameters": parameters}


def write_note(arguments):
    word = json.loads(arguments)["word"]
    with open("note.txt", "w") as note:
        note.write(word)
    return f"{word} is written"


def ask_chat(messages):
    """What the model says, after the calls that it wants."""
    tools = [{"type": "function", "function": function}]
    text, thoughts, calls = "", "", {}
    for chunk in client.chat.completions.create(model=model, messages=messages, tools=tools, stream=True):
        for choice in chunk.choices:
            text += choice.delta.content or ""
            # Kimi's own; it wants it back.
            thoughts += getattr(choice.delta, "reasoning_content", None) or ""
            for part in choice.delta.tool_calls or []:
                call = calls.setdefault(part.index, {"id": part.id, "name": part.function.name, "arguments": ""})
                call["arguments"] += part.function.arguments or ""
    if not calls:
        return text
    asked = [
        {"id": call["id"], "type": "function", "function": {"name": call["name"], "arguments": call["arguments"]}}
        for call in calls.values()
    ]
    said = {"role": "assistant", "content": text, "reasoning_content": thoughts, "tool_calls": asked}
    results = [
        {"role": "tool", "tool_call_id": call["id"], "content": write_note(call["arguments"])}
        for call in calls.values()
    ]
    return ask_chat([*messages, said, *results])


def ask_responses(items):
    tools = [{"type": "function", "strict": False, **function}]
    with client.responses.stream(model=model, input=items, tools=tools, store=False) as events:
        for _ in events:
            pass
        response = events.get_final_response()
    results = [
        {"type": "function_call_output", "call_id": item.call_id, "output": write_note(item.arguments)}
        for item in response.output
        if item.type == "function_call"
    ]
    return ask_responses([*items, *response.output, *results]) if results else response.output_text


ask = {"chat": ask_chat, "responses": ask_responses}[api]
print(ask([{"role": "user", "content": prompt}]))
