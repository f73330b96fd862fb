"""Prompt text and ids by the original rules (template "deepseek")."""

from tokenizers import Tokenizer

from tokenizer import ASSISTANT, BOI, EOS, IMAGE, USER, encode, special_ids

SYSTEM = (
    "You are a helpful language and vision assistant. "
    "You are able to understand the visual content that the user provides, "
    "and assist the user with a variety of tasks using natural language."
)


# Janus-1.3B spells the roles out; its template is the same otherwise.
TOKENS, WORDS = (USER, ASSISTANT), ("User", "Assistant")


def turns(*contents: str, roles: tuple[str, str] = TOKENS) -> list[dict]:
    """Alternating user and assistant turns; an empty last one opens the answer."""
    return [{"role": roles[i % 2], "content": content} for i, content in enumerate(contents)]


def render(system: str, messages: list[dict]) -> str:
    """The conversation as one string."""
    text = system + "\n\n" if system else ""
    for i, message in enumerate(messages):
        content = message["content"].strip()
        if content:
            text += f"{message['role']}: {content}" + ("\n\n" if i % 2 == 0 else EOS)
        else:
            text += f"{message['role']}:"
    return text.strip()


def prompt_ids(tokenizer: Tokenizer, text: str, image_tokens: int) -> list[int]:
    """One BOS, then the text with each placeholder grown to begin, `image_tokens` placeholders, end."""
    special = special_ids(tokenizer)
    block = [special["boi"], *[special["image_placeholder"]] * image_tokens, special["eoi"]]
    ids = [special["bos"]]
    for token in encode(tokenizer, text):
        ids += block if token == special["image_placeholder"] else [token]
    return ids


def generation_text(prompt: str, roles: tuple[str, str] = TOKENS) -> str:
    """Text-to-image prompt; no system prompt and no space before begin-of-image."""
    return render("", turns(prompt, "", roles=roles)) + BOI


def unconditional(ids: list[int], pad: int) -> list[int]:
    """The twin for guidance: same length, only the first and last token kept."""
    return [ids[0], *[pad] * (len(ids) - 2), ids[-1]]


def left_pad(rows: list[list[int]], pad: int) -> tuple[list[list[int]], list[list[int]]]:
    """Rows padded on the left to one length, and their mask."""
    longest = max(map(len, rows))
    ids = [[pad] * (longest - len(row)) + row for row in rows]
    mask = [[0] * (longest - len(row)) + [1] * len(row) for row in rows]
    return ids, mask


def prompt_cases(tokenizer: Tokenizer, image_tokens: int) -> list[dict]:
    """Golden prompts."""
    conversations = {
        "single_image": (SYSTEM, turns(f"{IMAGE}\nWhat is in this picture?", "")),
        "two_images": (SYSTEM, turns(f"{IMAGE}\nand {IMAGE}\nWhich one is red?", "")),
        "adjacent_images": (SYSTEM, turns(f"{IMAGE}{IMAGE}", "")),
        "multi_turn": (SYSTEM, turns(f"{IMAGE}\nWhat is this?", " A cat. ", "What colour?", "")),
        "three_answers": ("", turns("one", "two", "three", "four", "five", "six", "seven", "")),
        "text_only": (SYSTEM, turns("Hello, how are you?", "")),
        "empty_system": ("", turns(f"{IMAGE}\n你好，这是什么？", "")),
        "whitespace": (SYSTEM, turns("  \n spaces around \t\n", "")),
        "ends_with_user": ("Be brief.", turns("no answer yet  ")),
        "ends_with_answer": ("", turns("hi", "hello")),
        "system_with_spaces": ("  padded system ", turns("hi", "")),
        "special_in_content": ("", turns(f"say {EOS} now {BOI}", "")),
        "words_single_image": (SYSTEM, turns(f"{IMAGE}\nWhat is in this picture?", "", roles=WORDS)),
        "words_multi_turn": (SYSTEM, turns(f"{IMAGE}\nWhat is this?", " A cat. ", "What colour?", "", roles=WORDS)),
        "words_text_only": ("", turns("你好", "hello", "And now?", "", roles=WORDS)),
    }
    result = [_case(tokenizer, image_tokens, name, *conversation) for name, conversation in conversations.items()]
    for name, prompt in (("t2i", "a red cube on a blue sphere"), ("t2i_chinese", "一只红色的猫 🙂")):
        result += _generation_cases(tokenizer, name, prompt, TOKENS)
    return result + _generation_cases(tokenizer, "t2i_words", "a red cube on a blue sphere", WORDS)


def _case(tokenizer, image_tokens, name, system, messages) -> dict:
    text = render(system, messages)
    return {
        "name": name, "model": "tiny-pro", "system": system, "messages": messages,
        "expected_text": text, "n_images": text.count(IMAGE), "ids": prompt_ids(tokenizer, text, image_tokens),
    }


def _generation_cases(tokenizer, name, prompt, roles) -> list[dict]:
    """A text-to-image prompt and its unconditional twin."""
    text = generation_text(prompt, roles)
    ids = prompt_ids(tokenizer, text, 0)
    messages = turns(prompt, "", roles=roles)
    base = {"model": "tiny-pro", "system": "", "messages": messages, "expected_text": text, "n_images": 0}
    twin = unconditional(ids, special_ids(tokenizer)["pad"])
    return [{"name": name, **base, "ids": ids}, {"name": f"{name}_unconditional", **base, "ids": twin}]
