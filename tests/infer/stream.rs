//! Ids to text with the fixture's tokenizer.

use janus_infer::TextStream;
use janus_infer::sampling::uniform;
use janus_model::processor::JanusTokenizer;

use crate::common::fixture;

const TEXTS: [&str; 5] = [
    "Plain words, twice: plain words.",
    "déjà vu — naïve façade\n\n\ttabs",
    "中文字符和标点。한국어 عربى",
    "👩‍🚀 flies a 🚀 past 🌍; 👍🏽",
    "e\u{301} \u{feff}x \u{10ffff}",
];

fn tokenizer(model: &str) -> JanusTokenizer {
    JanusTokenizer::from_dir(&fixture(model)).expect("the fixture's tokenizer")
}

fn stream(tokenizer: &JanusTokenizer, ids: &[u32], stops: &[String]) -> (String, Vec<String>) {
    let mut stream = TextStream::new(tokenizer, stops);
    let mut pieces: Vec<String> =
        ids.iter().map(|id| stream.push(*id as i32).expect("a known id")).collect();
    pieces.push(stream.finish());
    (pieces.concat(), pieces)
}

#[test]
fn characters_come_whole() {
    let tokenizer = tokenizer("tiny-pro/original");
    for text in TEXTS {
        let ids = tokenizer.encode_plain(text).expect("text");
        let (streamed, pieces) = stream(&tokenizer, &ids, &[]);
        assert_eq!(streamed, text);
        assert!(pieces.iter().all(|piece| !piece.contains('\u{fffd}')), "{pieces:?}");
        // An emoji takes several tokens here, so some of them must have given nothing.
        assert!(text.is_ascii() || pieces.iter().any(String::is_empty));
    }
}

#[test]
fn any_ids_stream_to_what_they_decode_to() {
    for model in ["tiny-pro/original", "tiny-odd/hf"] {
        let tokenizer = tokenizer(model);
        for round in 0..200 {
            let id = |step| (uniform(1, round, step) * tokenizer.size() as f64) as u32;
            let ids: Vec<u32> = (0..30).map(id).collect();
            let whole = tokenizer.decode(&ids, true).expect("known ids");
            assert_eq!(stream(&tokenizer, &ids, &[]).0, whole, "{model}: {ids:?}");
        }
    }
}

#[test]
fn nothing_comes_out_from_a_stop_string_on() {
    let tokenizer = tokenizer("tiny-pro/original");
    let ids = tokenizer.encode_plain("one two three two one").expect("text");
    let stops = |stops: &[&str]| stops.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
    for (stop, expected) in [
        (stops(&["two"]), "one "),
        (stops(&["ee two", "o three"]), "one tw"),
        (stops(&["", "four", "one!"]), "one two three two one"),
        (stops(&["one"]), ""),
    ] {
        assert_eq!(stream(&tokenizer, &ids, &stop).0, expected, "{stop:?}");
    }
    let mut stream = TextStream::new(&tokenizer, &stops(&["two"]));
    assert!(!ids.iter().all(|id| {
        stream.push(*id as i32).expect("a known id");
        !stream.stopped()
    }));
}

#[test]
fn ids_without_a_token_have_no_text() {
    let tokenizer = tokenizer("tiny-pro/original");
    for id in [-1, tokenizer.size() as i32, i32::MAX] {
        let text = TextStream::new(&tokenizer, &[]).push(id).expect("no text");
        assert_eq!(text, "", "{id}");
    }
}
