"""A small byte-level BPE in the manner of DeepSeek-LLM, with Janus-Pro's special tokens."""

import json
import unicodedata
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

BOS, EOS, PAD = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>"
BOI, EOI = "<begin_of_image>", "<end_of_image>"
IMAGE, PATCH = "<image_placeholder>", "<patch_placeholder>"
GROUNDING = ["<|ref|>", "<|/ref|>", "<|det|>", "<|/det|>", "<|grounding|>"]
USER, ASSISTANT = "<|User|>", "<|Assistant|>"
# The byte-level symbols of the 13 bytes that never occur in UTF-8. The base
# vocabulary lacks them; the 7B tokenizer adds them as ordinary tokens, which
# shifts all later ids by 13 (and makes a literal "ö" in a text one such token).
EXTRA_CHARACTERS = list("øöúÿõ÷ûýÀùÁþü")
BASE_VOCABULARY = 560

_SENTENCES = [
    "What is in this picture? There is a {0} {1} next to the {2}.",
    "Describe the {2} in detail, please. The {1} is {0} and the {2} is small.",
    "You are a helpful language and vision assistant. You are able to understand the visual content.",
    "A {0} {1} under a bright sky, best quality, film grained, a photo of a {2}.",
    "The user provides a {2} and the assistant answers with natural language.",
    "图片里有什么？这是一只{0}的{1}。请描述这张图片，谢谢。",
    "你好，世界！今天的天气很好，我们去看{2}。",
    "def {1}(x, y):\n    return x + {3} * y  # {2}\n",
    "for i in range({3}):\n    print(f\"{{i}}: {1}\")\n",
    "In {3}, {1} had {3} items at ${3}.99 each 🙂🚀\n\n",
    "Привет, {1}! Ça va? Größe {3}, naïve café.\t{2}\n",
]
_COLOURS = ["red", "blue", "green", "yellow", "black", "white"]
_THINGS = ["cat", "dog", "cube", "sphere", "house", "river", "mountain", "tree"]


def training_text() -> list[str]:
    """A few hundred lines of mixed text, enough for some hundred merges."""
    lines = []
    for i in range(240):
        words = (_COLOURS[i % 6], _THINGS[i % 8], _THINGS[(3 * i + 1) % 8], 1 + 37 * i % 2048)
        lines.append(_SENTENCES[i % len(_SENTENCES)].format(*words))
    return lines


def _cased_letters() -> str:
    """Character class of all cased letters, as ranges.

    Built from Unicode data instead of copied as text: some range ends change
    under normalisation, which silently turns ranges around. Mathematical
    alphabets are not part of DeepSeek's class.
    """
    def cased(code):
        return unicodedata.category(chr(code)) in ("Lu", "Ll", "Lt") and not 0x1D400 <= code <= 0x1D7FF

    ranges, start = [], None
    for code in range(0x20000):
        if cased(code) and start is None:
            start = code
        elif not cased(code) and start is not None:
            ranges.append((start, code - 1))
            start = None
    return "".join(chr(a) if a == b else f"{chr(a)}-{chr(b)}" for a, b in ranges)


def pre_tokenizer():
    """DeepSeek-LLM's splits, applied one after the other, then single digits, then bytes."""
    patterns = [
        "[\r\n]",
        f"\\s?[{_cased_letters()}]+",
        "\\s?[!-/:-~！-／：-～‘-‟\u3000-。]+",
        "\\s+$",
        "[一-龥\u0800-一가-\ud7ff]+",
    ]
    splits = [pre_tokenizers.Split(Regex(pattern), "isolated", invert=False) for pattern in patterns]
    digits = pre_tokenizers.Digits(individual_digits=True)
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=False)
    return pre_tokenizers.Sequence(splits + [digits, byte_level])


def train_base() -> Tokenizer:
    """The plain BPE, before any special token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer()
    trainer = trainers.BpeTrainer(
        vocab_size=BASE_VOCABULARY, show_progress=False,
        initial_alphabet=sorted(set(pre_tokenizers.ByteLevel.alphabet()) - set(EXTRA_CHARACTERS)),
    )
    tokenizer.train_from_iterator(training_text(), trainer)
    assert tokenizer.get_vocab_size() == BASE_VOCABULARY
    return tokenizer


def with_fillers(base: Tokenizer, size: int) -> Tokenizer:
    """`base` with its vocabulary filled up to `size` by tokens no text produces."""
    model = json.loads(base.to_str())["model"]
    vocabulary = dict(model["vocab"])
    for i in range(len(vocabulary), size):
        vocabulary[f"<filler_{i:06}>"] = i
    merges = [tuple(pair) for pair in model["merges"]]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizer()
    return tokenizer


def finish(tokenizer: Tokenizer, *, reserved: int, extra_characters: bool, adds_bos: bool) -> Tokenizer:
    """Adds the special tokens in Janus-Pro's order; ids follow from the order."""
    tokenizer.decoder = decoders.ByteLevel()
    _add(tokenizer, [BOS, EOS])
    if extra_characters:
        tokenizer.add_tokens([AddedToken(c, special=False, normalized=False) for c in EXTRA_CHARACTERS])
    _add(tokenizer, [PAD, BOI])
    _add(tokenizer, [f"<reserved_{i:03}>" for i in range(reserved)])
    _add(tokenizer, [EOI, IMAGE, PATCH, *GROUNDING, USER, ASSISTANT])
    if adds_bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, tokenizer.token_to_id(BOS))])
    else:
        tokenizer.post_processor = processors.ByteLevel(add_prefix_space=True, trim_offsets=False, use_regex=True)
    return tokenizer


