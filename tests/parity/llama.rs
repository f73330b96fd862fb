//! Merged prompt, decoder, text head, image head.

use burn::tensor::{Tensor, TensorData};
use janus_model::Janus;
use janus_model::llama::Mask;
use janus_model::rope::Positions;

use crate::common::{Case, Fixture, each, values};

/// Embeddings of the fixture's prompt: text with picture 0 in its places.
fn prompt(case: &Case) -> Tensor<3> {
    let f = &case.fixture;
    let pixels = f.float::<4>("pixel_values", case.device()).slice_dim(0, 0..1);
    let features = case.janus.encode_image(pixels).unwrap();
    let tokens = features.dims()[1];
    let ids = f.i32s("prompt.text_ids");
    let slots = vec![places(&ids, tokens)];
    case.janus.embed_prompt(f.ids("prompt.text_ids", case.device()), &slots, features).unwrap()
}

/// The longest run of one id is the run of placeholders.
pub fn places(ids: &[i32], tokens: usize) -> Vec<bool> {
    let start = ids.windows(tokens).position(|w| w.iter().all(|id| *id == w[0])).unwrap();
    (0..ids.len()).map(|i| (start..start + tokens).contains(&i)).collect()
}

/// Measured: 6.8e-7 flex, 6.8e-7 flex-bf16, 8.5e-7 ndarray, 9.6e-7 wgpu.
#[test]
fn merged_prompt() {
    each(|case| case.close("prompt.embeds", prompt(case)));
}

/// Measured: 1.7e-6 flex, 1.7e-6 flex-bf16, 1.5e-6 ndarray, 1.8e-6 wgpu.
#[test]
fn every_layer_and_the_logits() {
    each(|case| {
        let x = case.fixture.float::<3>("prompt.embeds", case.device());
        let rope = case.janus.rope(x.dims()[1]);
        let model = &case.janus.language_model.model;
        let mut index = 0;
        let hidden = model.forward_each(x, &rope, &Positions::From(0), &Mask::Causal, None, |y| {
            case.close(&format!("llama.layer.{index}"), y.clone());
            index += 1;
        });
        assert!(!case.fixture.has(&format!("llama.layer.{index}")));
        case.close("llama.output", hidden.clone());
        let tokens = hidden.dims()[1];
        let tail = hidden.slice_dim(1, tokens - 8..tokens);
        case.close("prompt.logits.tail", case.janus.text_logits(tail).unwrap());
    });
}

/// Two prompts of different lengths, the shorter padded on the left.
///
/// Measured: 1.5e-6 flex, 1.5e-6 flex-bf16, 1.1e-6 ndarray, 1.8e-6 wgpu.
#[test]
fn left_padded_batch() {
    each(|case| {
        let (f, device) = (&case.fixture, case.device());
        let pixels = f.float::<4>("pixel_values", device).slice_dim(0, 0..1);
        let features = case.janus.encode_image(pixels).unwrap();
        let [batch, tokens] = f.ids("batch.ids", device).dims();
        let ids = f.i32s("batch.ids");
        let slots: Vec<Vec<bool>> = (0..batch)
            .map(|row| match row {
                0 => places(&ids[..tokens], features.dims()[1]),
                _ => vec![false; tokens],
            })
            .collect();
        let x = case.janus.embed_prompt(f.ids("batch.ids", device), &slots, features).unwrap();
        let positions = Positions::Each(f.ids("batch.positions", device));
        let mask = Mask::Padded(f.mask("batch.mask", device));
        let hidden = case.janus.hidden(x, &case.janus.rope(tokens), &positions, &mask, None);
        let last = hidden.slice_dim(1, tokens - 1..tokens);
        let logits = case.janus.text_logits(last).unwrap();
        case.close("batch.logits.last", logits.squeeze_dim::<2>(1));
    });
}

