"""Writes the seeds of fuzz/corpus/: small valid files, and one mutation for each row of bad inputs.

    python fuzz/make_corpus.py

Deterministic and without dependencies. A seed's name starts with the row it belongs to, `ok` for
valid files. Files named by cargo-fuzz (40 hexadecimal digits) are found inputs and are kept.
"""

import json
import struct
import zlib
from pathlib import Path

HERE = Path(__file__).parent
FIXTURES = HERE.parent / "tests" / "fixtures"


def put(target, name, data):
    folder = HERE / "corpus" / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data.encode() if isinstance(data, str) else data)


def put_json(target, name, value):
    put(target, name, json.dumps(value, ensure_ascii=False, separators=(",", ":")))


# --- safetensors ---


def safetensors(header, data=b"", length=None):
    if not isinstance(header, bytes):
        header = (header if isinstance(header, str) else json.dumps(header, separators=(",", ":"))).encode()
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def entry(dtype="F32", shape=(1,), offsets=(0, 4)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def make_safetensors():
    target = "safetensors_header"
    two = {"gen_embed.weight": entry("BF16", (2, 2), (0, 8)), "b": entry("I64", (1,), (8, 16))}
    put(target, "ok-two", safetensors(two, bytes(16)))
    put(target, "ok-metadata", safetensors({"__metadata__": {"format": "pt"}, "a": entry()}, bytes(4)))
    put(target, "ok-padded", safetensors(json.dumps({"a": entry()}) + "      ", bytes(4)))
    put(target, "ok-empty", safetensors({}))
    kinds = {"F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
    header, at = {}, 0
    for kind, size in kinds.items():
        header[kind] = entry(kind, (), (at, at + size))
        at += size
    put(target, "ok-every-dtype", safetensors(header, bytes(at)))
    put(target, "w1-short", b"\x02\0\0\0\0\0\0")
    put(target, "w2-longer-than-file", safetensors("{}", length=1000))
    put(target, "w3-absurd-length", safetensors("{}", length=2**64 - 1))
    put(target, "w4-not-utf8", safetensors(b"{\xff\xfe}"))
    put(target, "w4-nul-padding", safetensors("{}\0\0\0"))
    put(target, "w4-comma", safetensors('{"a":1,}'))
    row = '"x":{"dtype":"F32","shape":[1],"data_offsets":[%s]}'
    put(target, "w5-duplicate", safetensors("{" + row % "0,4" + "," + row % "4,8" + "}", bytes(8)))
    put(target, "w6-overlap", safetensors({f"t{i}": entry() for i in range(3)}, bytes(4)))
    put(target, "w7-gap", safetensors({"a": entry(), "b": entry(offsets=(8, 12))}, bytes(12)))
    put(target, "w8-trailing", safetensors({"a": entry()}, bytes(5)))
    put(target, "w8-missing", safetensors({"a": entry()}, bytes(3)))
    put(target, "w9-reversed", safetensors({"a": entry(offsets=(4, 0))}, bytes(4)))
    put(target, "w9-negative", safetensors({"a": entry(offsets=(-4, 0))}, bytes(4)))
    put(target, "w10-size", safetensors({"a": entry(shape=(2,))}, bytes(4)))
    put(target, "w11-overflow", safetensors({"a": entry(shape=(2**32, 2**32))}, bytes(4)))
    put(target, "w11-max", safetensors({"a": entry(shape=(2**64 - 1, 2))}, bytes(4)))
    put(target, "w12-dtype", safetensors({"a": entry("F8_E4M3", (0,), (0, 0))}))
    put(target, "w13-crowd", safetensors({str(i): entry("U8", (0,), (0, 0)) for i in range(40)}))
    put(target, "w14-rank", safetensors({"a": entry(shape=[1] * 9)}, bytes(4)))
    put(target, "w14-zero", safetensors({"a": entry(shape=(0, 4), offsets=(0, 0))}))
    put(target, "w17-control", safetensors({"a\0\x1b[31m\nERROR\u009b": entry(offsets=(0, 8))}, bytes(8)))
    put(target, "w17-long", safetensors({"n" * 513: entry()}, bytes(4)))
    put(target, "w20-lfs", "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4178705734\n")
    put(target, "w20-html", "\n<!DOCTYPE html><html></html>")
    put(target, "p7-zip", b"PK\x03\x04" + bytes(26))


# --- shard index ---


def make_index():
    def index(pairs):
        return {"metadata": {"total_size": 32}, "weight_map": pairs}

    target = "index_json"
    put_json(target, "ok-both", index({"a": "1", "b": "2"}))
    put_json(target, "ok-one", index({"a": "1"}))
    for name, shard in {
        "parent": "../1", "absolute": "/1", "backslash": "..\\1", "drive": "C:1",
        "folder": "x/1", "nul": "1\0", "empty": "", "dots": "..", "control": "1\n\u009b",
    }.items():
        put_json(target, f"i1-{name}", index({"a": shard}))
    put_json(target, "i2-missing", index({"a": "1", "b": "3", "c": "3"}))
    put_json(target, "i2-lacks", index({"a": "1", "b": "1"}))
    put_json(target, "i2-not-listed", index({"x": "1"}))
    put_json(target, "i2-swapped", index({"a": "2", "b": "1"}))
    put(target, "i2-twice", '{"weight_map":{"a":"1","a":"2"}}')
    put(target, "i2-self", '{"weight_map":{"a":"model.safetensors.index.json"}}')
    put(target, "i3-no-json", "no")
    put(target, "i3-list", '{"weight_map":["1"]}')
    put(target, "i3-number", '{"weight_map":{"a":1}}')
    put(target, "i3-empty", '{"weight_map":{}}')
    put(target, "i3-deep", "[" * 200)
    put_json(target, "i3-crowd", index({str(i): str(i) for i in range(40)}))
    put(target, "i3-no-map", '{"metadata":{}}')


# --- pickle ---


def text(value):
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def integer(value):
    return b"\x8a\x08" + struct.pack("<q", value)


def tuple_of(*items):
    return b"(" + b"".join(items) + b"t"


def tensor(kind="FloatStorage", key="0", elements=4, offset=0, size=(2, 2), stride=(2, 1)):
    storage = b"ctorch\n" + kind.encode() + b"\n"
    identity = tuple_of(text("storage"), storage, text(key), text("cpu"), integer(elements)) + b"Q"
    shape, strides = (tuple_of(*map(integer, numbers)) for numbers in (size, stride))
    hooks = b"ccollections\nOrderedDict\n)R"
    arguments = tuple_of(identity, integer(offset), shape, strides, b"\x89", hooks)
    return b"ctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"R"


def state_dict(**items):
    code = b"\x80\x02ccollections\nOrderedDict\nq\x00)Rq\x01("
    code += b"".join(text(name) + value for name, value in items.items())
    return code + b"u}q\x02" + text("_metadata") + b"h\x00)Rsb."


def archive(pickle, storage=bytes(range(16)), order=b"little", bend=None, zip64=False):
    """`bend(parts)` may change the entries: [name, data, flags, method, claimed size]."""
    parts = [["a/data.pkl", pickle, 0, 0, None], ["a/byteorder", order, 0, 0, None],
             ["a/data/0", storage, 0, 0, None], ["a/version", b"3\n", 0, 0, None]]
    if bend:
        parts = bend(parts) or parts
    file, central = b"", b""
    for name, data, flags, method, claimed in parts:
        name, local, crc = name.encode(), len(file), zlib.crc32(data)
        sizes = struct.pack("<III", crc, len(data), len(data))
        file += b"PK\x03\x04" + struct.pack("<HHHHH", 20, flags, method, 0, 0) + sizes
        file += struct.pack("<HH", len(name), 0) + name + data
        size = len(data) if claimed is None else claimed
        extra, offset = b"", local
        if zip64:
            extra, offset = struct.pack("<HHQ", 1, 8, local), 0xFFFFFFFF
        central += b"PK\x01\x02" + struct.pack("<HHHHHH", 20, 20, flags, method, 0, 0)
        central += struct.pack("<III", crc, size, size) + struct.pack("<HHHHHI", len(name), len(extra), 0, 0, 0, 0)
        central += struct.pack("<I", offset) + name + extra
    start, end, count = len(file), b"", len(parts)
    if zip64:
        at = start + len(central)
        end = b"PK\x06\x06" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, count, count, len(central), start)
        end += b"PK\x06\x07" + struct.pack("<IQI", 0, at, 1)
    end += b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, count, count, len(central), start, 0)
    return file + central + end


