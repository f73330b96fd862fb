//! Greedy answers and guided codes of the fixture models equal PyTorch's, whichever way the
//! weights are named and packed.

use std::ops::ControlFlow;

use burn::tensor::{DType, Device};
use janus_infer::generate::pictures;
use janus_infer::guidance::unconditional;
use janus_infer::{Engine, ImageRequest, Prompt, Sampling, TextRequest, draw, write};
use janus_model::LoadOptions;
use janus_model::processor::ModelInput;

use crate::common::{Expected, argmax, fixture};
use crate::shared::targets;

/// Folder of the model, and of what it must compute.
const MODELS: [(&str, &str); 5] = [
    ("tiny-pro/original", "tiny-pro"),
    ("tiny-pro/hf", "tiny-pro"),
    ("tiny-odd/original-bin", "tiny-odd"),
    ("tiny-odd/hf", "tiny-odd"),
    ("../../weights/janus-tiny", "janus-tiny"),
];

fn load(folder: &str, dtype: Option<DType>, device: &Device) -> Engine {
    let options = LoadOptions { dtype, ..LoadOptions::default() };
    let (engine, _) = Engine::load(&fixture(folder), device, &options)
        .unwrap_or_else(|e| panic!("{folder}: {e:?}"));
    engine
}

/// Every model with its expectations, on every backend compiled in; weights as stored (bf16)
/// and in f32 on the CPU. Away from it, one folder of each model stands for the others, whose
/// weights are the same to the bit (`tests/parity/checkpoint.rs`). janus-tiny is the model that
/// comes with the program.
fn each(check: impl Fn(&str, &Engine, &Expected)) {
    for target in targets() {
        for (folder, model) in MODELS {
            if target.name.starts_with("flex")
                || ["tiny-pro/original", "tiny-odd/hf", "../../weights/janus-tiny"]
                    .contains(&folder)
            {
                let engine = load(folder, Some(target.dtype), &target.device);
                check(&format!("{folder} on {}", target.name), &engine, &Expected::of(model));
            }
        }
    }
}

/// `rows` with the fixture's first picture at its placeholders.
fn input(
    engine: &Engine,
    expected: &Expected,
    rows: Vec<Vec<i32>>,
    mask: Vec<Vec<bool>>,
) -> ModelInput {
    let placeholder = engine.processor().tokenizer.special().image_placeholder as i32;
    let slots = |row: &Vec<i32>| row.iter().map(|id| *id == placeholder).collect();
    let (shape, pixels) = expected.floats("pixel_values");
    let values = shape[1..].iter().product();
    ModelInput {
        image_slots: rows.iter().map(slots).collect(),
        positions: Vec::new(),
        ids: rows,
        attention_mask: mask,
        pixels: pixels[..values].to_vec(),
        n_images: 1,
        image_size: shape[3],
    }
}

#[test]
fn greedy_answers_are_pytorchs() {
    each(|folder, engine, expected| {
        let rows = expected.ids("prompt.text_ids");
        let mask = vec![vec![true; rows[0].len()]];
        let input = input(engine, expected, rows, mask);
        let prompt = Prompt::prepared(engine.janus(), &input).expect("a prompt");
        let request = TextRequest { max_new_tokens: 24, ..TextRequest::new(vec![]) };
        let answer = write(engine.janus(), prompt, request, |_| ControlFlow::Continue(()));
        let ids = answer.expect("an answer").remove(0).ids;
        assert_eq!(ids, expected.ids("greedy.ids")[0], "{folder}");
    });
}

#[test]
fn a_padded_batch_chooses_as_pytorch_does() {
    each(|folder, engine, expected| {
        let rows = expected.ids("batch.ids");
        let real = |row: &Vec<i32>| row.iter().map(|one| *one == 1).collect();
        let mask = expected.ids("batch.mask").iter().map(real).collect();
        let (shape, logits) = expected.floats("batch.logits.last");
        let best: Vec<i32> = logits.chunks_exact(shape[1]).map(argmax).collect();
        let input = input(engine, expected, rows, mask);
        let prompt = Prompt::prepared(engine.janus(), &input).expect("prompts");
        let request = TextRequest { max_new_tokens: 1, ..TextRequest::new(vec![]) };
        let answers = write(engine.janus(), prompt, request, |_| ControlFlow::Continue(()));
        let ids: Vec<i32> = answers.expect("answers").iter().map(|a| a.ids[0]).collect();
        assert_eq!(ids, best, "{folder}");
    });
}

#[test]
fn guided_codes_and_their_picture_are_pytorchs() {
    each(guided_codes);
}

fn guided_codes(folder: &str, engine: &Engine, expected: &Expected) {
    let prompt = expected.ids("gen.prompt_ids").remove(0);
    let pad = engine.processor().tokenizer.special().pad as i32;
    assert_eq!(unconditional(&prompt, pad), expected.ids("gen.uncond_ids")[0]);
    let request =
        ImageRequest { sampling: Sampling::GREEDY, ..ImageRequest::new(&prompt, pad, 0, 0..1) };
    let drawn = draw(engine.janus(), &request, |_| ControlFlow::Continue(()));
    let codes = drawn.expect("a drawing").codes;
    assert_eq!(codes, expected.ids("gen.codes"), "{folder}");
    let image = pictures(engine.janus(), &codes, 1).expect("a picture").remove(0);
    let (_, bytes) = expected.bytes("vq.decode.u8");
    assert_eq!(image.pixels().len(), bytes.len());
    // Truncation turns a difference in the last bit of a float into a whole level.
    let furthest = image.pixels().iter().zip(&bytes).map(|(a, b)| a.abs_diff(*b)).max();
    assert!(furthest <= Some(1), "{folder}: {furthest:?}");
}
