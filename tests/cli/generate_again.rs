use std::path::Path;

use insta::assert_snapshot;
use serde_json::{Value, json};

use crate::generate::{codes, generate};
use crate::generate_files::picture;
use crate::{Ran, copy_of, fixtures, read_tensors, run, write_tensors};

/// What the chunk of a file says.
pub fn record(path: &Path) -> Value {
    let bytes = std::fs::read(path).unwrap();
    let keyword = b"iTXtjanus\0\0\0\0\0";
    let at = bytes.windows(keyword.len()).position(|part| part == keyword).unwrap();
    let length = u32::from_be_bytes(bytes[at - 4..at].try_into().unwrap()) as usize;
    serde_json::from_slice(&bytes[at + keyword.len()..at + 4 + length]).unwrap()
}

fn again(folder: &Path, model: &str, words: &[&str]) -> Ran {
    let model = fixtures().join(model);
    let mut all = vec!["generate", "--reproduce", "a.png", "-o", "b.png"];
    all.extend(["--model", model.to_str().unwrap()]);
    all.extend(words);
    run(folder, &all)
}

#[test]
fn a_picture_says_how_it_was_drawn_and_is_drawn_again() {
    let here = tempfile::tempdir().unwrap();
    let settings =
        ["--seed", "18446744073709551615", "--first", "1", "--cfg", "2.5", "--top-k", "30"];
    let more = ["--temperature", "0.9", "--repetition-penalty", "1.1", "--top-p", "0.99"];
    let files = ["-o", "x.png", "--json"];
    let ran = generate(here.path(), "tiny-odd/hf", &[&settings[..], &more, &files].concat());
    assert_eq!(ran.code, 0, "{ran}");
    std::fs::rename(here.path().join("x-2.png"), here.path().join("a.png")).unwrap();
    let inspect = run(&fixtures(), &["inspect", "tiny-odd/hf", "--json"]).json();
    let mut found = record(&here.path().join("a.png"));
    let hash = found["codes_sha256"].take();
    assert_eq!(hash.as_str().unwrap().len(), 64);
    assert_eq!(
        found,
        json!({
            "version": 1, "prompt": "a red cube on a blue sphere", "seed": u64::MAX, "index": 1,
            "cfg": 2.5, "temperature": 0.9, "top_k": 30, "top_p": 0.99, "repetition_penalty": 1.1,
            "model": "hf", "model_fingerprint": inspect["fingerprint"], "device": "cpu",
            "dtype": "bf16", "codes_sha256": null,
        })
    );

    // The same weights under other names are the same model.
    let text = again(here.path(), "tiny-odd/original-bin", &[]);
    assert_eq!((text.code, text.stdout.as_str()), (0, "b.png\nidentical\n"), "{text}");
    assert_eq!(picture(&here.path().join("b.png")), picture(&here.path().join("a.png")));
    assert_eq!(record(&here.path().join("b.png"))["codes_sha256"], hash);
    let json = again(here.path(), "tiny-odd/hf", &["--force", "--json"]);
    let json = json.json();
    assert_eq!(codes(&json, 0), codes(&ran.json(), 0));
    assert_eq!((&json["identical"], &json["device"]), (&json!(true), &json!("cpu")));
}

#[test]
fn another_model_is_refused_unless_it_is_wanted() {
    let here = copy_of("tiny-pro/original");
    assert_eq!(generate(here.path(), "tiny-pro/hf", &["--seed", "1", "-o", "a.png"]).code, 0);
    let other = again(here.path(), "tiny-odd/hf", &[]);
    assert_snapshot!("again_model", other);
    assert!(!here.path().join("b.png").exists());
    let wanted = again(here.path(), "tiny-odd/hf", &["--any-model"]);
    assert_eq!((wanted.code, wanted.stdout.as_str()), (1, "b.png\ndiffers\n"), "{wanted}");
    assert_eq!(wanted.stderr, "note: another model than hf draws other pictures\n");

    // One weight is enough, where it is looked at.
    let model = here.path().join("model");
    let mut tensors = read_tensors(&model);
    tensors.get_mut("gen_embed.weight").unwrap().2[1] ^= 0x40;
    write_tensors(&model, &tensors);
    let words = ["generate", "--reproduce", "a.png", "-o", "c.png", "--model", "model"];
    let changed = run(here.path(), &words);
    assert_eq!(changed.code, 65, "{changed}");
}

