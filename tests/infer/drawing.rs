//! Text to pictures on a tiny random model.

use std::ops::ControlFlow;

use burn::tensor::Tensor;
use janus_infer::generate::{pictures, pixels};
use janus_infer::guidance::unconditional;
use janus_infer::{
    Drawing, Guidance, ImageRequest, ImageSpec, InferError, Sampler, Sampling, draw, memory,
};
use janus_model::llama::Mask;
use janus_model::rope::Positions;
use janus_model::{Janus, Parts, Precision};

use crate::common::{argmax, config, floats, ids, tiny};

const PAD: i32 = 59;
const PROMPT: [i32; 5] = [1, 10, 20, 30, 2];

fn request(seed: u64, indices: std::ops::Range<u64>) -> ImageRequest {
    ImageRequest::new(&PROMPT, PAD, seed, indices)
}

fn codes(janus: &Janus, request: &ImageRequest) -> Vec<Vec<i32>> {
    let drawn = draw(janus, request, |_| ControlFlow::Continue(())).expect("a drawing");
    assert!(drawn.complete);
    drawn.codes
}

/// Image logits after a prompt and some codes, in one pass without cache: `[C]`.
fn uncached(janus: &Janus, prompt: &[i32], codes: &[i32]) -> Vec<f32> {
    let mut x = janus.embed_text(ids(&[prompt.to_vec()]));
    if !codes.is_empty() {
        let codes = janus.embed_codes(ids(&[codes.to_vec()])).expect("loaded");
        x = Tensor::cat(vec![x, codes], 1);
    }
    let [_, tokens, width] = x.dims();
    let rope = janus.rope(tokens);
    let hidden = janus.hidden(x, &rope, &Positions::From(0), &Mask::Causal, None);
    let last = hidden.slice_dim(1, tokens - 1..tokens).reshape([1, width]);
    floats(janus.image_logits(last).expect("loaded"))
}

/// The greedy codes by the formula of the paper, everything computed anew at every step.
fn slow(janus: &Janus, prompt: &[i32], weight: f32, total: usize) -> Vec<i32> {
    let twin = unconditional(prompt, PAD);
    let mut codes = Vec::new();
    for _ in 0..total {
        let conditional = uncached(janus, prompt, &codes);
        let unconditional = uncached(janus, &twin, &codes);
        let mixed: Vec<f32> =
            conditional.iter().zip(unconditional).map(|(c, u)| u + weight * (c - u)).collect();
        codes.push(argmax(&mixed));
    }
    codes
}

#[test]
fn cached_codes_are_those_of_the_slow_loop() {
    let janus = tiny();
    for weight in [0.0, 1.0, 5.0] {
        let greedy = ImageRequest {
            guidance: Guidance::words(weight),
            sampling: Sampling::GREEDY,
            ..request(0, 0..1)
        };
        let expected = slow(&janus, &PROMPT, weight, 16);
        assert_eq!(codes(&janus, &greedy), [expected], "weight {weight}");
    }
}

#[test]
fn cached_logits_are_those_of_one_pass() {
    let janus = tiny();
    let drawn = codes(&janus, &request(3, 0..1)).remove(0);
    let rope = janus.rope(21);
    let mut cache = janus.cache(1, 20);
    let mut x = janus.embed_text(ids(&[PROMPT.to_vec()]));
    let mut worst = 0.0f32;
    for done in 0..16 {
        let [_, tokens, width] = x.dims();
        let positions = Positions::From(cache.len());
        let hidden = janus.hidden(x, &rope, &positions, &Mask::Causal, Some(&mut cache));
        let last = hidden.slice_dim(1, tokens - 1..tokens).reshape([1, width]);
        let logits = floats(janus.image_logits(last).expect("loaded"));
        for (a, b) in logits.iter().zip(uncached(&janus, &PROMPT, &drawn[..done])) {
            worst = worst.max((a - b).abs());
            // Measured: 2.5e-6.
            assert!((a - b).abs() < 2e-5, "step {done}: {a} and {b}");
        }
        x = janus.embed_codes(ids(&[vec![drawn[done]]])).expect("loaded");
    }
    println!("measured: {worst:.1e}");
}

#[test]
fn a_picture_is_the_same_whatever_is_drawn_beside_it() {
    let janus = tiny();
    for weight in [1.0, 5.0] {
        let guided =
            |indices| ImageRequest { guidance: Guidance::words(weight), ..request(7, indices) };
        let three = codes(&janus, &guided(0..3));
        for index in 0..3 {
            let alone = codes(&janus, &guided(index..index + 1));
            assert_eq!(alone[0], three[index as usize], "picture {index}");
        }
        assert_ne!(three[0], three[1]);
    }
}

#[test]
fn a_seed_repeats_and_another_differs() {
    let janus = tiny();
    assert_eq!(codes(&janus, &request(5, 0..2)), codes(&janus, &request(5, 0..2)));
    assert_ne!(codes(&janus, &request(5, 0..1)), codes(&janus, &request(6, 0..1)));
}

#[test]
fn prompts_of_different_lengths_share_a_batch() {
    let janus = tiny();
    let prompts = [vec![1, 2], vec![1, 10, 20, 30, 40, 2], vec![1, 33, 12, 2]];
    let image = |(i, prompt): (usize, &Vec<i32>)| {
        ImageSpec::words(prompt.clone(), Sampler { seed: 9, stream: i as u64 })
    };
    let together = ImageRequest {
        images: prompts.iter().enumerate().map(image).collect(),
        ..request(0, 0..0)
    };
    let all = codes(&janus, &together);
    for (i, spec) in together.images.iter().enumerate() {
        let alone = ImageRequest { images: vec![spec.clone()], ..together.clone() };
        assert_eq!(codes(&janus, &alone)[0], all[i], "prompt {i}");
    }
}