def _add(tokenizer: Tokenizer, tokens: list[str]):
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in tokens])


def special_ids(tokenizer: Tokenizer) -> dict[str, int]:
    """Ids by role, resolved by string because they differ between sizes."""
    roles = {"bos": BOS, "eos": EOS, "pad": PAD, "boi": BOI, "eoi": EOI, "image_placeholder": IMAGE,
             "user": USER, "assistant": ASSISTANT}
    return {role: tokenizer.token_to_id(token) for role, token in roles.items()}


def encode(tokenizer: Tokenizer, text: str) -> list[int]:
    """Ids without BOS; special tokens inside the text are recognised."""
    return tokenizer.encode(text, add_special_tokens=False).ids


def write_json(path: Path, value):
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def write_original_files(folder: Path, tokenizer: Tokenizer, image: int, tokens: int, positions: int):
    """Tokenizer and processor files as the original repositories ship them."""
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(folder / "tokenizer_config.json", {
        "bos_token": BOS, "clean_up_tokenization_spaces": False, "eos_token": EOS,
        "model_max_length": positions, "pad_token": None, "tokenizer_class": "LlamaTokenizer",
        "unk_token": None, "use_default_system_prompt": True,
    })
    write_json(folder / "special_tokens_map.json", {
        "additional_special_tokens": [IMAGE, PATCH, *GROUNDING, USER, ASSISTANT],
        "bos_token": BOS, "eos_token": EOS, "pad_token": PAD,
    })
    write_json(folder / "processor_config.json", {
        "add_special_token": False, "ignore_id": -100, "image_tag": IMAGE, "mask_prompt": True,
        "num_image_tokens": tokens, "processor_class": "VLChatProcessor", "sft_format": "deepseek",
    })
    write_json(folder / "preprocessor_config.json", {
        "background_color": [127, 127, 127], "do_normalize": True, "image_mean": [0.5, 0.5, 0.5],
        "image_processor_type": "VLMImageProcessor", "image_size": image, "image_std": [0.5, 0.5, 0.5],
        "min_size": 14, "processor_class": "VLChatProcessor", "rescale_factor": 0.00392156862745098,
    })


CASES = [
    "", "a", " ", "  ", "Hello, how are you?", "hello world", " leading space", "trailing space ",
    "two  spaces   three    four", "\n", "\n\n", "line one\nline two\r\nline three", "\ttab\tseparated\t",
    "mixed \n \t whitespace  \n", "What is in this picture?", "A portrait of young girl. masterpiece, film grained, best quality.",
    "0123456789", "3.14159 and 2,718", "v1.2.3-rc4", "年2024月12日", "１２３ full-width digits", "½ ² Ⅷ ٣",
    "你好，世界！", "图片里有什么？", "日本語のテキスト", "한국어 문장", "中英 mixed 文本 test",
    "Привет, мир", "Ελληνικά", "naïve café Größe", "e\u0301 combining", "ﬁ ligature ℎ 𝐀",
    "🙂🚀👩‍👩‍👧‍👦🇩🇪", "emoji🙂inside", "def f(x):\n    return x ** 2  # square\n", "if (a<=b && c!=d) { e->f(); }",
    "snake_case CamelCase kebab-case", "\u3000ideographic space", "\u00a0nbsp\u2003em", "øöúÿ extra ÷ þ",
    f"{USER}: hi\n\n{ASSISTANT}:", f"{USER}: {IMAGE}\nWhat?\n\n{ASSISTANT}:", f"{IMAGE}{IMAGE}",
    f"a{BOI}b{EOI}c", f"{ASSISTANT}: ok{EOS}{USER}: more", f"{BOS}double", f" {PAD} ", "<|User |> <image_placeholder",
    f"{GROUNDING[4]}{GROUNDING[0]}cat{GROUNDING[1]}{PATCH}",
]


def cases(tokenizer: Tokenizer) -> list[dict]:
    """Golden encodings of `CASES`."""
    return [{"text": text, "ids": encode(tokenizer, text)} for text in CASES]