def make_pickle():
    target = "pickle_reader"
    plain = state_dict(w=tensor())
    parameter = b"ctorch._utils\n_rebuild_parameter\n"
    parameter += tuple_of(tensor(), b"\x88", b"ccollections\nOrderedDict\n)R") + b"R"
    put(target, "ok", archive(plain))
    put(target, "ok-zip64", archive(plain, zip64=True))
    put(target, "ok-views", archive(state_dict(
        a=tensor(stride=(1, 2)), b=tensor(offset=2, size=(2,), stride=(1,)), c=parameter,
        d=tensor("BFloat16Storage", elements=8, size=(2, 4), stride=(4, 1)), e=tensor(size=(0,), stride=(1,)))))

    # Programs alone: the target puts them into an archive.
    def program(name, code):
        put(target, name, code)

    program("ok-program", plain)
    program("ok-program-protocol-4", b"\x80\x04\x95" + bytes(8) + b"}\x94(" + b"\x8c\x01w\x94" + tensor() + b"u.")
    program("p1-posix", b"\x80\x02cposix\nsystem\n" + tuple_of(text("true")) + b"R.")
    program("p1-stack-global", b"\x80\x04" + text("os") + text("system") + b"\x93.")
    program("p1-near-miss", b"\x80\x02ctorch._utils\n_rebuild_tensor\n.")
    program("p2-reduce", b"\x80\x02ctorch\nFloatStorage\n)R.")
    program("p2-build", b"\x80\x02]}b.")
    for name, code in {"inst": b"(iposix\nsystem\n", "obj": b"(ccollections\nOrderedDict\no",
                       "newobj": b"ccollections\nOrderedDict\n)\x81", "ext": b"\x82\x01", "persid": b"Pid\n"}.items():
        program(f"p2-{name}", b"\x80\x02" + code + b".")
    program("p3-marks", b"\x80\x02" + b"(" * 300 + b".")
    program("p3-lists", b"\x80\x02" + b"]" * 300 + b"a" * 299 + b".")
    program("p3-cycle", b"\x80\x02]q\x00h\x00a}q\x01" + text("k") + b"h\x01s.")
    program("p3-memo", b"\x80\x02j\xff\xff\xff\xff.")
    program("p3-endless", b"\x80\x02" + b"N0" * 300)
    program("p3-cut", b"\x80\x02\x8d" + b"\xff" * 8)
    for name, view in {
        "small": dict(size=(5,), stride=(1,)), "offset": dict(offset=1), "stride-0": dict(size=(1 << 40,), stride=(0,)),
        "twice": dict(size=(3, 2), stride=(1, 1)), "negative": dict(offset=-1), "negative-size": dict(size=(-1,), stride=(1,)),
        "overflow": dict(size=(2**63 - 1, 2**63 - 1), stride=(1, 1)), "far": dict(offset=2**63 - 1, stride=(2**63 - 1,) * 2),
        "rank": dict(size=(1,) * 9, stride=(1,) * 9), "declared": dict(elements=2), "key": dict(key="9"),
        "double": dict(kind="DoubleStorage", elements=2, size=(2,), stride=(1,)),
        "empty-far": dict(offset=2**63 - 1, size=(0, 2**63 - 1), stride=(1, 1)),
    }.items():
        program(f"p5-{name}", state_dict(w=tensor(**view)))
    program("p6-module", b"\x80\x02ctorch.nn.modules.linear\nLinear\n.")
    program("p6-none", b"\x80\x02N.")
    program("p6-list", b"\x80\x02].")
    program("p6-number", state_dict(epoch=integer(3)))
    program("p6-twice", state_dict(w=tensor())[:-1].replace(b"u}q", text("w") + tensor() + b"u}q", 1) + b".")

    # Archives.
    def bent(name, index, field, value):
        def bend(parts):
            parts[index][field] = value
        put(target, name, archive(plain, bend=bend))

    bent("p4-compressed", 0, 3, 8)
    bent("p4-encrypted", 2, 2, 1)
    bent("p4-parent", 2, 0, "a/../0")
    bent("p4-control", 2, 0, "a/data/\x1b\n")
    bent("p4-duplicate", 3, 0, "a/data/0")
    bent("p4-claims-less", 2, 4, 4)
    bent("p4-claims-more", 2, 4, 1 << 30)
    bent("p4-claims-ones", 2, 4, 0xFFFFFFFF)
    bent("p4-two-pickles", 3, 0, "b/data.pkl")
    bent("p4-no-pickle", 0, 0, "a/other")
    whole = archive(plain)
    put(target, "p4-truncated", whole[: len(whole) // 2])
    put(target, "p4-extended", whole + b"MZ")
    put(target, "p4-lying-zip64", archive(plain, zip64=True).replace(struct.pack("<Q", 44), b"\xff" * 8))
    put(target, "p6-big-endian", archive(plain, order=b"big"))
    put(target, "p6-legacy", bytes.fromhex("80028a0a6cfc9c46f9206aa850192e8002") + b"M\xe9\x03.")
    put(target, "p7-safetensors", safetensors({"a": entry()}, bytes(4)))


# --- config ---


def make_config():
    target = "config_json"
    folders = {"pro": "tiny-pro/original", "pro-hf": "tiny-pro/hf", "odd": "tiny-odd/original-bin", "odd-hf": "tiny-odd/hf"}
    configs = {name: json.loads((FIXTURES / path / "config.json").read_text()) for name, path in folders.items()}
    for name, value in configs.items():
        put_json(target, f"ok-{name}", value)

    def changed(name, base, path, value):
        copy = json.loads(json.dumps(configs[base]))
        *parents, last = path.split(".")
        place = copy
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
        put_json(target, name, copy)

    for index, (base, path, value) in enumerate([
        ("pro", "gen_head_config.params.n_embed", None), ("pro", "vision_config.cls", "Other"),
        ("pro", "vision_config.params.image_size", "96\u009b"), ("pro-hf", "vision_config.hidden_act", "relu"),
        ("pro-hf", "text_config", []), ("odd", "model_type", "llama"),
    ]):
        changed(f"c1-{index}", base, path, value)
    for index, (base, path, value) in enumerate([
        ("pro", "language_config.num_hidden_layers", 10**9), ("pro", "language_config.vocab_size", 2**40),
        ("pro", "language_config.num_attention_heads", 0), ("pro", "language_config.head_dim", -1),
        ("odd", "language_config.num_key_value_heads", 3), ("odd", "vision_config.params.heads", 7),
        ("pro-hf", "vision_config.patch_size", 0), ("odd-hf", "vq_config.channel_multiplier", [1] * 64),
        ("odd-hf", "vq_config.base_channels", 2**63), ("pro", "vision_config.params.select_layer", -(2**63)),
        ("pro", "vision_config.params.select_layer", -2), ("pro-hf", "vision_config.mlp_ratio", 1e308),
        ("odd-hf", "vision_config.mlp_ratio", 3.9070), ("pro", "gen_head_config.params.image_token_embed", 48),
    ]):
        changed(f"c2-{index}", base, path, value)
    for index, (base, path, value) in enumerate([
        ("pro", "language_config.rope_theta", 0), ("pro", "language_config.rms_norm_eps", -1e-6),
        ("pro-hf", "vision_config.layer_norm_eps", 0.1234567890123456789), ("odd", "language_config.rope_theta", 500000.1),
        ("pro-hf", "text_config.rope_parameters", {"rope_type": "default", "rope_theta": 1e4}),
        ("pro-hf", "text_config.rope_scaling", {"type": "linear", "factor": 2}),
    ]):
        changed(f"c3-{index}", base, path, value)
    put(target, "c3-inf", json.dumps(configs["pro"]).replace('"language_config": {', '"language_config": {"rope_theta": 1e999,'))
    put(target, "c4-deep", "[" * 200)
    put(target, "c1-comment", "// sizes\n{}")
    changed("c5-auto-map", "pro-hf", "auto_map", {"AutoModel": "modeling.Janus"})


# --- tokenizer ---

SPECIAL = ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>", "<begin_of_image>", "<end_of_image>",
           "<image_placeholder>", "<|User|>", "<|Assistant|>"]


def tokenizer(**changes):
    """Letters a and b, two merges, byte-level parts: the smallest with every needed token."""
    vocab = {token: index for index, token in enumerate(["a", "b", "Ġ", "Ċ", "1", "'", "ab", "aab", "<", "|"])}
    added = [{"id": len(vocab) + index, "content": token, "single_word": False, "lstrip": False, "rstrip": False,
              "normalized": False, "special": True} for index, token in enumerate(SPECIAL)]
    value = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "post_processor": None, "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "vocab": vocab,
                  "merges": ["a b", "a ab"]},
    }
    for path, change in changes.items():
        *parents, last = path.split("__")
        place = value
        for parent in parents:
            place = place[int(parent[1:]) if parent.startswith("_") else parent]
        place[int(last[1:]) if last.startswith("_") else last] = change
    return value


