"""Does transformers load what `janus convert --names hf` wrote, and compute the same?

    janus convert tests/fixtures/tiny-pro/original OUT --names hf
    python tests/reference/check_export.py OUT tests/fixtures/tiny-pro/hf

Both folders are loaded by transformers alone. Passes when no weight is missing or left over, text
logits, image logits and decoded pixels of both are equal to the bit, and the processor of OUT
gives the ids that the prompt rules ask for.
"""

import argparse
import sys

import torch
from transformers import AutoProcessor, JanusForConditionalGeneration

QUESTION = "What is in this picture?"


def load(folder):
    model, info = JanusForConditionalGeneration.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True
    )
    problems = {key: value for key, value in info.items() if value}
    assert not problems, f"{folder}: {problems}"
    return model.eval()


def outputs(model, seed=0):
    """Logits of a prompt with a picture, image logits of its last state, pixels of random codes."""
    config = model.config
    make = torch.Generator().manual_seed(seed)
    tokens, size = config.vision_config.num_image_tokens, config.vision_config.image_size
    text = torch.randint(0, config.image_token_id - 16, (1, 12), generator=make)
    image = torch.full((1, tokens), config.image_token_id)
    ids = torch.cat([text[:, :6], image, text[:, 6:]], dim=1)
    pixels = torch.rand(1, 3, size, size, generator=make) * 2 - 1
    grid = config.vq_config.num_patches
    codes = torch.randint(0, config.vq_config.num_embeddings, (1, grid * grid), generator=make)
    with torch.no_grad():
        hidden = model.model(input_ids=ids, pixel_values=pixels).last_hidden_state
        embedded = model.prepare_embeddings_for_image_generation(codes)
        return {
            "text logits": model.lm_head(hidden),
            "image logits": model.model.generation_head(hidden[:, -1]),
            "code embeddings": embedded,
            "pixels": model.decode_image_tokens(codes),
        }


def check_processor(folder):
    processor = AutoProcessor.from_pretrained(folder)
    tokenizer = processor.tokenizer
    chat = [
        {
            "role": "user",
            "content": [{"type": "image"}, {"type": "text", "text": QUESTION}],
        }
    ]
    text = processor.apply_chat_template(chat, add_generation_prompt=True)
    assert text == f"<|User|>: <image_placeholder>\n{QUESTION}\n\n<|Assistant|>:", repr(text)
    size = processor.image_processor.size["height"]
    picture = torch.zeros(3, size, size, dtype=torch.uint8)
    batch = processor(text=text, images=[picture], return_tensors="pt")
    ids = batch["input_ids"][0].tolist()
    assert ids.count(tokenizer.bos_token_id) == 1 and ids[0] == tokenizer.bos_token_id, ids[:4]
    slots = ids.count(tokenizer.convert_tokens_to_ids("<image_placeholder>"))
    assert slots == processor.num_image_tokens, (slots, processor.num_image_tokens)
    assert tuple(batch["pixel_values"].shape[-2:]) == (size, size)
    return processor


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("export", help="folder that janus wrote")
    parser.add_argument("reference", help="folder that transformers wrote")
    args = parser.parse_args()

    export, reference = load(args.export), load(args.reference)
    for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
        ours = getattr(export.generation_config, key)
        assert ours == getattr(reference.generation_config, key), (key, ours)
    theirs = outputs(reference)
    for name, ours in outputs(export).items():
        difference = (ours - theirs[name]).abs().max().item()
        print(f"{name}: {tuple(ours.shape)}, largest difference {difference}")
        assert difference == 0, name
    check_processor(args.export)
    print("processor: chat template, begin token and image places as expected")
    return 0


if __name__ == "__main__":
    sys.exit(main())