#[test]
fn weight_1_computes_no_twin() {
    let janus = tiny();
    let rows = |weight| {
        let request = ImageRequest { guidance: Guidance::words(weight), ..request(0, 0..3) };
        Drawing::new(&janus, &request).expect("a request").rows()
    };
    assert_eq!((rows(1.0), rows(5.0), rows(0.0)), (3, 6, 6));
}

#[test]
fn the_cache_is_exactly_filled() {
    let janus = tiny();
    let mut drawing = Drawing::new(&janus, &request(0, 0..2)).expect("a request");
    assert_eq!(drawing.cached(), (0, 5 + 15));
    let mut steps = 0;
    while drawing.step().expect("a step") {
        steps += 1;
        assert_eq!(drawing.done(), steps);
        assert_eq!(drawing.cached().0, 5 + steps - 1);
    }
    // The last code is chosen, and its embedding never computed.
    assert_eq!(drawing.done(), 16);
    assert_eq!(drawing.cached(), (20, 20));
    assert!(!drawing.step().expect("nothing to do"));
    assert!(drawing.finish().complete);
}

#[test]
fn breaking_off_takes_effect_within_the_step() {
    let janus = tiny();
    let mut calls = 0;
    let drawn = draw(&janus, &request(0, 0..2), |progress| {
        calls += 1;
        assert_eq!((progress.done, progress.total), (calls, 16));
        assert!(progress.codes.iter().all(|codes| codes.len() == calls));
        if calls == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let drawn = drawn.expect("three steps");
    assert_eq!((calls, drawn.complete), (3, false));
    assert_eq!(drawn.codes, codes(&janus, &request(0, 0..2)).map_prefix(3));
}

trait Prefix {
    fn map_prefix(self, n: usize) -> Self;
}

impl Prefix for Vec<Vec<i32>> {
    fn map_prefix(mut self, n: usize) -> Self {
        self.iter_mut().for_each(|codes| codes.truncate(n));
        self
    }
}

#[test]
fn pixels_do_not_depend_on_the_chunk() {
    let janus = tiny();
    let codes = codes(&janus, &request(1, 0..3));
    let whole = pixels(&janus, &codes, 8).expect("pixels");
    assert_eq!((whole.len(), whole[0].len()), (3, 3 * 8 * 8));
    for chunk in [0, 1, 2] {
        for (a, b) in whole.concat().iter().zip(pixels(&janus, &codes, chunk).expect("").concat()) {
            assert!((a - b).abs() < 1e-5, "{a} and {b}");
        }
    }
    let image = &pictures(&janus, &codes, 1).expect("pictures")[2];
    assert_eq!((image.width(), image.height()), (8, 8));
}

#[test]
fn impossible_requests_are_refused_before_anything_is_computed() {
    let janus = tiny();
    let ok = request(0, 0..1);
    let prompt = |prompt: Vec<i32>| {
        let sampler = Sampler { seed: 0, stream: 0 };
        ImageRequest { images: vec![ImageSpec::words(prompt, sampler)], ..ok.clone() }
    };
    let cases = [
        (request(0, 0..0), "ids: the rows are empty"),
        (prompt(vec![]), "ids: the rows are empty"),
        (prompt(vec![1, 60]), "ids: 60 is not in 0..60"),
        (prompt(vec![1, -1]), "ids: -1 is not in 0..60"),
        (prompt(vec![1; 50]), "the prompt takes 50 tokens and 15 more must fit after it"),
        (ImageRequest { guidance: Guidance::words(f32::NAN), ..ok.clone() }, "guidance: NaN"),
        (
            ImageRequest {
                sampling: Sampling { top_k: Some(0), ..Sampling::default() },
                ..ok.clone()
            },
            "top_k is 0",
        ),
    ];
    for (request, message) in cases {
        let error = Drawing::new(&janus, &request).expect_err(message).to_string();
        assert!(error.starts_with(message), "{error}");
    }
    for codes in [vec![0; 15], vec![40; 16], vec![-1; 16]] {
        let error = pixels(&janus, &[codes], 1).expect_err("no picture").to_string();
        assert_eq!(error, "codes: a picture has 16 codes, each in 0..40");
    }
}

#[test]
fn a_model_without_the_generation_half_says_so() {
    let device = burn::tensor::Device::flex();
    let janus = config().init(Parts::Understanding, Precision::F32, &device);
    let error = draw(&janus, &request(0, 0..1), |_| ControlFlow::Continue(()));
    assert!(matches!(
        error,
        Err(InferError::Model(janus_model::Error::PartNotLoaded { part: "gen_head", .. }))
    ));
}

#[test]
fn the_forecast_counts_every_parameter() {
    use burn::module::Module;
    for parts in [Parts::All, Parts::Understanding, Parts::Generation] {
        let janus = config().init(parts, Precision::F32, &burn::tensor::Device::flex());
        let counted: u64 = memory::elements(&config(), parts).iter().map(|(_, e)| e.total()).sum();
        assert_eq!(counted, janus.num_params() as u64, "{parts:?}");
    }
}