def make_tokenizer():
    target = "tokenizer_json"

    def one(name, **changes):
        put_json(target, name, tokenizer(**changes))

    one("ok")
    split = {"type": "Split", "pattern": {"Regex": "\\s?\\p{L}+|[^\\s]"}, "behavior": "Isolated", "invert": False}
    one("ok-sequence", pre_tokenizer={"type": "Sequence", "pretokenizers": [
        split, {"type": "Digits", "individual_digits": True}, tokenizer()["pre_tokenizer"]]},
        normalizer={"type": "Sequence", "normalizers": []})
    one("ok-pairs", model__merges=[["a", "b"], ["a", "ab"]])
    one("ok-unk", model__unk_token="a", model__fuse_unk=True, model__byte_fallback=True)
    one("ok-prefix", model__continuing_subword_prefix="", model__end_of_word_suffix="b")
    for index, kind in enumerate([
        {"type": "NFC"}, {"type": "NFKD"}, {"type": "Lowercase"}, {"type": "StripAccents"}, {"type": "Nmt"},
        {"type": "Strip", "strip_left": True, "strip_right": True}, {"type": "Prepend", "prepend": "a"},
        {"type": "Replace", "pattern": {"String": "a"}, "content": "<|User|>"},
        {"type": "Replace", "pattern": {"Regex": "a*"}, "content": ""}, {"type": "Replace", "pattern": {"String": ""}, "content": "b"},
        {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True},
        {"type": "ByteLevel"}, {"type": "Precompiled", "precompiled_charsmap": "AAAA"},
    ]):
        one(f"ok-normalizer-{index:02}", normalizer=kind)
    for index, kind in enumerate([
        split | {"behavior": "MergedWithNext", "invert": True}, {"type": "Whitespace"}, {"type": "WhitespaceSplit"},
        {"type": "BertPreTokenizer"}, {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
        {"type": "CharDelimiterSplit", "delimiter": "a"}, {"type": "Punctuation", "behavior": "Contiguous"},
        {"type": "UnicodeScripts"}, {"type": "FixedLength", "length": 0},
        split | {"pattern": {"String": ""}}, split | {"pattern": {"Regex": "(?=a)|(a+)+$"}},
    ]):
        one(f"ok-pre-tokenizer-{index:02}", pre_tokenizer=kind)
    for index, kind in enumerate([
        {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "WordPiece", "prefix": "##", "cleanup": True},
        {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": True},
        {"type": "BPEDecoder", "suffix": "</w>"}, {"type": "CTC", "pad_token": "a", "word_delimiter_token": "b", "cleanup": True},
        {"type": "Replace", "pattern": {"String": ""}, "content": "a"},
        {"type": "Sequence", "decoders": [{"type": "Strip", "content": "a", "start": 1, "stop": 1}, {"type": "Fuse"}]},
    ]):
        one(f"ok-decoder-{index:02}", decoder=kind)
    one("k1-absent", model__merges=["a x"])
    one("k1-result-absent", model__merges=["b b"])
    one("k1-alone", model__merges=["a"])
    one("k1-three", model__merges=["a b a"])
    one("k1-prefix", model__continuing_subword_prefix="######")
    one("k1-unigram", model={"type": "Unigram", "vocab": [["a", 0.0]]})
    one("k1-word-piece", model__type="WordPiece")
    put(target, "k1-deep", "[" * 200)
    cut = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 1}
    pad = {"strategy": {"Fixed": 4}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0, "pad_token": "x"}
    one("ok-truncation", truncation=cut, padding=pad)
    one("k2-stride", truncation=cut | {"stride": 4})
    one("k2-fixed", padding=pad | {"strategy": {"Fixed": 0}})
    one("k2-multiple", padding=pad | {"strategy": "BatchLongest", "pad_to_multiple_of": 0})
    template = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<no>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                "pair": [], "special_tokens": {}}
    one("k2-template", post_processor=template)
    one("ok-template", post_processor={"type": "Sequence", "processors": [
        tokenizer()["decoder"], template | {"single": [{"Sequence": {"id": "A", "type_id": 0}}]}]})
    one("k2-strip", decoder={"type": "Strip", "content": " ", "start": 0, "stop": 4000000000})
    one("k2-strip-two", decoder={"type": "Strip", "content": "a", "start": 0, "stop": 2})
    one("k3-shared-id", model__vocab__b=0)
    one("k3-gap", model__vocab__b=999999)
    one("k3-negative", model__vocab__b=-1)
    one("k3-swapped", added_tokens___6__id=17, added_tokens___7__id=16)
    one("k3-byte", model__byte_fallback=True, model__vocab={**tokenizer()["model"]["vocab"], "<0xZZ>": 10})
    for index, token in enumerate(SPECIAL[:6]):
        one(f"k4-{index}", **{f"added_tokens___{index}__content": "<renamed>"})
    one("k4-no-user", added_tokens___6__content="<renamed>")
    one("k4-empty", added_tokens___6__content="")
    plain = json.dumps(tokenizer(), ensure_ascii=False, separators=(",", ":"))
    put(target, "k4-named", plain + '\0{"bos_token":"<|User|>","eos_token":{"content":"aab"},"pad_token":"<pad>"}')
    put(target, "k4-escape", plain + '\0{"bos_token":"\u009b31m"}')
    behavior = {**split, "behavior": "Is\x7flated"}
    one("k1-behavior", pre_tokenizer=behavior)
    one("k5-normalized", normalizer={"type": "Replace", "pattern": {"String": "b"}, "content": "<|User|>"},
        added_tokens___6__normalized=True)
    one("k5-stripping", added_tokens___6__lstrip=True, added_tokens___6__rstrip=True, added_tokens___5__single_word=True)