#[test]
fn a_difference_is_a_no_with_its_likely_reasons() {
    let here = tempfile::tempdir().unwrap();
    assert_eq!(generate(here.path(), "tiny-odd/hf", &["--seed", "1", "-o", "a.png"]).code, 0);
    let path = here.path().join("a.png");
    let hash = record(&path)["codes_sha256"].as_str().unwrap().to_owned();
    rewrite(&path, &hash, &"0".repeat(64));
    let differs = again(here.path(), "tiny-odd/hf", &["--json"]);
    assert_eq!((differs.code, &differs.json()["identical"]), (1, &json!(false)), "{differs}");
    assert!(differs.stderr.starts_with("note: drawn on cpu in bf16 then and now: "), "{differs}");
    let words = ["--device", "ndarray", "--force"];
    let elsewhere = again(here.path(), "tiny-odd/hf", &words);
    let reason = "note: drawn on cpu in bf16, and now on ndarray in f32: ";
    assert_eq!(elsewhere.code, 1);
    assert!(elsewhere.stderr.starts_with(reason), "{elsewhere}");
}

/// Replaces text in our chunk by text of the same length, and its checksum.
fn rewrite(path: &Path, from: &str, to: &str) {
    assert_eq!(from.len(), to.len());
    let mut bytes = std::fs::read(path).unwrap();
    let keyword = b"iTXtjanus\0";
    let start = bytes.windows(keyword.len()).position(|part| part == keyword).unwrap();
    let length = u32::from_be_bytes(bytes[start - 4..start].try_into().unwrap()) as usize;
    let end = start + 4 + length;
    let chunk = &mut bytes[start..end];
    let at = chunk.windows(from.len()).position(|part| part == from.as_bytes()).unwrap();
    chunk[at..at + to.len()].copy_from_slice(to.as_bytes());
    let sum = crc32(chunk);
    bytes[end..end + 4].copy_from_slice(&sum.to_be_bytes());
    std::fs::write(path, bytes).unwrap();
}

/// The checksum of PNG chunks.
fn crc32(bytes: &[u8]) -> u32 {
    let mut sum = u32::MAX;
    for byte in bytes {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            sum = (sum >> 1) ^ (0xedb8_8320 & (sum & 1).wrapping_neg());
        }
    }
    !sum
}

#[test]
fn files_that_do_not_say_it_are_refused() {
    let here = tempfile::tempdir().unwrap();
    let reproduce = |name: &str, words: &[&str]| {
        let mut all = vec!["generate", "--reproduce", name, "-o", "b.png", "--model", "nowhere"];
        all.extend(words);
        run(here.path(), &all)
    };
    let words = ["--seed", "1", "-o", "plain.png", "--no-metadata"];
    assert_eq!(generate(here.path(), "tiny-odd/hf", &words).code, 0);
    assert_eq!(generate(here.path(), "tiny-odd/hf", &["--seed", "1", "-o", "newer.png"]).code, 0);
    std::fs::copy(here.path().join("newer.png"), here.path().join("broken.png")).unwrap();
    rewrite(&here.path().join("newer.png"), "\"version\":1", "\"version\":7");
    rewrite(&here.path().join("broken.png"), "\"seed\":1", "\"seed\":x");
    std::fs::write(here.path().join("notes.txt"), "buy milk").unwrap();
    assert_snapshot!("again_plain", reproduce("plain.png", &[]));
    assert_snapshot!("again_newer", reproduce("newer.png", &[]));
    assert_snapshot!("again_broken", reproduce("broken.png", &[]));
    assert_snapshot!("again_not_png", reproduce("notes.txt", &[]));
    assert_snapshot!("again_absent", reproduce("absent.png", &[]));
    assert_snapshot!("again_folder", reproduce(".", &[]));
    assert_snapshot!("again_seed", reproduce("plain.png", &["--seed", "1"]));
    assert_snapshot!("again_cfg", reproduce("plain.png", &["--cfg", "5"]));
    assert_snapshot!("again_prompt", reproduce("plain.png", &["a cat"]));
    assert_snapshot!("again_prompts", reproduce("plain.png", &["--prompts", "notes.txt"]));
    let existing =
        ["generate", "--reproduce", "newer.png", "-o", "plain.png", "--model", "nowhere"];
    rewrite(&here.path().join("newer.png"), "\"version\":7", "\"version\":1");
    assert_snapshot!("again_exists", run(here.path(), &existing));
}
