//! Prompts to text on a tiny random model.

use std::ops::ControlFlow;

use burn::tensor::Tensor;
use janus_infer::{FinishReason, InferError, Prompt, Sampling, TextRequest, Writing, write};
use janus_model::Janus;
use janus_model::llama::Mask;
use janus_model::processor::ModelInput;
use janus_model::rope::Positions;

use crate::common::{argmax, floats, ids, tiny};

const PAD: i32 = 59;

fn greedy(max_new_tokens: usize) -> TextRequest {
    TextRequest { max_new_tokens, ..TextRequest::new(vec![]) }
}

fn text(janus: &Janus, prompts: &[Vec<i32>]) -> Prompt {
    Prompt::text(janus, prompts, PAD).expect("prompts")
}

fn answers(janus: &Janus, prompts: &[Vec<i32>], request: TextRequest) -> Vec<Vec<i32>> {
    let prompt = text(janus, prompts);
    let answers = write(janus, prompt, request, |_| ControlFlow::Continue(())).expect("answers");
    answers.into_iter().map(|answer| answer.ids).collect()
}

/// The greedy answer to embeddings `[1, T, D]`, everything computed anew at every step.
fn slow(janus: &Janus, prompt: Tensor<3>, count: usize) -> Vec<i32> {
    let (mut x, mut answer) = (prompt, Vec::new());
    for _ in 0..count {
        let tokens = x.dims()[1];
        let rope = janus.rope(tokens);
        let hidden = janus.hidden(x.clone(), &rope, &Positions::From(0), &Mask::Causal, None);
        let logits = floats(janus.text_logits(hidden).expect("loaded")); // [T, V]
        answer.push(argmax(&logits[(tokens - 1) * 60..]));
        let next = janus.embed_text(ids(&[vec![answer[answer.len() - 1]]]));
        x = Tensor::cat(vec![x, next], 1);
    }
    answer
}

#[test]
fn cached_answers_are_those_of_the_slow_loop() {
    let janus = tiny();
    let prompt = vec![1, 10, 20, 30];
    let expected = slow(&janus, janus.embed_text(ids(std::slice::from_ref(&prompt))), 20);
    assert_eq!(answers(&janus, &[prompt], greedy(20)), [expected]);
}

/// One picture, 4 tokens of it, between text.
fn question() -> ModelInput {
    ModelInput {
        ids: vec![vec![PAD, 1, 3, 5, 5, 5, 5, 4, 20]],
        attention_mask: vec![[vec![false], vec![true; 8]].concat()],
        positions: vec![vec![1, 0, 1, 2, 3, 4, 5, 6, 7]],
        image_slots: vec![[vec![false; 3], vec![true; 4], vec![false; 2]].concat()],
        pixels: (0..3 * 8 * 8).map(|i| (i % 17) as f32 / 8.5 - 1.0).collect(),
        n_images: 1,
        image_size: 8,
    }
}

#[test]
fn a_padded_question_with_a_picture_is_that_of_the_slow_loop() {
    let janus = tiny();
    let input = question();
    let pixels = burn::tensor::TensorData::new(input.pixels.clone(), [1, 3, 8, 8]);
    let features = janus.encode_image(Tensor::from_data(pixels, &janus.device())).expect("loaded");
    let (row, slots) = (vec![input.ids[0][1..].to_vec()], vec![input.image_slots[0][1..].to_vec()]);
    let unpadded = janus.embed_prompt(ids(&row), &slots, features).expect("as many slots");
    let expected = slow(&janus, unpadded, 12);
    let prompt = Prompt::prepared(&janus, &input).expect("a question");
    let answer = write(&janus, prompt, greedy(12), |_| ControlFlow::Continue(())).expect("answer");
    assert_eq!(answer[0].ids, expected);
}

#[test]
fn a_padded_batch_gives_the_answers_of_single_rows() {
    let janus = tiny();
    let prompts = [vec![1, 2, 3, 4, 5, 6], vec![7], vec![8, 9, 10]];
    for sampling in [Sampling::GREEDY, Sampling { top_k: Some(5), ..Sampling::default() }] {
        let request = TextRequest { sampling, seed: 4, ..greedy(10) };
        let together = answers(&janus, &prompts, request.clone());
        for row in 0..3 {
            let request = TextRequest { first: row as u64, ..request.clone() };
            let alone = answers(&janus, &prompts[row..=row], request);
            assert_eq!(alone[0], together[row], "row {row}");
        }
    }
}