# --- pictures ---


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width=3, height=2, depth=8, color=2, data=None, extra=b"", interlace=0):
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color]
    row = (width * depth * channels + 7) // 8
    if data is None:
        data = b"".join(bytes([line % 5]) + bytes((line * 40 + i * 17) % 256 for i in range(row)) for line in range(height))
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, interlace)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def make_images():
    target = "image_decode"
    for path in sorted((FIXTURES / "images").iterdir()):
        if path.suffix in (".png", ".jpg", ".gif", ".webp", ".bmp"):
            put(target, "ok-" + path.name.replace(".", "-"), path.read_bytes())
    jpeg = (FIXTURES / "images" / "grey.jpg").read_bytes()
    webp = (FIXTURES / "images" / "lossy.webp").read_bytes()
    put(target, "ok-small-png", png())
    put(target, "ok-interlaced-png", png(9, 9, interlace=1, data=bytes(400)))
    put(target, "ok-deep-png", png(depth=16, color=6))
    put(target, "m1-html", "  <!DOCTYPE html><html>")
    put(target, "m1-text", "BM is how this text begins, no bitmap")
    put(target, "m2-cut-png", png()[:50])
    put(target, "m2-cut-jpeg", jpeg[:-2])
    put(target, "m2-cut-webp", webp[: len(webp) // 2])
    at = jpeg.index(b"\xff\xc4")
    put(target, "m2-huffman", jpeg[: at + 5] + b"\xc8" + jpeg[at + 6 :])
    put(target, "m2-crc", png()[:-14] + b"\0" + png()[-13:])
    put(target, "m3-bomb", png(100000, 100000, data=b"")[:60])
    put(target, "m3-inflates", png(512, 100, data=bytes(154000)))
    frame = jpeg.index(b"\xff\xc0")
    put(target, "m3-jpeg", jpeg[: frame + 5] + b"\xff\xff\xff\xff" + jpeg[frame + 9 :])
    put(target, "m3-gif", b"GIF89a\x01\0\x01\0\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0\xff\xff\xff\xff\0\x02\x02\x44\x01\0;")
    put(target, "m4-zero", png(0, 5, data=b""))
    put(target, "m4-one", png(1, 1))
    put(target, "m4-long", png(500, 1))
    put(target, "m5-frames", (FIXTURES / "images" / "animated.gif").read_bytes()[:-1] + b",\0\0\0\0\x28\0\x1e\0\0\x02\x02\xff\xff\0" * 9)
    put(target, "m6-texts", png(extra=chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(1000))) + chunk(b"iCCP", b"k\0\0xx")))
    for value in (0, 6, 9, 65535):
        tiff = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0" + struct.pack("<HHI", value, 0, 8)
        put(target, f"m6-exif-{value}", png(extra=chunk(b"eXIf", tiff)))
    exif = b"Exif\0\0II*\0\xf0\xff\xff\xff\x01\0"
    put(target, "m6-exif-far", jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:])
    put(target, "m7-tiff", b"II*\0\x08\0\0\0")
    put(target, "m7-svg", '<?xml version="1.0"?>\n<svg/>')
    put(target, "m7-avif", b"\0\0\0\x20ftypavif\0\0\0\0")