/// Two documents and padding in one row, with positions of their own, against each alone.
///
/// Measured: 0 flex, 8.8e-7 flex-bf16, 5.6e-7 ndarray, 8.2e-7 wgpu.
#[test]
fn documents_in_one_row() {
    each(|case| {
        let parts = ["gen.prompt_ids", "gen.uncond_ids"].map(|key| case.fixture.i32s(key));
        let ints = |values: Vec<i32>| {
            let shape = [1, values.len()];
            Tensor::from_data(TensorData::new(values, shape), case.device())
        };
        let hidden = |ids: Vec<i32>, positions, mask| {
            let rope = case.janus.rope(ids.len());
            case.janus.hidden(case.janus.embed_text(ints(ids)), &rope, &positions, &mask, None)
        };
        let alone = parts.clone().map(|ids| hidden(ids, Positions::From(0), Mask::Causal));
        let (mut ids, mut positions, mut documents) = (Vec::new(), Vec::new(), Vec::new());
        for (number, part) in parts.iter().enumerate() {
            ids.extend(part);
            positions.extend(0..part.len() as i32);
            documents.extend(vec![number as i32; part.len()]);
        }
        for list in [&mut ids, &mut positions] {
            list.extend([0; 3]);
        }
        documents.extend([-1; 3]);
        let positions = Positions::Each(ints(positions));
        let mut rest = hidden(ids, positions, Mask::Documents(ints(documents)));
        for expected in alone {
            let tokens = expected.dims()[1];
            let part = rest.clone().slice_dim(1, 0..tokens);
            case.close_to("a document", &values(part), &values(expected));
            rest = rest.slice_dim(1, tokens..);
        }
        assert!(values(rest).iter().all(|v| v.is_finite()), "padding is a document, too");
    });
}

/// Conditional and unconditional logits of the first image token, and their mix at weight 5.
///
/// Measured: 8.5e-7 flex, 1.1e-6 flex-bf16, 1.4e-6 ndarray, 1.7e-6 wgpu.
#[test]
fn first_image_logits() {
    each(|case| {
        let logits = |key: &str| {
            let x = case.janus.embed_text(case.fixture.ids(key, case.device()));
            let tokens = x.dims()[1];
            let rope = case.janus.rope(tokens);
            let hidden = case.janus.hidden(x, &rope, &Positions::From(0), &Mask::Causal, None);
            let last = hidden.slice_dim(1, tokens - 1..tokens).squeeze_dim::<2>(1);
            case.janus.image_logits(last).unwrap()
        };
        let (cond, uncond) = (logits("gen.prompt_ids"), logits("gen.uncond_ids"));
        let guided = uncond.clone() + (cond.clone() - uncond.clone()) * 5.0;
        for (key, logits) in [("cond", cond), ("uncond", uncond), ("guided", guided)] {
            let key = format!("gen.logits.{key}");
            case.close_to(&key, &values(logits), &case.fixture.f32s(&key));
        }
    });
}

/// Guided logits of all steps of a picture, the codes given: the longest chain there is, through
/// the cache, with the prompt and its twin as two rows.
///
/// Measured: 2.1e-6 flex, 2.1e-6 flex-bf16, 1.6e-6 ndarray, 2.1e-6 wgpu.
#[test]
fn guided_image_logits_of_every_step() {
    each(|case| {
        let guided = guided_steps(&case.janus, &case.fixture);
        case.close_to("gen.guided.steps", &guided, &case.fixture.f32s("gen.guided.steps"));
    });
}

/// Logits at weight 5 of every code of the fixture's picture, those before it given.
pub fn guided_steps(janus: &Janus, f: &Fixture) -> Vec<f32> {
    let device = &janus.device();
    let rows = vec![f.ids("gen.prompt_ids", device), f.ids("gen.uncond_ids", device)];
    let codes = f.i32s("gen.codes");
    let mut x = janus.embed_text(Tensor::cat(rows, 0)); // [2, L, D]
    let room = x.dims()[1] + codes.len();
    let (rope, mut cache) = (janus.rope(room), janus.cache(2, room));
    let mut guided = Vec::new();
    for code in codes {
        let [rows, tokens, width] = x.dims();
        let at = Positions::From(cache.len());
        let hidden = janus.hidden(x, &rope, &at, &Mask::Causal, Some(&mut cache));
        let last = hidden.slice_dim(1, tokens - 1..tokens).reshape([rows, width]);
        let [cond, uncond] = values(janus.image_logits(last).unwrap())
            .chunks(f.shape("gen.logits.cond")[0])
            .map(<[f32]>::to_vec)
            .collect::<Vec<_>>()
            .try_into()
            .unwrap();
        guided.extend(cond.iter().zip(&uncond).map(|(c, u)| u + 5.0 * (c - u)));
        let both = TensorData::new(vec![code; 2], [2, 1]);
        x = janus.embed_codes(Tensor::from_data(both, device)).unwrap();
    }
    guided
}