#[test]
fn an_answer_stops_at_a_stop_id_and_the_others_go_on() {
    let janus = tiny();
    let prompts = [vec![1, 2, 3], vec![4, 5, 6]];
    let free = answers(&janus, &prompts, greedy(12));
    let stop = free[0][4];
    let first = |row: &Vec<i32>| row.iter().position(|id| *id == stop);
    let request = TextRequest { stop_ids: vec![stop], ..greedy(12) };
    let prompt = text(&janus, &prompts);
    let stopped = write(&janus, prompt, request, |_| ControlFlow::Continue(())).expect("answers");
    for (answer, free) in stopped.iter().zip(&free) {
        let (length, reason) = match first(free) {
            Some(at) => (at, FinishReason::Stop),
            None => (12, FinishReason::Length),
        };
        assert_eq!(answer.ids, free[..length]);
        assert_eq!(answer.finish, Some(reason));
    }
}

#[test]
fn a_full_context_is_told_apart_from_a_limit() {
    let janus = tiny();
    let prompt = vec![3; 60];
    let answer = |max_new_tokens| {
        let prompt = text(&janus, std::slice::from_ref(&prompt));
        let request = greedy(max_new_tokens);
        let answers = write(&janus, prompt, request, |_| ControlFlow::Continue(()));
        answers.expect("room for some").remove(0)
    };
    // 64 positions: 60 of the prompt, 4 tokens that are read, one more that is only chosen.
    assert_eq!((answer(4).ids.len(), answer(4).finish), (4, Some(FinishReason::Length)));
    assert_eq!((answer(5).ids.len(), answer(5).finish), (5, Some(FinishReason::Length)));
    assert_eq!((answer(6).ids.len(), answer(6).finish), (5, Some(FinishReason::ContextFull)));
    let full = answer(usize::MAX);
    assert_eq!((full.ids.len(), full.finish), (5, Some(FinishReason::ContextFull)));
    let error = Writing::new(&janus, text(&janus, &[vec![3; 65]]), greedy(1));
    assert!(matches!(error, Err(InferError::TooLong { prompt: 65, limit: 64, .. })));
}

#[test]
fn breaking_off_takes_effect_within_the_step() {
    let janus = tiny();
    let mut seen = Vec::new();
    let answers = write(&janus, text(&janus, &[vec![1, 2]]), greedy(20), |token| {
        seen.push(token.id);
        if seen.len() == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let answer = answers.expect("three steps").remove(0);
    assert_eq!((answer.finish, &answer.ids), (Some(FinishReason::Cancelled), &seen));
}

#[test]
fn a_kept_cache_goes_on_where_it_ended() {
    let janus = tiny();
    let whole = vec![1, 10, 20, 30, 40, 50];
    let expected = answers(&janus, std::slice::from_ref(&whole), greedy(8)).remove(0);
    let prompt = text(&janus, &[whole[..3].to_vec()]);
    let mut writing =
        Writing::resume(&janus, janus.cache(1, 20), prompt, greedy(5)).expect("room for both");
    while !writing.is_done() {
        writing.step().expect("a step");
    }
    let (_, mut cache) = writing.finish();
    assert_eq!(cache.len(), 3 + 4);
    cache.truncate(3);
    let prompt = text(&janus, &[whole[3..].to_vec()]);
    let mut writing = Writing::resume(&janus, cache, prompt, greedy(8)).expect("room for both");
    while !writing.is_done() {
        writing.step().expect("a step");
    }
    assert_eq!(writing.answers()[0].ids, expected);
}

#[test]
fn impossible_requests_are_refused() {
    let janus = tiny();
    let none = Writing::new(&janus, text(&janus, &[vec![1]]), greedy(0));
    assert_eq!(none.expect_err("0").to_string(), "max_new_tokens: 0 tokens are no answer");
    for prompts in [vec![], vec![vec![]], vec![vec![60]], vec![vec![-1]]] {
        assert!(Prompt::text(&janus, &prompts, PAD).is_err(), "{prompts:?}");
    }
    let short = ModelInput { pixels: vec![0.0; 5], ..question() };
    let error = Prompt::prepared(&janus, &short).expect_err("5 values").to_string();
    assert_eq!(error, "pixels: 5 values for 1 pictures of 192");
    let mut unfilled = question();
    (unfilled.n_images, unfilled.pixels) = (0, vec![]);
    assert!(Prompt::prepared(&janus, &unfilled).is_err());
}