# --- tar shards ---


def tar_member(name, data=b"", kind=b"0", size=None, magic=b"ustar  \0"):
    """A header with a true checksum, and contents in whole blocks."""
    name = name.encode() if isinstance(name, str) else name
    size = len(data) if size is None else size
    # Numbers that octal digits cannot hold are written in base 256.
    digits = b"%011o\0" % size if size < 8**11 else b"\x80" + size.to_bytes(11, "big")
    header = bytearray(512)
    header[: len(name)] = name
    header[100:108], header[108:116], header[116:124] = b"0000644\0", b"0000000\0", b"0000000\0"
    header[124:136], header[136:148], header[148:156] = digits, b"00000000000\0", b" " * 8
    header[156:157], header[257:265] = kind, magic
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + data + bytes(-len(data) % 512)


def extended(*pairs):
    """Records of extended headers, each with its own length in front."""
    text = b""
    for key, value in pairs:
        rest = f" {key}={value}\n".encode()
        length = len(rest)
        while len(str(length)) + len(rest) != length:
            length = len(str(length)) + len(rest)
        text += str(length).encode() + rest
    return tar_member("PaxHeaders/x", text, b"x", magic=b"ustar\x0000")


def make_tar():
    target, end = "tar_sample", bytes(1024)
    picture = png(3, 2)
    good = tar_member("a.png", picture) + tar_member("a.txt", b"a cat")

    def shard(name, *members, close=end):
        put(target, name, good + b"".join(members) + close)

    def pair(name):
        return tar_member(f"{name}.png", picture) + tar_member(f"{name}.txt", b"a dog")

    shard("ok", pair("b"))
    shard("ok-no-end", pair("b"), close=b"")
    shard("ok-json", tar_member("b.jpg", picture), tar_member("b.json", b'{"caption": "a dog"}'))
    shard("ok-folder", tar_member("f/", kind=b"5"), pair("f/b"))
    shard("ok-long-name", tar_member("././@LongLink", b"n" * 150 + b".png\0", b"L"), tar_member("n", picture),
          tar_member("././@LongLink", b"n" * 150 + b".txt\0", b"L"), tar_member("n", b"a dog"))
    shard("ok-extended", extended(("path", "b.png"), ("mtime", "1.5")), tar_member("x", picture),
          extended(("path", "b.txt")), tar_member("y", b"a dog"))
    shard("d3-parent", pair("../b"))
    shard("d3-inside-parent", pair("f/../../b"))
    shard("d3-absolute", pair("/etc/b"))
    shard("d3-backslash", pair("..\\b"))
    shard("d3-extended-parent", extended(("path", "../b.png")), tar_member("x", picture))
    for name, kind in {"link": b"1", "symlink": b"2", "char": b"3", "block": b"4", "fifo": b"6", "unknown": b"Z"}.items():
        shard(f"d3-{name}", tar_member("b.png", kind=kind))
    shard("d3-sparse", tar_member("b.png", picture, b"S"))
    shard("d3-sparse-extended", extended(("GNU.sparse.major", "1"), ("GNU.sparse.realsize", "99999999")), tar_member("b.png"))
    put(target, "d3-cut-member", (good + pair("b"))[: len(good) + 520])
    put(target, "d3-cut-header", (good + pair("b"))[: len(good) + 100])
    put(target, "d3-empty", b"")
    shard("d3-checksum", pair("b").replace(b"b.png", b"c.png"))
    shard("d3-no-text", tar_member("b.png", picture))
    shard("d3-no-picture", tar_member("b.txt", b"a dog"))
    shard("d3-empty-text", tar_member("b.png", picture), tar_member("b.txt"))
    shard("d3-not-utf8", tar_member("b.png", picture), tar_member("b.txt", b"\xff\xfe"))
    shard("d3-blind-json", tar_member("b.png", picture), tar_member("b.json", b'{"x": 1}'))
    shard("d3-key-twice", pair("b"), pair("a"))
    shard("d3-two-pictures", pair("b"), tar_member("b.png", picture))
    shard("d3-8-gib", tar_member("b.png", picture, size=9 << 30))
    shard("d3-base-256", tar_member("b.png", picture, size=1 << 60))
    shard("d3-extended-size", extended(("size", str(9 << 30))), tar_member("b.png", picture))
    shard("d3-two-sizes", extended(("size", "7")), tar_member("b.png", picture))
    shard("d3-extended-broken", tar_member("x", b"99 x\n", b"x"))
    shard("d3-long-long-name", tar_member("././@LongLink", b"n" * 300, b"L", size=100_000))
    shard("d3-control", tar_member(b"b.p\x1b[2Jng\x07", kind=b"2"), tar_member(b"\x9b\xff.png", picture))


def main():
    for make in (make_safetensors, make_index, make_pickle, make_config, make_tokenizer, make_images, make_tar):
        make()
    for folder in sorted((HERE / "corpus").iterdir()):
        sizes = [path.stat().st_size for path in folder.iterdir()]
        print(f"{folder.name:20} {len(sizes):4} files {sum(sizes):7} bytes")


if __name__ == "__main__":
    main()
